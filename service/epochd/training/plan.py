"""From samples, batch size and epochs to mini-batches and iterations. No torch: the API plans jobs, too."""

import math
from dataclasses import asdict, dataclass

MIN_SAMPLES_TO_SPLIT = 2


@dataclass(frozen=True, slots=True)
class Plan:
    """How many mini-batches and iterations a training takes.

    An iteration is one mini-batch processed and one weight update, so ``iterations_per_epoch`` equals
    ``mini_batches_per_epoch``. ``last_batch_size`` is the size of an epoch's last mini-batch.
    """

    train_samples: int
    validation_samples: int
    batch_size: int
    mini_batches_per_epoch: int
    last_batch_size: int
    iterations_per_epoch: int
    total_iterations: int

    def as_dict(self) -> dict[str, int]:
        """The same as JSON-ready values."""
        return asdict(self)


def split_sizes(samples: int, fraction: float) -> tuple[int, int]:
    """How many samples train and how many validate: ``(train, validation)``, together ``samples``.

    Validation takes ``fraction`` of them, rounded half up, but each side keeps at least one sample.
    Raises ValueError for fewer than 2 samples or a fraction outside 0 … 1.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"The validation fraction is {fraction}; it lies between 0 and 1, both excluded.")
    if samples < MIN_SAMPLES_TO_SPLIT:
        raise ValueError(f"{samples} sample(s) cannot be split into training and validation: 2 are needed.")
    validation = min(max(math.floor(samples * fraction + 0.5), 1), samples - 1)
    return samples - validation, validation


def make_plan(
    *, train_samples: int, validation_samples: int, batch_size: int, epochs: int, drop_last: bool
) -> Plan:
    """Plan ``epochs`` passes over ``train_samples`` in mini-batches of ``batch_size``.

    An epoch has ceil(N / B) mini-batches, the last of which may be smaller; with ``drop_last`` floor(N / B),
    all full. Raises ValueError when a count is not positive or ``drop_last`` leaves no mini-batch.
    """
    if min(train_samples, batch_size, epochs) < 1:
        raise ValueError("Training needs at least 1 training sample, a batch size of 1 and 1 epoch.")
    full, rest = divmod(train_samples, batch_size)
    if drop_last and full == 0:
        raise ValueError(
            f"drop_last leaves no mini-batch: the batch size {batch_size} exceeds the {train_samples} "
            f"training samples. Take a batch size of at most {train_samples}, or drop_last false."
        )
    mini_batches = full if drop_last or rest == 0 else full + 1
    return Plan(
        train_samples=train_samples,
        validation_samples=validation_samples,
        batch_size=batch_size,
        mini_batches_per_epoch=mini_batches,
        last_batch_size=batch_size if drop_last or rest == 0 else rest,
        iterations_per_epoch=mini_batches,
        total_iterations=mini_batches * epochs,
    )
