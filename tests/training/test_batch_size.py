"""Measured batch sizes: real iterations, the noise scale against its closed form, and the choice."""

import resource
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from epochd.training import batch_size
from epochd.training.batch_size import measure
from epochd.training.batch_size_choice import BatchSizeMeasured, NoiseScale, candidates, choose
from epochd.training.config import DataShape, ModelConfig, OptimizerConfig, TrainingConfig
from epochd.training.data import Samples, TrainingData
from epochd.training.noise_scale import estimate
from epochd.training.weight_update import Autograd

PLENTY = 60.0
"""Seconds: each size stops by itself after a few blocks, however busy the machine is."""


@pytest.fixture(autouse=True)
def few_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time little, and leave so much time that a busy machine changes nothing."""
    monkeypatch.setattr(batch_size, "BLOCKS", 3)


def _config(**fields: object) -> TrainingConfig:
    model = ModelConfig("mlp", DataShape("table", (12,), 2), {"hidden_sizes": (16,)})
    return TrainingConfig("regression", model, epochs=1, batch_size=1, loss="mse", **fields)  # type: ignore[arg-type]


def test_every_power_of_two_is_trained_and_then_the_noise_measured(regression: TrainingData) -> None:
    *sizes, noise = measure(_config(), regression, available_bytes=None, seconds=PLENTY)
    assert [one.batch_size for one in sizes if isinstance(one, BatchSizeMeasured)] == candidates(150)
    for one in sizes:
        assert isinstance(one, BatchSizeMeasured)
        assert one.fits
        assert one.iterations > 0
        assert one.samples_per_second
        assert BatchSizeMeasured.from_dict(one.as_dict()) == one
    assert isinstance(noise, NoiseScale)
    assert NoiseScale.from_dict(noise.as_dict()) == noise


def test_what_is_predicted_to_lack_memory_is_not_run(regression: TrainingData) -> None:
    first, second = islice(measure(_config(), regression, available_bytes=1, seconds=PLENTY), 2)
    assert isinstance(first, BatchSizeMeasured)
    assert first.fits  # the first is always tried: nothing to predict from
    assert isinstance(second, BatchSizeMeasured)
    assert not second.fits
    assert second.reason is not None
    assert "available" in second.reason


def test_the_callers_randomness_and_threads_stay(regression: TrainingData) -> None:
    torch.manual_seed(3)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    model = ModelConfig("mlp", DataShape("table", (12,), 2), {"hidden_sizes": (16,), "dropout": 0.5})
    config = TrainingConfig("regression", model, epochs=1, batch_size=1, loss="mse")
    for _ in measure(config, regression, available_bytes=None, seconds=0.5):
        assert torch.equal(torch.get_rng_state(), before)
        assert torch.get_num_threads() == threads


def _linear(noise: float) -> tuple[TrainingData, float]:
    """Inputs N(0, I), targets noise alone, and weights that are known: a model whose noise scale is, too."""
    random = np.random.default_rng(1)
    x = random.standard_normal((4_000, 5)).astype(np.float32)
    return TrainingData(Samples(x, (noise * random.standard_normal((4_000, 1))).astype(np.float32))), noise


def test_estimate_meets_the_closed_form_of_linear_regression() -> None:
    """Squared error, x ~ N(0, I_d), residual x·e + s z: G = 2e, tr(Sigma) = 4 ((d + 1) |e|^2 + d s^2)."""
    random, d, s, small, parts = np.random.default_rng(0), 5, 3.0, 8, 8
    e = np.full(d, 0.5)
    norms = []
    for _ in range(400):
        x = random.standard_normal((parts, small, d))
        residual = x @ e + s * random.standard_normal((parts, small))
        gradients = 2 * (residual[..., None] * x).mean(axis=1)
        norms.append(((gradients**2).sum(axis=1).mean(), (gradients.mean(axis=0) ** 2).sum()))
    found = estimate([one for one, _ in norms], [one for _, one in norms], small, small * parts)
    expected = ((d + 1) * (e @ e) + d * s**2) / (e @ e)
    assert found.value == pytest.approx(expected, rel=0.15)
    assert found.low is not None
    assert found.high is not None
    assert found.low < expected < found.high


def test_measured_noise_scale_is_that_of_the_whole_training_set() -> None:
    """At a learning rate of 1e-9 the weights stay the initial ones: their noise scale follows from all samples."""
    data, _ = _linear(1.0)
    model = ModelConfig("mlp", DataShape("table", (5,), 1), {"hidden_sizes": ()})
    config = TrainingConfig(
        "regression", model, 1, 1, loss="mse", optimizer=OptimizerConfig("sgd", learning_rate=1e-9)
    )
    *_, noise = measure(config, data, available_bytes=None, seconds=PLENTY)
    assert isinstance(noise, NoiseScale)
    weights, bias = _initial(config, data)
    x = np.asarray(data.train.x)  # type: ignore[union-attr]
    residual = x @ weights + bias - data.train.y[:, 0]
    gradients = 2 * residual[:, None] * np.column_stack([x, np.ones(len(x))])
    exact = gradients.var(axis=0).sum() / (gradients.mean(axis=0) ** 2).sum()
    assert noise.low is not None
    assert noise.low < exact < (noise.high or np.inf)


def _initial(config: TrainingConfig, data: TrainingData) -> tuple[np.ndarray, float]:
    from epochd.training.learner import Learner

    weight, bias = Learner(config, data).model.parameters()
    return weight.detach().numpy()[0].astype(float), float(bias.detach())


@pytest.mark.parametrize(("scale", "recommended"), [(5.0, 4), (0.2, 1), (1e6, 8), (None, 2)])
def test_recommended_is_the_noise_scale_within_what_fits(scale: float | None, recommended: int) -> None:
    speeds: Callable[[int], float] = {1: 10.0, 2: 99.0, 4: 100.0, 8: 60.0}.__getitem__
    measured = [BatchSizeMeasured(size, True, 1, speeds(size), 1.0, 9) for size in (1, 2, 4, 8)]
    measured.append(BatchSizeMeasured(16, False, reason="no memory."))
    choice = choose(measured, NoiseScale(scale, None, None, 1, 1, 1, 2, 9), 100)
    assert (choice.fits, choice.fastest, choice.recommended) == (8, 2, recommended)
    assert "16 does not fit: no memory." in choice.reasons["fits"]


def test_nothing_fits() -> None:
    choice = choose([BatchSizeMeasured(1, False, reason="no memory.")], None, 100)
    assert choice.fits is choice.fastest is choice.recommended is None
    assert "no memory" in choice.reasons["fits"]


def test_no_memory_is_left_behind(regression: TrainingData) -> None:
    """What a size that takes hundreds of megabytes held is given back: models, activations, and the pages."""
    model = ModelConfig(
        "mlp", DataShape("table", (12,), 2), {"hidden_sizes": (4000, 4000)}
    )  # 64 MB of weights
    config = TrainingConfig("regression", model, epochs=1, batch_size=1, loss="mse")
    sizes = list(measure(_config(), regression, available_bytes=None, seconds=0.5))
    before = _resident()
    sizes = list(measure(config, regression, available_bytes=None, seconds=1))
    assert isinstance(sizes[0], BatchSizeMeasured)
    assert (sizes[0].peak_memory_bytes or 0) > before + 200 * 2**20  # weights, gradient, two moments
    assert _resident() < before + 60 * 2**20


def test_what_runs_out_of_memory_does_not_fit(
    regression: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Autograd is what bf16 trains by; a training would go on in micro-batches where this raises.
    update = Autograd.__call__

    def short(self: Autograd, x: torch.Tensor, *rest: object) -> torch.Tensor:
        if len(x) > 4:
            raise torch.OutOfMemoryError("no room for this")
        return update(self, x, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Autograd, "__call__", short)
    sizes = list(measure(_config(precision="bf16"), regression, available_bytes=None, seconds=PLENTY))
    found = [(one.batch_size, one.fits) for one in sizes if isinstance(one, BatchSizeMeasured)]
    assert found == [(1, True), (2, True), (4, True), (8, False)]
    assert "does not fit" in str(next(one for one in sizes if not getattr(one, "fits", True)))


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()
