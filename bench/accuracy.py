"""What the models learn of real data, against scikit-learn on the same split.

    python bench/accuracy.py [--seeds 5] [--only digits,wine] [--threads N]

Each bundled data set is split by the service's own rule (a fifth is validated on, stratified by class), once for each
seed, which is that of the models as well. The models here are trained as a job trains them, with the same
preparation, by AdamW at its defaults (``linear``: at a learning rate of 0.01) in batches of 32. A tenth of the
training split is held back to stop early by, so that the validation split is looked at only once, at the end. Peers
get the same samples, standardised on the training split, and train on all of it with their defaults.

The figures are means over the seeds of accuracy, or R² for diabetes, with the standard deviation over the seeds.
"""

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.neural_network import MLPClassifier, MLPRegressor

from epochd.contract.spec import JobSpec
from epochd.jobs.resolve import dataset_info, resolve
from epochd.training import device as devices
from epochd.training.data import Samples, TrainingData
from epochd.training.trainer import Trainer
from epochd.worker.prepare import prepare_data, training_config

DATASETS = ("digits", "iris", "wine", "breast_cancer", "diabetes")
TABLE_MODELS: dict[str, dict[str, Any]] = {
    "linear": {"name": "linear"},
    "mlp": {"name": "mlp"},
    "tabular_resnet": {"name": "tabular_resnet"},
    "ft_transformer": {"name": "ft_transformer", "width": 32, "heads": 4, "blocks": 2},
}
IMAGE_MODELS: dict[str, dict[str, Any]] = {
    "linear": {"name": "linear"},
    "mlp": {"name": "mlp"},
    "cnn": {"name": "cnn", "batch_norm": True},
    "resnet": {"name": "resnet", "width": 16},
}
MLP_PEER, TREE_PEER = "sklearn MLP", "sklearn HistGB"


@dataclass(frozen=True)
class Score:
    """Accuracy or R² on the validation split, and the seconds that training took."""

    value: float
    seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", default=",".join(DATASETS))
    parser.add_argument("--threads", type=int)
    arguments = parser.parse_args()
    devices.configure(arguments.threads)
    for name in arguments.only.split(","):
        report(name, arguments.seeds)


def report(dataset: str, seeds: int) -> None:
    """Print the table of a data set: one row a model."""
    models = IMAGE_MODELS if dataset == "digits" else TABLE_MODELS
    info = dataset_info(spec(dataset, {"name": "linear"}, 0))
    print(f"\n{dataset}: {info.samples} samples, {info.metrics[1]} over {seeds} seeds", flush=True)
    for name, model in models.items():
        row(f"epochd {name}", [ours(spec(dataset, model, seed)) for seed in range(seeds)])
    for name, peer in ((MLP_PEER, mlp), (TREE_PEER, trees)):
        row(name, [theirs(spec(dataset, {"name": "linear"}, seed), peer) for seed in range(seeds)])


def row(name: str, scores: list[Score]) -> None:
    values = [score.value for score in scores]
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    seconds = statistics.median(score.seconds for score in scores)
    print(f"  {name:24s}{statistics.mean(values):8.3f} ± {spread:.3f}{seconds:9.2f} s", flush=True)


def spec(dataset: str, model: dict[str, Any], seed: int) -> JobSpec:
    """What a caller would send: the defaults, more epochs than are needed, and early stopping."""
    image = dataset == "digits"
    sent = {
        "dataset": dataset,
        "model": model,
        "epochs": 60 if image else 200,
        "batch_size": 32,
        # A single layer has no hidden units that grow with each other: at the default rate it takes many more epochs.
        "optimizer": {"name": "adamw", "learning_rate": 0.01 if model["name"] == "linear" else 0.001},
        "early_stopping": {"patience": 8 if image else 25},
        "seed": seed,
    }
    return resolve(JobSpec.model_validate(sent))


def ours(resolved: JobSpec) -> Score:
    """Train as a job does, stopping by a tenth of the training split, and look at the validation split once."""
    prepared = prepare_data(resolved).training
    assert isinstance(prepared.train, Samples)
    assert isinstance(prepared.validation, Samples)
    info = dataset_info(resolved)
    inner = inner_split(prepared.train, resolved.seed)
    config = training_config(resolved, info, "cpu")
    started = time.perf_counter()
    trainer = Trainer(config, inner)
    for _ in trainer.run():
        pass
    trainer.final_selection()
    seconds = time.perf_counter() - started
    outputs = predicted(trainer, prepared.validation)
    return Score(score(outputs, prepared.validation), seconds)


def inner_split(samples: Samples, seed: int) -> TrainingData:
    """Nine tenths to train on, a tenth to stop by."""
    order = np.random.default_rng(seed).permutation(len(samples))
    held_back, rest = order[: len(order) // 10], order[len(order) // 10 :]
    return TrainingData(
        Samples(samples.x[rest], samples.y[rest]), Samples(samples.x[held_back], samples.y[held_back])
    )


def predicted(trainer: Trainer, samples: Samples) -> Any:
    """The outputs of the selected weights."""
    import torch  # noqa: PLC0415 - after the threads are configured

    with torch.no_grad():
        return trainer.model.eval()(torch.from_numpy(samples.x)).numpy()


def theirs(resolved: JobSpec, peer: Callable[[bool, int], Any]) -> Score:
    """Fit a peer on the whole training split."""
    prepared = prepare_data(resolved).training
    assert isinstance(prepared.train, Samples)
    assert isinstance(prepared.validation, Samples)
    is_regression = prepared.train.y.ndim > 1
    estimator = peer(is_regression, resolved.seed)
    x, y = flat(prepared.train)
    started = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of MLPs that have not converged after their 200 iterations
        estimator.fit(x, y)
    seconds = time.perf_counter() - started
    return Score(float(estimator.score(*flat(prepared.validation))), seconds)


def flat(samples: Samples) -> tuple[Any, Any]:
    y = samples.y.ravel() if samples.y.ndim > 1 else samples.y
    return samples.x.reshape(len(samples), -1), y


def score(outputs: Any, samples: Samples) -> float:
    """Accuracy, or R² of the one target."""
    if samples.y.ndim == 1:
        return float((outputs.argmax(axis=1) == samples.y).mean())
    residual = np.square(samples.y - outputs).sum()
    return float(1 - residual / np.square(samples.y - samples.y.mean(axis=0)).sum())


def mlp(is_regression: bool, seed: int) -> Any:  # noqa: FBT001 - what a table of peers is called with
    return (MLPRegressor if is_regression else MLPClassifier)(random_state=seed)


def trees(is_regression: bool, seed: int) -> Any:  # noqa: FBT001
    kind = HistGradientBoostingRegressor if is_regression else HistGradientBoostingClassifier
    return kind(random_state=seed)


if __name__ == "__main__":
    main()
