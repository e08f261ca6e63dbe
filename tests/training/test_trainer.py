import math
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import torch

from epochd.errors import DataError, InfrastructureError, NumericError, OutOfMemoryError
from epochd.training import weights
from epochd.training.config import EarlyStoppingConfig, ScheduleConfig
from epochd.training.data import Samples
from epochd.training.events import EpochCompleted, IterationsCompleted, Selection, Stopped
from epochd.training.trainer import Trainer, TrainingData

DIVERGING = {"name": "sgd", "learning_rate": 1e20}
FROZEN = {"name": "sgd", "learning_rate": 1e-30}


def of_kind(kind, events):
    return [event for event in events if isinstance(event, kind)]


def train_losses(events) -> np.ndarray:
    return np.concatenate([block.train_loss for block in of_kind(IterationsCompleted, events)])


def state_of(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}


def same_state(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(first[name].equal(second[name]) for name in first)


def without_validation(data: TrainingData) -> TrainingData:
    return replace(data, validation=None)


# What is yielded


def test_the_events_of_a_training(make_config, classification):
    events = list(Trainer(make_config(epochs=4), classification).run())
    assert events[-1] == Stopped("completed", 4, 20)
    assert [event.epoch for event in of_kind(EpochCompleted, events)] == [1, 2, 3, 4]
    assert [event.iteration for event in of_kind(EpochCompleted, events)] == [5, 10, 15, 20]
    assert all(event.seconds > 0 for event in of_kind(EpochCompleted, events))


def test_blocks_follow_each_other_within_their_epoch(make_config, classification):
    trainer = Trainer(make_config(epochs=4), classification)
    blocks = of_kind(IterationsCompleted, trainer.run())
    assert (blocks[0].first_iteration, blocks[0].last_iteration) == (1, 1)  # the first comes at once
    assert all(later.first_iteration == earlier.last_iteration + 1 for earlier, later in pairwise(blocks))
    per_epoch = trainer.plan.iterations_per_epoch
    for block in blocks:
        assert (block.first_iteration - 1) // per_epoch == (block.last_iteration - 1) // per_epoch
        assert block.epoch == (block.first_iteration - 1) // per_epoch + 1
    assert blocks[-1].last_iteration == trainer.plan.total_iterations


@pytest.mark.parametrize(("task", "metric"), [("classification", "accuracy"), ("regression", "r2")])
def test_an_epoch_reports_exactly_its_metrics(task, metric, make_config, request):
    data = request.getfixturevalue(task)
    config = make_config(task=task, epochs=5, validate_every_epochs=2)
    epochs = of_kind(EpochCompleted, Trainer(config, data).run())
    for epoch in epochs:
        assert set(epoch.metrics) == {
            "train_loss",
            f"train_{metric}",
            "validation_loss",
            f"validation_{metric}",
        }
        validated = epoch.epoch in (2, 4, 5)  # the last one always
        assert (epoch.metrics["validation_loss"] is not None) == validated
        assert (epoch.metrics[f"validation_{metric}"] is not None) == validated
    alone = of_kind(EpochCompleted, Trainer(config, without_validation(data)).run())
    assert {tuple(sorted(epoch.metrics)) for epoch in alone} == {
        tuple(sorted(["train_loss", f"train_{metric}"]))
    }
    assert not any(epoch.is_best for epoch in alone)


@pytest.mark.parametrize("drop_last", [False, True])
def test_the_train_loss_weighs_samples(drop_last, make_config, classification):
    config = make_config(epochs=2, batch_size=64, drop_last=drop_last)
    events = list(Trainer(config, classification).run())
    sizes = [64, 64] if drop_last else [64, 64, 22]
    for number, epoch in enumerate(of_kind(EpochCompleted, events)):
        rows = train_losses(events)[number * len(sizes) : (number + 1) * len(sizes)]
        exact = sum(Fraction(float(loss)) * size for loss, size in zip(rows, sizes, strict=True))
        assert epoch.metrics["train_loss"] == float(exact / sum(sizes))


@pytest.mark.parametrize(("task", "metric"), [("classification", "accuracy"), ("regression", "r2")])
def test_train_metrics_are_those_of_the_samples_seen(task, metric, make_config, request):
    """With weights that stand still, one pass over the training samples is an evaluation of them."""
    train = request.getfixturevalue(task).train
    trainer = Trainer(make_config(task=task, epochs=1, optimizer=FROZEN), TrainingData(train, train))
    (epoch,) = of_kind(EpochCompleted, trainer.run())
    for name in ("loss", metric):
        assert epoch.metrics[f"train_{name}"] == pytest.approx(epoch.metrics[f"validation_{name}"], rel=1e-5)


def test_training_learns(make_config, classification, regression):
    *_, last, _ = Trainer(make_config(epochs=20), classification).run()
    assert last.metrics["validation_accuracy"] > 0.65  # chance is a third
    *_, last, _ = Trainer(make_config(task="regression", epochs=60), regression).run()
    assert last.metrics["validation_r2"] > 0.9


def test_the_diagnosis_knows_when_training_is_over(make_config, classification):
    epochs = of_kind(EpochCompleted, Trainer(make_config(epochs=30), classification).run())
    assert epochs[0].diagnosis.verdict == "undetermined"
    assert epochs[-1].diagnosis.verdict != "undetermined"


# The same configuration gives the same numbers


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_training_is_repeatable_to_the_bit(precision, make_config, classification):
    config = make_config(model={"dropout": 0.3}, precision=precision)
    first, second = Trainer(config, classification), Trainer(config, classification)
    assert np.array_equal(train_losses(first.run()), train_losses(second.run()))
    assert same_state(state_of(first), state_of(second))
    other = Trainer(replace(config, seed=1), classification)
    assert not same_state(state_of(other), state_of(Trainer(config, classification)))


def test_validation_does_not_touch_training(make_config, classification):
    config = make_config(model={"dropout": 0.5, "batch_norm": True}, epochs=4)
    validated = Trainer(config, classification)
    alone = Trainer(config, without_validation(classification))
    assert np.array_equal(train_losses(validated.run()), train_losses(alone.run()))
    assert same_state(state_of(validated), state_of(alone))


def test_training_and_its_caller_do_not_share_randomness(make_config, classification):
    config = make_config(model={"dropout": 0.5})
    expected = train_losses(Trainer(config, classification).run())
    torch.manual_seed(3)
    drawn = torch.rand(3)
    torch.manual_seed(3)
    blocks, seen = [], []
    for event in Trainer(config, classification).run():
        blocks += of_kind(IterationsCompleted, [event])
        if len(seen) < 3:
            seen.append(torch.rand(()))
    assert torch.stack(seen).equal(drawn)
    assert np.array_equal(train_losses(blocks), expected)


# Early stopping and other ends


def test_training_stops_early_and_keeps_the_best(make_config, classification):
    config = make_config(
        epochs=500, optimizer={"learning_rate": 0.05}, early_stopping=EarlyStoppingConfig(patience=3)
    )
    trainer = Trainer(config, classification)
    events = list(trainer.run())
    epochs = of_kind(EpochCompleted, events)
    assert events[-1].reason == "early_stopped"
    assert len(epochs) < 500
    losses = [epoch.metrics["validation_loss"] for epoch in epochs]
    best = int(np.argmin(losses)) + 1
    assert best == len(epochs) - 3
    assert epochs[-1].early_stopping.stopped
    assert epochs[-1].early_stopping.best_epoch == best
    assert [epoch.epoch for epoch in epochs if epoch.is_best][-1] == best
    selection = trainer.final_selection()
    assert selection == Selection(
        best, best * 5, "validation_loss", losses[best - 1], "lowest validation_loss"
    )


@pytest.mark.parametrize("monitor", ["validation_loss", "validation_accuracy"])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_evaluating_the_selection_gives_its_value(monitor, batch_norm, make_config, classification):
    mode = "min" if monitor == "validation_loss" else "max"
    config = make_config(
        epochs=12,
        model={"batch_norm": batch_norm},
        optimizer={"learning_rate": 0.1},
        early_stopping=EarlyStoppingConfig(monitor=monitor, mode=mode, patience=50),
    )
    trainer = Trainer(config, classification)
    epochs = of_kind(EpochCompleted, trainer.run())
    last = trainer.evaluate()
    selection = trainer.select("best")
    assert selection.epoch < 12  # so that the weights must have been put back
    assert trainer.evaluate()[monitor] == selection.value == epochs[selection.epoch - 1].metrics[monitor]
    assert trainer.select("last").epoch == 12
    assert trainer.evaluate() == last
    assert trainer.select("best") == selection
    assert trainer.evaluate()[monitor] == selection.value


def test_a_reader_of_the_saved_weights_gets_the_selected_value(make_config, classification, tmp_path):
    trainer = Trainer(make_config(model={"batch_norm": True, "dropout": 0.2}), classification)
    list(trainer.run())
    selection = trainer.final_selection()
    weights.save(
        tmp_path, trainer.model, architecture=trainer.layers, preprocessing={}, classes=None, task="",
        input_shape=(), selection=selection.as_dict(), extra={},
    )  # fmt: skip
    rebuilt, _ = weights.load(tmp_path)
    logits = rebuilt(torch.from_numpy(classification.validation.x))
    targets = torch.from_numpy(classification.validation.y)
    loss = torch.nn.functional.cross_entropy(logits, targets).item()
    assert loss == pytest.approx(selection.value, rel=1e-6)


def test_a_target_ends_training(make_config, classification):
    stopping = EarlyStoppingConfig("validation_accuracy", "max", patience=100, target=0.7)
    events = list(Trainer(make_config(epochs=200, early_stopping=stopping), classification).run())
    assert events[-1].reason == "target_reached"
    accuracies = [epoch.metrics["validation_accuracy"] for epoch in of_kind(EpochCompleted, events)]
    assert accuracies[-1] >= 0.7
    assert all(accuracy < 0.7 for accuracy in accuracies[:-1])


def test_the_epoch_that_stops_early_is_validated_whatever_is_monitored(make_config, classification):
    stopping = EarlyStoppingConfig("train_loss", "min", patience=2, min_delta=10)
    config = make_config(epochs=50, validate_every_epochs=10, early_stopping=stopping)
    trainer = Trainer(config, classification)
    events = list(trainer.run())
    epochs = of_kind(EpochCompleted, events)
    assert events[-1] == Stopped("early_stopped", 3, 15)
    assert [epoch.metrics["validation_loss"] is None for epoch in epochs] == [True, True, False]
    assert trainer.final_selection().metric == "train_loss"


def test_restore_best_off_keeps_the_last_weights(make_config, classification):
    stopping = EarlyStoppingConfig(patience=50, restore_best=False)
    config = make_config(epochs=12, optimizer={"learning_rate": 0.1}, early_stopping=stopping)
    trainer = Trainer(config, classification)
    list(trainer.run())
    last = state_of(trainer)
    assert trainer.select("best").epoch < 12
    selection = trainer.final_selection()
    assert (selection.epoch, selection.metric, selection.value) == (12, None, None)
    assert same_state(state_of(trainer), last)


def test_without_validation_the_last_weights_are_kept(make_config, classification):
    trainer = Trainer(make_config(), without_validation(classification))
    list(trainer.run())
    last = state_of(trainer)
    selection = trainer.final_selection()
    assert (selection.epoch, selection.iteration, selection.metric) == (3, 15, None)
    assert "no validation" in selection.reason
    assert same_state(state_of(trainer), last)
    assert trainer.evaluate() == {}


def test_a_time_limit_ends_training_between_iterations(make_config, classification):
    config = make_config(epochs=10**6, validate_every_epochs=10**6, max_runtime_seconds=1e-9)
    events = list(Trainer(config, classification).run())
    assert [type(event) for event in events] == [
        IterationsCompleted,
        Stopped,
    ]  # the first block is fetched at once
    assert events[-1] == Stopped("time_limit", 0, 1)


def test_the_epoch_that_ends_at_the_time_limit_is_validated(make_config, classification):
    config = make_config(batch_size=1000, epochs=10**6, validate_every_epochs=10**6, max_runtime_seconds=1e-9)
    trainer = Trainer(config, classification)
    events = list(trainer.run())
    assert events[-1] == Stopped("time_limit", 1, 1)
    assert events[-2].metrics["validation_loss"] is not None
    assert trainer.final_selection().epoch == 1


def test_training_can_be_left_in_the_middle_of_an_epoch(make_config, classification):
    trainer = Trainer(make_config(), classification)
    with closing(trainer.run()) as events:
        next(events)
    assert trainer.select("last") == Selection(1, 1, None, None, "the last weights were asked for")
    selection = trainer.select("best")
    assert (selection.epoch, selection.iteration, selection.metric) == (1, 1, None)
    assert "no completed epoch" in selection.reason


def test_leaving_later_keeps_the_best_epoch_so_far(make_config, classification):
    trainer = Trainer(make_config(epochs=10), classification)
    completed = []
    with closing(trainer.run()) as events:
        for event in events:
            completed += of_kind(EpochCompleted, [event])
            if len(completed) == 2 and isinstance(event, IterationsCompleted):
                break
    selection = trainer.select("best")
    assert selection.epoch in (1, 2)
    assert trainer.evaluate()["validation_loss"] == selection.value
    assert trainer.select("last").epoch == 3


def test_before_the_first_iteration_the_last_weights_are_the_initial_ones(make_config, classification):
    trainer = Trainer(make_config(), classification)
    initial = state_of(trainer)
    assert trainer.select("best").iteration == 0
    assert same_state(state_of(trainer), initial)


def test_weights_are_selected_only_when_training_is_over(make_config, classification):
    trainer = Trainer(make_config(), classification)
    events = trainer.run()
    next(events)
    with pytest.raises(RuntimeError, match="close run"):
        trainer.select("best")
    events.close()
    trainer.select("best")
    with pytest.raises(RuntimeError, match="trains once"):
        next(trainer.run())


# Numbers that are not finite


def train_until_error(trainer: Trainer):
    """The events before the error, and the error."""
    events = []
    try:
        for event in trainer.run():
            events.append(event)  # noqa: PERF402 - list() would lose what came before the error
    except NumericError as error:
        return events, error
    raise AssertionError("the loss stayed finite")


def test_a_loss_that_is_not_finite_names_its_iteration(make_config, classification):
    trainer = Trainer(make_config(optimizer=DIVERGING, epochs=5), classification)
    events, error = train_until_error(trainer)
    losses = train_losses(events)
    assert error.iteration == len(losses) == trainer.position.iteration
    assert np.isfinite(losses[:-1]).all()
    assert not np.isfinite(losses[-1])
    assert f"iteration {len(losses)} " in error.message


def test_the_best_weights_survive_a_loss_that_is_not_finite(make_config, classification):
    """The learning rate explodes in the second epoch: callers may not set gamma above 1, but this may."""
    config = make_config(
        epochs=5,
        optimizer={"name": "sgd", "learning_rate": 0.05},
        schedule=ScheduleConfig("step", step_epochs=1, gamma=1e20),
    )
    trainer = Trainer(config, classification)
    train_until_error(trainer)
    selection = trainer.select("best")
    assert selection.epoch == 1
    assert trainer.evaluate()["validation_loss"] == selection.value
    assert math.isfinite(selection.value)


def test_a_validation_loss_that_is_not_finite_is_no_value_and_no_best(make_config, regression):
    huge = Samples(regression.validation.x, regression.validation.y * np.float32(1e30))
    trainer = Trainer(make_config(task="regression", epochs=2), TrainingData(regression.train, huge))
    epochs = of_kind(EpochCompleted, trainer.run())
    assert [epoch.metrics["validation_loss"] for epoch in epochs] == [None, None]
    assert not any(epoch.is_best for epoch in epochs)
    assert trainer.final_selection().metric is None


# Precision, memory, device


def test_bf16_trains_in_lower_precision_and_reports_float32(make_config, classification):
    exact = list(Trainer(make_config(epochs=5), classification).run())
    trainer = Trainer(make_config(epochs=5, precision="bf16"), classification)
    events = list(trainer.run())
    assert train_losses(events) == pytest.approx(train_losses(exact), rel=0.05)
    assert not np.array_equal(train_losses(events), train_losses(exact))
    assert {tensor.dtype for tensor in trainer.model.parameters()} == {torch.float32}
    logits = trainer.model(torch.from_numpy(classification.validation.x))
    loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(classification.validation.y)).item()
    assert trainer.evaluate()["validation_loss"] == pytest.approx(loss, rel=1e-6)  # in full precision


