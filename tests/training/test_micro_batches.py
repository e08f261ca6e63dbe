"""Trainings that run out of memory, against the same ones that do not.

Memory runs out where it would: inside torch's kernels, when they are called with more samples than "fit".
"""

import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.little_memory import BACKWARD, FORWARD, LittleMemory
from torch import nn

from epochd.errors import OutOfMemoryError
from epochd.training.backpropagation import Backpropagation
from epochd.training.config import OptimizerConfig
from epochd.training.events import EpochCompleted, IterationsCompleted, MemoryReduced
from epochd.training.losses import loss_function
from epochd.training.optimizers import make_optimizer
from epochd.training.parameters import FlatParameters
from epochd.training.resumption import on_cpu
from epochd.training.trainer import Trainer
from epochd.training.weight_update import WeightUpdate


@contextmanager
def everything_fits():
    yield


def train(config, data, memory=None):
    trainer = Trainer(config, data)
    with memory or everything_fits():
        events = list(trainer.run())
    return trainer, events


def losses(events):
    return np.concatenate([one.train_loss for one in events if isinstance(one, IterationsCompleted)])


def norms(events):
    return np.concatenate([one.gradient_norm for one in events if isinstance(one, IterationsCompleted)])


def reductions(events):
    return [one for one in events if isinstance(one, MemoryReduced)]


def epochs(events):
    return [one for one in events if isinstance(one, EpochCompleted)]


def assert_same_curves(found, expected):
    np.testing.assert_allclose(losses(found), losses(expected), rtol=2e-5, atol=1e-6)
    np.testing.assert_allclose(norms(found), norms(expected), rtol=2e-4, atol=1e-6)
    for mine, theirs in zip(epochs(found), epochs(expected), strict=True):
        assert mine.iteration == theirs.iteration
        assert mine.metrics == pytest.approx(theirs.metrics, rel=2e-5, abs=1e-6)


