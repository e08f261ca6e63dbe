"""What to change in a spec, given what was diagnosed: patches that a caller can send back."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from epochd.contract.spec import MAX_EPOCHS
from epochd.jobs.larger_models import larger

Patch = dict[str, Any]
Suggested = tuple[str, Patch]

USUAL_RATE: Final = {"sgd": 0.05, "adam": 0.001, "adamw": 0.001}
"""The rates that jobs get when they send none."""
FAR: Final = 3.0
"""A rate so many times the usual one, or a part of it, is high, or low."""
MUCH_DROPOUT, SOME_DROPOUT, LITTLE_DROPOUT = 0.5, 0.3, 0.1
MUCH_DECAY, USUAL_DECAY = 0.1, 0.01
MOST_EPOCHS_MORE: Final = 16
"""Times as many epochs at most: beyond, the rate is what is wrong."""
TIME_CONSTANTS: Final = 3
"""Of an exponential decay, which then has come within 5 % of its end; its tangent reaches the end after one."""


@dataclass(frozen=True, slots=True)
class Case:
    """What was seen, the spec in force, and how many samples are trained on."""

    seen: Mapping[str, float | None]
    spec: Mapping[str, Any]
    train_samples: int

    def number(self, name: str) -> float | None:
        """A measurement, or None."""
        return self.seen.get(name)

    @property
    def learning_rate(self) -> float:
        """That of the optimizer."""
        return float(self.spec["optimizer"]["learning_rate"])


def remedies(
    diagnosis: Mapping[str, Any], spec: Mapping[str, Any], *, train_samples: int
) -> list[dict[str, Any]]:
    """Suggest changes against what was diagnosed, the most promising first: ``{"message", "patch"}`` each.

    ``diagnosis`` is as the engine gives it (earlier versions stored less), ``spec`` is resolved. Each key of a patch
    replaces the spec's field of that name, whole; with it the spec is as valid as before, and is another one.
    """
    case = Case(diagnosis.get("measurements") or {}, spec, train_samples)
    against = AGAINST.get(diagnosis["verdict"])
    if against is None:
        return []
    return [{"message": message, "patch": patch} for message, patch in against(case) if _changes(patch, spec)]


def _changes(patch: Patch, spec: Mapping[str, Any]) -> bool:
    return any(spec.get(name) != value for name, value in patch.items())


def _against_divergence(case: Case) -> Iterator[Suggested]:
    yield from _rate(case, _bearable(case), "Lower the learning rate to {rate:g}.")
    if case.spec["gradient_clip_norm"] is None:
        message = "Clip the gradient: single mini-batches no longer throw the weights off."
        yield message, {"gradient_clip_norm": 1.0}


def _bearable(case: Case) -> float:
    """A tenth; of a rate that no model bears, what the boldest take: ten times the usual."""
    usual = USUAL_RATE.get(case.spec["optimizer"]["name"], math.inf)
    return min(case.learning_rate / 10, 10 * usual)


def _against_underfitting(case: Case) -> Iterator[Suggested]:
    if case.number("still_falling") != 0:
        yield from _more_time(case)
    yield from _usual_rate(case)
    yield from _less_regularisation(case)
    yield from _more_capacity(case)


def _more_time(case: Case) -> Iterator[Suggested]:
    epochs = int(case.spec["epochs"])
    if (case.number("last_epoch") or epochs) < epochs:
        yield from _no_early_end(case)
        return
    more = min(epochs * _times(case, epochs), MAX_EPOCHS)
    yield f"Train longer: {more} epochs.", {"epochs": more}


def _times(case: Case, epochs: int) -> int:
    """How many times as many epochs: until the loss, falling ever more slowly, has come near its end."""
    loss, slope = case.number("validation_loss"), case.number("validation_slope")
    if loss is None or slope is None or slope >= 0:
        return 2
    times = 1 + TIME_CONSTANTS * loss / -slope / epochs
    if times >= MOST_EPOCHS_MORE:
        return MOST_EPOCHS_MORE
    return max(2, 1 << math.ceil(math.log2(times)))


def _no_early_end(case: Case) -> Iterator[Suggested]:
    policy, limit = case.spec["early_stopping"], case.spec["max_runtime_seconds"]
    if policy is not None and policy["patience"] < MAX_EPOCHS:
        patience = min(max(5, 3 * policy["patience"]), MAX_EPOCHS)
        message = f"Wait longer before stopping: {patience} epochs without improvement."
        yield message, {"early_stopping": {**policy, "patience": patience}}
    if limit is not None and 2 * limit <= 10**9:
        yield "Allow twice the time.", {"max_runtime_seconds": 2 * limit}


def _usual_rate(case: Case) -> Iterator[Suggested]:
    usual, rate = USUAL_RATE.get(case.spec["optimizer"]["name"]), case.learning_rate
    if usual is None:
        return
    if rate * FAR < usual:
        yield from _rate(case, usual, "Raise the learning rate to the usual {rate:g}.")
    elif rate > usual * FAR:
        message = (
            "Lower the learning rate to the usual {rate:g}: too high a one hinders learning from the start."
        )
        yield from _rate(case, usual, message)


def _rate(case: Case, rate: float, message: str) -> Iterator[Suggested]:
    rate = float(f"{rate:.3g}")
    if rate <= 0:
        return
    patch: Patch = {"optimizer": {**case.spec["optimizer"], "learning_rate": rate}}
    schedule = case.spec["schedule"]
    if schedule.get("min_learning_rate", 0.0) > rate:
        patch["schedule"] = {**schedule, "min_learning_rate": rate / 10}
    yield message.format(rate=rate), patch


def _less_regularisation(case: Case) -> Iterator[Suggested]:
    model, optimizer = case.spec["model"], case.spec["optimizer"]
    if (model.get("dropout") or 0) >= MUCH_DROPOUT:
        message = f"Leave out fewer units: a dropout of {LITTLE_DROPOUT} instead of {model['dropout']:g}."
        yield message, {"model": {**model, "dropout": LITTLE_DROPOUT}}
    if optimizer["weight_decay"] >= MUCH_DECAY:
        message = f"Let the weights decay less: {USUAL_DECAY} instead of {optimizer['weight_decay']:g}."
        yield message, {"optimizer": {**optimizer, "weight_decay": USUAL_DECAY}}


def _more_capacity(case: Case) -> Iterator[Suggested]:
    # Weights of another job have that job's shapes.
    model = None if case.spec.get("start_from") else larger(case.spec["model"])
    if model is not None:
        message = "Give the model more capacity. Where that does not help, the features say little about the target."
        yield message, {"model": model}


def _against_overfitting(case: Case) -> Iterator[Suggested]:
    best = int(case.number("best_epoch") or 0)
    yield from _stop_at_best(case, best)
    if _may_take(case, best):
        yield f"Or train no longer than to its best epoch, {best}.", {"epochs": best}
    yield from _more_regularisation(case)


def _stop_at_best(case: Case, best: int) -> Iterator[Suggested]:
    """A policy that watches the validation; the caller's own where there is one."""
    policy = case.spec["early_stopping"]
    if case.spec["validation"] is None:
        return
    if policy is None or not str(policy["monitor"]).startswith("validation_"):
        patience = min(max(5, best // 5), 50)
        kept = {} if policy is None else {"start_epoch": policy["start_epoch"]}
        watching = {"monitor": "validation_loss", "mode": "min", "patience": patience, **kept}
        yield (
            "Stop when validation no longer improves, and keep the best epoch.",
            {"early_stopping": watching},
        )
    elif not policy["restore_best"]:
        yield "Keep the weights of the best epoch.", {"early_stopping": {**policy, "restore_best": True}}


def _may_take(case: Case, epochs: int) -> bool:
    """Whether so few epochs still hold what else the spec says of them."""
    policy, schedule = case.spec["early_stopping"], case.spec["schedule"]
    begins = policy is None or policy["start_epoch"] <= epochs
    return 1 <= epochs < case.spec["epochs"] and begins and not schedule.get("warmup_iterations")


def _more_regularisation(case: Case) -> Iterator[Suggested]:
    model, optimizer = case.spec["model"], case.spec["optimizer"]
    if "dropout" in model and model["dropout"] < SOME_DROPOUT:
        message = f"Leave out units at random while training: a dropout of {SOME_DROPOUT}."
        yield message, {"model": {**model, "dropout": SOME_DROPOUT}}
    if optimizer["name"] == "adamw" and optimizer["weight_decay"] < MUCH_DECAY:
        message = f"Let the weights decay: a weight decay of {MUCH_DECAY}."
        yield message, {"optimizer": {**optimizer, "weight_decay": MUCH_DECAY}}


def _against_plateau(case: Case) -> Iterator[Suggested]:
    schedule = case.spec["schedule"]
    if schedule["name"] != "constant":
        constant = {"name": "constant", "warmup_iterations": schedule["warmup_iterations"]}
        yield (
            "Keep the learning rate up: it may have decayed before the model was done.",
            {"schedule": constant},
        )
    yield from _usual_rate(case)
    yield from _less_regularisation(case)
    yield from _more_capacity(case)
    yield from _stop_at_best(case, int(case.number("best_epoch") or 0))


def _against_noise(case: Case) -> Iterator[Suggested]:
    size = _larger_batch(case)
    if size is not None:
        yield f"Average over more samples at a time: mini-batches of {size}.", {"batch_size": size}
    yield from _rate(case, _bearable(case), "Lower the learning rate to {rate:g}.")


def _larger_batch(case: Case) -> int | None:
    """Eight times as many samples, at most all; None where the size is measured, or would not do.

    A warm-up has to end, and a last mini-batch of one sample is too small for batch normalisation.
    """
    size, samples = case.spec["batch_size"], case.train_samples
    if not isinstance(size, int):
        return None
    found = min(8 * size, 1 << int(math.log2(max(samples, 1))))
    is_long_enough = samples // found * int(case.spec["epochs"]) > case.spec["schedule"]["warmup_iterations"]
    return found if found > size and is_long_enough and samples % found != 1 else None


def _against_ignorance(case: Case) -> Iterator[Suggested]:
    if case.spec["validation"] is None:
        yield "Hold back a part of the samples for validation.", {"validation": {"fraction": 0.2}}


AGAINST: Final[dict[str, Callable[[Case], Iterator[Suggested]]]] = {
    "diverging": _against_divergence,
    "underfitting": _against_underfitting,
    "overfitting": _against_overfitting,
    "plateau": _against_plateau,
    "noisy": _against_noise,
    "undetermined": _against_ignorance,
}
"""Nothing is to be done about a good fit."""
