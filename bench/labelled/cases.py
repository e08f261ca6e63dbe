"""Trainings that are made to underfit, fit, overfit, diverge, stand still or jump about, over all data sets."""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

CLUSTERS: Final = {
    "name": "synthetic",
    "task": "classification",
    "samples": 900,
    "features": 10,
    "classes": 4,
}
LINE: Final = {"name": "synthetic", "task": "regression", "samples": 700, "features": 8}
DATASETS: Final[dict[str, Any]] = {
    "digits": "digits",
    "iris": "iris",
    "wine": "wine",
    "breast_cancer": "breast_cancer",
    "diabetes": "diabetes",
    "clusters": CLUSTERS,
    "line": LINE,
}
REGRESSIONS: Final = ("diabetes", "line")


@dataclass(frozen=True)
class Case:
    """A training, and what it is made to do.

    ``noise`` is the part of all labels that are drawn anew (regression: deviations of noise that are added to the
    targets), ``samples`` how many of the training samples are used; ``spec`` is what a caller sends beside the data
    set.
    """

    name: str
    dataset: str
    label: str
    spec: dict[str, Any]
    noise: float = 0.0
    samples: int | None = None
    seed: int = field(default=0)

    @property
    def is_for_fitting(self) -> bool:
        """Whether thresholds may be fitted to it; the others are reported on. By its name alone."""
        return zlib.crc32(self.name.encode()) % 2 == 0


def cases() -> Iterator[Case]:
    """All of them, by data set."""
    for dataset in DATASETS:
        recipes = [
            *_good(dataset), *_underfitting(), *_overfitting(dataset), *_diverging(dataset), *_plateau(dataset),
            *_noisy_training(dataset),
        ]  # fmt: skip
        for seed, (label, what, values) in enumerate(recipes):
            spec = {name: value for name, value in values.items() if name not in {"noise", "samples"}}
            rest = {name: values[name] for name in ("noise", "samples") if name in values}
            yield Case(f"{dataset}: {what}", dataset, label, spec, seed=seed, **rest)


Recipe = tuple[str, str, dict[str, Any]]


def _adamw(rate: float, decay: float = 0.01) -> dict[str, Any]:
    return {"name": "adamw", "learning_rate": rate, "weight_decay": decay}


def _sgd(rate: float, momentum: float = 0.9) -> dict[str, Any]:
    return {"name": "sgd", "learning_rate": rate, "momentum": momentum}


def _mlp(*sizes: int, dropout: float = 0.0) -> dict[str, Any]:
    return {"name": "mlp", "hidden_sizes": list(sizes), "dropout": dropout}


def _good(dataset: str) -> list[Recipe]:
    """Enough epochs, a usual rate, no more capacity than the samples bear."""
    few, many = (30, 60) if dataset == "digits" else (60, 120)
    rate = {"iris": 0.03, "breast_cancer": 0.003}.get(dataset, 0.01)
    small = _mlp(64) if dataset == "digits" else _mlp(8)
    return [
        ("good_fit", "linear", {"model": {"name": "linear"}, "epochs": many, "optimizer": _adamw(rate)}),
        ("good_fit", "small mlp", {"model": small, "epochs": few, "optimizer": _adamw(rate / 3)}),
        (
            "good_fit",
            "mlp with dropout, cosine",
            {
                "model": _mlp(32, dropout=0.3), "epochs": few, "optimizer": _adamw(rate),
                "schedule": {"name": "cosine"},
            },
        ),
        ("good_fit", "linear, sgd", {"model": {"name": "linear"}, "epochs": few, "optimizer": _sgd(rate)}),
    ]  # fmt: skip


def _underfitting() -> list[Recipe]:
    """Too few epochs, too low a rate, too little capacity to begin with."""
    return [
        ("underfitting", "too few epochs", {"model": _mlp(32), "epochs": 6, "optimizer": _adamw(0.001)}),
        ("underfitting", "slow sgd", {"model": _mlp(32), "epochs": 20, "optimizer": _sgd(0.0005, 0.0)}),
        ("underfitting", "low rate", {"model": _mlp(64), "epochs": 30, "optimizer": _adamw(0.00001)}),
        ("underfitting", "hopeless rate", {"model": _mlp(32), "epochs": 20, "optimizer": _adamw(1e-7)}),
        (
            "underfitting",
            "nothing gets through",
            {"model": _mlp(2, 2, 2, dropout=0.9), "epochs": 40, "optimizer": _adamw(0.001)},
        ),
    ]


