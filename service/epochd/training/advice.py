"""What works but could be better about a plan, in words for somebody who seldom trains models. No torch."""

from collections.abc import Iterator
from dataclasses import dataclass

from epochd.training.plan import Plan

FEW_ITERATIONS_PER_EPOCH = 20
FEW_ITERATIONS = 200
MANY_ITERATIONS = 100_000
MANY_EPOCHS = 300
SMALL_LAST_BATCH = 8


@dataclass(frozen=True, slots=True)
class Advice:
    """One piece of advice: a stable code, the dotted path of the parameter it is about, and why."""

    code: str
    param: str
    message: str


def advise(
    *,
    plan: Plan,
    epochs: int,
    early_stopping: bool,
    validation: bool,
    batch_norm: bool,
) -> list[Advice]:
    """Everything worth saying about a plan that was found valid; empty when nothing is."""
    return [
        *_about_batch_size(plan),
        *_about_last_batch(plan, batch_norm=batch_norm),
        *_about_epochs(plan, epochs, early_stopping=early_stopping, validation=validation),
    ]


def _about_batch_size(plan: Plan) -> Iterator[Advice]:
    batch_size = plan.batch_size
    if batch_size.bit_count() != 1:
        below, above = _powers_around(batch_size)
        yield Advice(
            "batch_size_not_power_of_two",
            "batch_size",
            f"The batch size {batch_size} is no power of two. Processors work through mini-batches of "
            f"{below} or {above} samples more evenly, and powers of two make trainings easier to compare; "
            "the result hardly differs.",
        )
    if batch_size > plan.train_samples:
        yield Advice(
            "batch_size_exceeds_samples",
            "batch_size",
            f"The batch size {batch_size} exceeds the {plan.train_samples} training samples, so that one "
            "mini-batch holds them all and each epoch is a single iteration, one weight update. A smaller "
            "batch size learns more in an epoch.",
        )
    elif plan.iterations_per_epoch < FEW_ITERATIONS_PER_EPOCH:
        yield Advice("few_iterations_per_epoch", "batch_size", _few_iterations(plan))


def _few_iterations(plan: Plan) -> str:
    said = (
        f"{plan.train_samples} training samples in mini-batches of {plan.batch_size} are only "
        f"{_count(plan.iterations_per_epoch, 'iteration')} an epoch, each one weight update."
    )
    smaller = _power_at_most(plan.train_samples // FEW_ITERATIONS_PER_EPOCH)
    if smaller < min(4, plan.batch_size):
        return f"{said} With so few samples that is how it is: expect to need more epochs."
    more = -(-plan.train_samples // smaller)
    return f"{said} A batch size of {smaller} gives {more}, so that fewer epochs are needed."


def _about_last_batch(plan: Plan, *, batch_norm: bool) -> Iterator[Advice]:
    if not batch_norm or plan.last_batch_size == plan.batch_size:
        return
    if plan.iterations_per_epoch > 1 and plan.last_batch_size < SMALL_LAST_BATCH:
        yield Advice(
            "small_last_batch",
            "drop_last",
            f"The last mini-batch of each epoch has only {_count(plan.last_batch_size, 'sample')}, too few "
            "for batch normalisation to estimate a mean and a deviation from. drop_last leaves it out.",
        )


def _about_epochs(plan: Plan, epochs: int, *, early_stopping: bool, validation: bool) -> Iterator[Advice]:
    total = plan.total_iterations
    made = f"{_count(epochs, 'epoch')} of {_count(plan.iterations_per_epoch, 'iteration')}"
    if total < FEW_ITERATIONS:
        enough = -(-FEW_ITERATIONS // plan.iterations_per_epoch)
        yield Advice(
            "epochs_look_few",
            "epochs",
            f"{made} are {_count(total, 'weight update')} in all; a model trained from scratch usually "
            f"needs some hundreds before it fits. Try at least {enough} epochs, with early stopping to end "
            "them in time.",
        )
    elif not early_stopping and epochs > 1 and (epochs > MANY_EPOCHS or total > MANY_ITERATIONS):
        needs = "early_stopping" if validation else "early_stopping (and a validation split for it to watch)"
        yield Advice(
            "epochs_look_many",
            "epochs",
            f"{made} are {_count(total, 'weight update')} in all, and nothing ends them before the last. A "
            f"model often stops improving, or starts overfitting, long before: {needs} ends training then "
            "and keeps the best epoch.",
        )


def _power_at_most(number: int) -> int:
    return 1 << (max(number, 1).bit_length() - 1)


def _powers_around(number: int) -> tuple[int, int]:
    below = _power_at_most(number)
    return below, below * 2


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
