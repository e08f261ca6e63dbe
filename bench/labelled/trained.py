"""Trains a case, and finds its fault on samples that neither training nor the diagnosis has seen."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch

from epochd.contract.spec import JobSpec
from epochd.errors import NumericError
from epochd.jobs.resolve import dataset_info, resolve
from epochd.training.data import Samples, TrainingData
from epochd.training.events import EpochCompleted
from epochd.training.loss_curve import EpochPoint, LossCurve
from epochd.training.losses import loss_function, trivial_training_loss
from epochd.training.trainer import Trainer
from epochd.worker.prepare import prepare_data, training_config
from labelled.cases import DATASETS, REGRESSIONS, Case

VALIDATED: Final = 0.2
"""The part of the training split by which the diagnosis is made; what the service holds back is only measured on."""


@dataclass(frozen=True)
class Trained:
    """A finished training: the curve that is diagnosed, and what no diagnosis sees.

    ``held_out`` and ``fitted`` are the losses (epochs,) of the weights after each epoch, on held-out samples and on
    those that were trained on, both without dropout, as parts of the trivial predictor's loss.
    """

    case: Case
    curve: LossCurve
    trivial: float
    epochs: int
    train_samples: int
    held_out: np.ndarray[Any, np.dtype[np.float64]]
    fitted: np.ndarray[Any, np.dtype[np.float64]]


def train(case: Case) -> Trained | None:
    """Train it; None where the loss does not stay finite, which ends a job and leaves nothing to diagnose."""
    spec = resolved(case)
    data, held_out = split(spec, case)
    config = training_config(spec, dataset_info(spec), "cpu")
    trainer = Trainer(config, data)
    loss, curve, measured = loss_function(config.loss), LossCurve(), []
    assert isinstance(data.train, Samples)
    try:
        for event in trainer.run():
            if isinstance(event, EpochCompleted):
                numbers = event.metrics["train_loss"], event.metrics["validation_loss"]
                noise = event.diagnosis.measurements.get("mini_batch_noise")
                curve.append(EpochPoint(event.epoch, numbers[0] or 0.0, numbers[1], noise))
                measured.append([_loss(trainer, loss, held_out), _loss(trainer, loss, data.train)])
    except NumericError:
        return None
    trivial = trivial_training_loss(config, data.train.y)
    losses = np.array(measured).T / [[_trivial_on(held_out, data.train, loss)], [trivial]]
    return Trained(case, curve, trivial, spec.epochs, len(data.train), *losses)


def resolved(case: Case) -> JobSpec:
    """The spec of a case with all defaults."""
    sent = {"batch_size": 32, "seed": case.seed, **case.spec, "dataset": DATASETS[case.dataset]}
    return resolve(JobSpec.model_validate(sent))


def split(spec: JobSpec, case: Case) -> tuple[TrainingData, Samples]:
    """Samples to train on, to validate on, and those that are held out; wrong labels are in all of them."""
    prepared = prepare_data(spec).training
    assert isinstance(prepared.train, Samples)
    assert isinstance(prepared.validation, Samples)
    random = np.random.default_rng(case.seed)
    y, held_out_y = (_noisy(one.y, case, random) for one in (prepared.train, prepared.validation))
    order = random.permutation(len(y))
    cut = int(len(y) * VALIDATED)
    inner, rest = order[:cut], order[cut:][: case.samples]
    train, validation = (Samples(prepared.train.x[part], y[part]) for part in (rest, inner))
    return TrainingData(train, validation), Samples(prepared.validation.x, held_out_y)


def _noisy(y: np.ndarray[Any, Any], case: Case, random: np.random.Generator) -> np.ndarray[Any, Any]:
    if case.dataset in REGRESSIONS:
        added = case.noise * y.std() * random.standard_normal(y.shape)
        return np.asarray((y + added).astype(y.dtype))
    drawn = random.integers(0, int(y.max()) + 1, y.shape)
    return np.where(random.random(y.shape) < case.noise, drawn, y)


def _loss(trainer: Trainer, loss: Any, samples: Samples) -> float:
    model = trainer.model
    was_training = model.training
    with torch.no_grad():
        value = float(loss(model.eval()(torch.from_numpy(samples.x)), torch.from_numpy(samples.y)))
    model.train(was_training)
    return value


def _trivial_on(held_out: Samples, train: Samples, loss: Any) -> float:
    """What the class frequencies, or the means, of the training samples lose on others."""
    if train.y.ndim > 1:
        same = torch.from_numpy(train.y.mean(axis=0, dtype=np.float32)).expand(len(held_out), -1)
        return float(loss(same, torch.from_numpy(held_out.y)))
    counts = np.bincount(train.y, minlength=int(held_out.y.max()) + 1)
    shares = torch.from_numpy(np.maximum(counts, 0.5).astype(np.float32))
    return float(loss(shares.log().expand(len(held_out), -1), torch.from_numpy(held_out.y)))


def fault(one: Trained, reachable: float) -> str | None:
    """Find what a training did, by its losses on held-out samples; None where that is not clear.

    ``reachable`` is the least held-out loss of any training on the same data. The order and the limits are those of
    what the words mean, in parts of the trivial predictor's loss; they are not fitted to anything.
    """
    held_out, fitted = one.held_out, one.fitted
    few = max(1, len(held_out) // 10)
    last, best = float(held_out[-few:].mean()), float(held_out.min())
    half = held_out[len(held_out) // 2 :]
    jumps = float(np.std(np.diff(half))) / np.sqrt(2)
    fell = float(held_out[-len(held_out) // 3 :][:few].mean()) - last
    if fitted[-3:].mean() > max(1.0, fitted.min() + 0.25):
        return "diverging"
    if jumps > max(0.03, 0.05 * half.mean()):
        return "noisy"
    if last - best > max(0.05, 0.1 * best) or last - float(fitted[-1]) > 0.35:
        return "overfitting"
    if last - reachable > 0.15:
        return _unfinished(last, fell)
    is_level = abs(fell) < 0.03 and last - float(fitted[-1]) < 0.25
    return "good_fit" if last - reachable < 0.1 and is_level else None


def _unfinished(last: float, fell: float) -> str | None:
    if fell > 0.03 or last > 0.9:
        return "underfitting"
    return "plateau" if abs(fell) < 0.01 else None


def labelled(trained: Sequence[Trained]) -> list[tuple[Trained, str]]:
    """Those whose fault is the one that they were made for."""
    reachable: dict[tuple[str, float], float] = {}
    for one in trained:
        data = one.case.dataset, one.case.noise
        reachable[data] = min(reachable.get(data, np.inf), float(one.held_out.min()))
    found = [(one, fault(one, reachable[one.case.dataset, one.case.noise])) for one in trained]
    return [(one, label) for one, label in found if label is not None and label == one.case.label]