def _overfitting(dataset: str) -> list[Recipe]:
    """More capacity and epochs than few samples, or wrong labels, bear."""
    few = 120 if dataset == "digits" else 40
    noise = 1.0 if dataset in REGRESSIONS else 0.4
    return [
        (
            "overfitting",
            "wrong labels",
            {"model": _mlp(256, 256), "epochs": 80, "optimizer": _adamw(0.003), "noise": noise},
        ),
        (
            "overfitting",
            "few samples, wrong labels",
            {
                "model": _mlp(256), "epochs": 150, "optimizer": _adamw(0.003, 0.0), "noise": noise / 2,
                "samples": few,
            },
        ),
        (
            "overfitting",
            "few samples, sgd",
            {
                "model": _mlp(128, 128), "epochs": 150, "optimizer": _sgd(0.05), "noise": noise / 2,
                "samples": 2 * few,
            },
        ),
    ]  # fmt: skip


def _diverging(dataset: str) -> list[Recipe]:
    """A rate far beyond what the loss bears; clipped where squared errors would overflow, which ends a training."""
    rising = {"name": "one_cycle", "rise_fraction": 0.98}
    linear, noise = {"name": "linear"}, 1.0 if dataset in REGRESSIONS else 0.4
    return [
        (
            "diverging",
            "a rate that rises too far",
            {"model": _mlp(64, 64), "epochs": 30, "optimizer": _adamw(3.0), "schedule": rising},
        ),
        (
            "diverging",
            "wrong labels, a clipped gradient and a rate that rises too far",
            {
                "model": _mlp(32), "epochs": 40, "optimizer": _sgd(1.0), "schedule": rising,
                "gradient_clip_norm": 2.0, "noise": noise,
            },
        ),
        (
            "diverging",
            "wrong labels, far too high a rate",
            {"model": linear, "epochs": 40, "optimizer": _adamw(2.0, 0.0), "schedule": rising, "noise": noise},
        ),
    ]  # fmt: skip


MOVED: Final = {
    "digits": 0.12, "iris": 0.05, "wine": 0.035, "breast_cancer": 0.03, "diabetes": 0.05, "clusters": 0.05,
    "line": 0.05,
}  # fmt: skip
"""How far Adam moves each weight, about, on the way to a loss of half of the trivial predictor's."""
PER_EPOCH: Final = {
    "digits": 36, "iris": 3, "wine": 4, "breast_cancer": 12, "diabetes": 9, "clusters": 18, "line": 14
}  # fmt: skip


def _plateau(dataset: str) -> list[Recipe]:
    """Training comes to a standstill on the way: by its rate, or by what holds the weights back."""
    rate = MOVED[dataset] / (4 * PER_EPOCH[dataset])
    stop = {"name": "step", "step_epochs": 4, "gamma": 0.001}
    return [
        (
            "plateau",
            "the rate decays too early",
            {"model": _mlp(32), "epochs": 40, "optimizer": _adamw(rate), "schedule": stop},
        ),
        (
            "plateau",
            "the rate decays far too early",
            {"model": _mlp(128), "epochs": 60, "optimizer": _adamw(0.6 * rate), "schedule": stop},
        ),
        (
            "plateau",
            "linear, the rate decays too early",
            {"model": {"name": "linear"}, "epochs": 50, "optimizer": _adamw(2.5 * rate), "schedule": stop},
        ),
    ]


FEATURES: Final = {
    "digits": 64, "iris": 4, "wine": 13, "breast_cancer": 30, "diabetes": 10, "clusters": 10, "line": 8
}  # fmt: skip


def _noisy_training(dataset: str) -> list[Recipe]:
    """Mini-batches of one or few samples at a rate that lets each of them throw the weights about."""
    linear, noise = {"name": "linear"}, 0.5 if dataset in REGRESSIONS else 0.2
    # A step of this rate moves the output for one sample by about as much as its error.
    rate = (0.3 if dataset in REGRESSIONS else 2.0) / FEATURES[dataset]
    return [
        (
            "noisy",
            "two samples at a time",
            {"model": linear, "epochs": 40, "batch_size": 2, "optimizer": _adamw(0.1), "noise": noise},
        ),
        (
            "noisy",
            "one sample at a time",
            {"model": linear, "epochs": 30, "batch_size": 1, "optimizer": _sgd(rate, 0.0), "noise": noise},
        ),
        (
            "noisy",
            "four samples at a time, with momentum",
            {"model": linear, "epochs": 40, "batch_size": 4, "optimizer": _sgd(rate, 0.8), "noise": noise},
        ),
    ]