def test_a_model_too_large_is_out_of_memory(make_config, classification):
    with pytest.raises(OutOfMemoryError):
        Trainer(make_config(model={"hidden_sizes": (2**18, 2**30)}), classification)


def test_a_device_that_is_not_there(make_config, classification):
    with pytest.raises(InfrastructureError) as caught:
        Trainer(make_config(device="cuda:99"), classification)
    assert caught.value.code == "device_not_available"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_cuda_trains_as_the_cpu_does(optimizer, precision, make_config, classification):
    config = make_config(epochs=5, optimizer={"name": optimizer}, precision=precision, gradient_clip_norm=1.0)
    on_cpu = list(Trainer(replace(config, precision="fp32"), classification).run())
    trainer = Trainer(replace(config, device="cuda"), classification)
    events = list(trainer.run())
    tolerance = 1e-3 if precision == "fp32" else 0.05
    assert train_losses(events) == pytest.approx(train_losses(on_cpu), rel=tolerance)
    selection = trainer.final_selection()
    assert trainer.evaluate()["validation_loss"] == selection.value
    repeated = Trainer(replace(config, device="cuda"), classification)
    assert np.array_equal(train_losses(repeated.run()), train_losses(events))


# What cannot be trained


@pytest.mark.parametrize(("fields", "message"), [
    ({"early_stopping": EarlyStoppingConfig("validation_r2")}, "early_stopping.monitor is 'validation_r2'"),
    ({"schedule": ScheduleConfig("reduce_on_plateau", monitor="x")}, "schedule.monitor is 'x'"),
    ({"loss": "mse"}, "does not fit the task"),
    ({"batch_size": 151, "drop_last": True}, "drop_last leaves no mini-batch"),
])  # fmt: skip
def test_a_contradiction_is_refused(fields, message, make_config, classification):
    with pytest.raises(ValueError, match=message):
        Trainer(make_config(**fields), classification)


def test_data_that_cannot_be_trained_on_is_refused(make_config, classification, regression):
    train = classification.train
    broken = train.x.copy()
    broken[3, 4] = np.nan
    cases = {
        "non_finite_data": (Samples(broken, train.y), {}),
        "class_out_of_range": (Samples(train.x, train.y + 1), {}),
        "wrong_shape": (Samples(train.x[:, :5], train.y), {}),
        "batch_norm_of_one_sample": (train, {"batch_size": 149, "model": {"batch_norm": True}}),
    }
    for code, (samples, fields) in cases.items():
        with pytest.raises(DataError) as caught:
            Trainer(make_config(**fields), TrainingData(samples))
        assert caught.value.code == code
    for targets in (regression.train.y[:, 0], regression.train.y[:-1]):
        with pytest.raises(DataError, match="target"):
            Trainer(make_config(task="regression"), TrainingData(Samples(regression.train.x, targets)))


def test_the_engine_does_not_load_torchs_compiler():
    """It takes longer than a small training: the first iteration would wait for it."""
    code = "import sys, epochd.training.trainer; sys.exit('torch._dynamo' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