CASES = {
    "adamw": {},
    "sgd with momentum": {"optimizer": {"name": "sgd", "momentum": 0.9}},
    "clipped": {"gradient_clip_norm": 0.1},
    "class weights": {"class_weights": (1.0, 5.0, 0.2), "label_smoothing": 0.1},
    "by autograd": {"model": {"name": "tabular_resnet"}},
    "schedule": {"batch_size": 50, "drop_last": True},
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("fits", [16, 5, 1])
def test_micro_batches_make_the_same_updates(case, fits, classification, make_config):
    fields = CASES[case]
    if case == "by autograd":
        fields = {"model": {"name": "linear"}, "loss": "cross_entropy"}
    config = make_config(**fields)
    _, expected = train(config, classification)
    trainer, found = train(config, classification, LittleMemory(fits))
    assert_same_curves(found, expected)
    assert reductions(found)[0].iteration == 1
    assert trainer.micro_batches.size <= fits
    assert not reductions(expected)


@pytest.mark.parametrize("loss", ["mse", "mae", "huber"])
def test_losses_of_a_regression(loss, regression, make_config):
    config = make_config(task="regression", loss=loss)
    _, expected = train(config, regression)
    _, found = train(config, regression, LittleMemory(7))
    assert_same_curves(found, expected)


def test_bf16_goes_by_autograd_and_is_split_too(classification, make_config):
    config = make_config(precision="bf16")
    _, expected = train(config, classification)
    _, found = train(config, classification, LittleMemory(8))
    np.testing.assert_allclose(losses(found), losses(expected), rtol=0.02, atol=0.01)
    assert reductions(found)


@pytest.mark.parametrize("kernel", [FORWARD, BACKWARD])
@pytest.mark.parametrize("error", [torch.OutOfMemoryError, RuntimeError, MemoryError])
def test_training_goes_on_from_the_iteration_that_failed(kernel, error, classification, make_config):
    config = make_config()
    _, expected = train(config, classification)
    memory = LittleMemory(16, kernel=kernel, calls_before=14, error=error)
    _, found = train(config, classification, memory)
    assert_same_curves(found, expected)
    (reduced,) = reductions(found)
    assert (reduced.batch_size, reduced.micro_batch_size, reduced.micro_batches) == (32, 16, 2)
    assert 1 < reduced.iteration < len(losses(expected))
    before = found[: found.index(reduced)]
    assert len(losses(before)) == reduced.iteration
    assert (
        losses(before)[: reduced.iteration - 1].tobytes()
        == losses(expected)[: reduced.iteration - 1].tobytes()
    )


def test_other_errors_are_not_taken_for_memory(classification, make_config):
    class Broken(LittleMemory):
        pass

    trainer = Trainer(make_config(), classification)
    memory = Broken(0, error=lambda _: RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with memory, pytest.raises(RuntimeError, match="shapes cannot"):
        list(trainer.run())
    assert trainer.micro_batches.size is None


def test_not_even_one_sample_fits(classification, make_config):
    trainer = Trainer(make_config(), classification)
    before = [one.clone() for one in trainer.model.parameters()]
    with LittleMemory(0), pytest.raises(OutOfMemoryError, match="with 1 sample at a time"):
        list(trainer.run())
    assert all(mine.equal(theirs) for mine, theirs in zip(trainer.model.parameters(), before, strict=True))


def test_dropout_draws_the_same_when_the_same_iteration_fails_again(classification, make_config):
    config = make_config(model={"dropout": 0.3})
    runs = [
        train(config, classification, LittleMemory(16, kernel=BACKWARD, calls_before=14))[1] for _ in range(2)
    ]
    assert losses(runs[0]).tobytes() == losses(runs[1]).tobytes()
    _, expected = train(config, classification)
    at = reductions(runs[0])[0].iteration
    assert losses(runs[0])[: at - 1].tobytes() == losses(expected)[: at - 1].tobytes()


class TestBatchStatistics:
    def test_are_told_and_never_taken_from_a_single_sample(self, classification, make_config):
        config = make_config(model={"batch_norm": True}, batch_size=37)
        _, events = train(config, classification, LittleMemory(3))
        (*_, last) = reductions(events)
        assert last.batch_statistics
        assert last.micro_batch_size == 3
        assert last.micro_batches == 13
        assert np.isfinite(losses(events)).all()

    def test_running_ones_are_the_mean_of_the_micro_batches(self, classification, make_config):
        """With as many samples in each micro-batch, the means are those of the whole mini-batch."""
        config = make_config(
            model={"batch_norm": True}, batch_size=50, epochs=1, optimizer={"learning_rate": 1e-9}
        )
        whole, _ = train(config, classification)
        split, _ = train(config, classification, LittleMemory(25, kernel=BACKWARD))
        mine, theirs = split.model.state_dict(), whole.model.state_dict()
        name = next(name for name in theirs if name.endswith("running_mean"))
        torch.testing.assert_close(mine[name], theirs[name], rtol=1e-4, atol=1e-5)
        count = name.replace("running_mean", "num_batches_tracked")
        assert mine[count] == theirs[count] == 3


def test_a_resumed_training_splits_as_the_one_before(classification, make_config):
    config = make_config(epochs=4)
    _, expected = train(config, classification, LittleMemory(8))
    first = Trainer(config, classification)
    events = first.run()
    with LittleMemory(8):
        seen = []
        for event in events:
            seen.append(event)
            if isinstance(event, EpochCompleted) and event.epoch == 2:
                break
        state = on_cpu(first.state_dict(), copy=True)
        events.close()
    resumed = Trainer(config, classification)
    resumed.load_state_dict(state)
    assert resumed.micro_batches.size == 8
    rest = list(resumed.run())  # there is memory enough now, but other sizes would round differently
    assert not reductions(rest)
    assert losses(seen + rest).tobytes() == losses(expected).tobytes()


def test_a_state_from_before_there_were_micro_batches(classification, make_config):
    config = make_config()
    trainer = Trainer(config, classification)
    state = trainer.state_dict()
    del state["learner"]["micro_batch_size"], state["learner"]["evaluated_together"]
    resumed = Trainer(config, classification)
    resumed.load_state_dict(state)
    assert resumed.micro_batches.size is None
    assert losses(list(resumed.run())).tobytes() == losses(train(config, classification)[1]).tobytes()


def test_validation_that_does_not_fit_is_split_too(classification, make_config):
    config = make_config(batch_size=8, epochs=2)
    _, expected = train(config, classification)
    trainer, found = train(config, classification, LittleMemory(9))
    assert_same_curves(found, expected)
    assert trainer.micro_batches.size is None
    assert not reductions(found)


def test_images_and_convolutions(images, make_config):
    model = {"name": "cnn", "input_shape": (3, 8, 8), "channels": (4,)}
    config = make_config(model=model)
    config = replace(config, model=replace(config.model, data=replace(config.model.data, kind="image")))
    _, expected = train(config, images)
    _, found = train(config, images, LittleMemory(11))
    assert_same_curves(found, expected)
    assert reductions(found)


REAL = """
import resource
import numpy as np
from epochd.training.config import DataShape, ModelConfig, TrainingConfig
from epochd.training.data import Samples, TrainingData
from epochd.training.device import configure
from epochd.training.events import IterationsCompleted, MemoryReduced
from epochd.training.trainer import Trainer

configure(1)
random = np.random.default_rng(0)
samples = Samples(random.standard_normal((8192, 32)).astype(np.float32), random.integers(0, 3, 8192))
model = ModelConfig("mlp", DataShape("table", (32,), 3), {"hidden_sizes": (8192, 64)})
config = TrainingConfig("classification", model, epochs=2, batch_size=4096)

def train():
    events = list(Trainer(config, TrainingData(samples)).run())
    losses = [one.train_loss for one in events if isinstance(one, IterationsCompleted)]
    return np.concatenate(losses), [one for one in events if isinstance(one, MemoryReduced)]

whole, none = train()
assert not none
with open("/proc/self/statm") as status:
    used = int(status.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 120 * 2**20,) * 2)
split, reduced = train()
np.testing.assert_allclose(split, whole, rtol=1e-5)
print(reduced[-1].micro_batch_size)
"""


def test_memory_that_really_runs_out():
    """4096 samples take 134 MB in the first layer alone; more than 120 MB are not there."""
    done = subprocess.run([sys.executable, "-c", REAL], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert 1 <= int(done.stdout) < 4096


def test_what_a_failed_attempt_has_computed_is_given_up_before_the_next():
    model = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 2))
    flat = FlatParameters(model)
    optimizer = make_optimizer(OptimizerConfig("sgd"), flat.values, flat.gradient)
    update = WeightUpdate(model, loss_function("cross_entropy"), flat, optimizer, None, model=model)
    x, y, slots = torch.randn(8, 4), torch.zeros(8, dtype=torch.int64), torch.zeros(2)
    with LittleMemory(0, kernel=BACKWARD), pytest.raises(OutOfMemoryError):
        update(x, y, 0.1, slots[0], slots[1])
    assert isinstance(update.differentiate, Backpropagation)
    held = [value for layer in update.differentiate._layers for value in vars(layer).values()]
    parameters = {one.data_ptr() for one in (flat.values, flat.gradient, *model.parameters())}
    parameters |= {one.grad.data_ptr() for one in model.parameters()}
    assert [one for one in held if isinstance(one, torch.Tensor) and one.data_ptr() not in parameters] == []


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_that_really_runs_out_of_memory(classification, make_config):
    config = make_config(device="cuda", batch_size=150, model={"hidden_sizes": (1 << 14,)}, epochs=2)
    _, expected = train(config, classification)
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info()
    taken = torch.empty(free - (1 << 27), dtype=torch.uint8, device="cuda")
    try:
        _, found = train(config, classification)
    finally:
        del taken
        torch.cuda.empty_cache()
    assert total > 0
    assert losses(found) == pytest.approx(losses(expected), rel=1e-3)
