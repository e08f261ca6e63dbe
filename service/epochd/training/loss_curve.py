"""The losses of a training, epoch by epoch, in bounded memory. No torch."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

MAX_POINTS = 128


@dataclass(frozen=True, slots=True)
class EpochPoint:
    """The mean losses of one epoch; ``validation_loss`` is None in an epoch without validation.

    ``mini_batch_noise`` is the standard deviation of the losses of its mini-batches; None for a single one.
    """

    epoch: int
    train_loss: float
    validation_loss: float | None
    mini_batch_noise: float | None = None


class LossCurve(Sequence[EpochPoint]):
    """The epochs of a training in at most 128 points, so that a diagnosis costs the same however long it is.

    When full, neighbours are merged: their losses are averaged; the later epoch and its noise stay.
    """

    def __init__(self, points: Iterable[EpochPoint] = ()) -> None:
        self._bins: list[_Bin] = []
        self._epochs_per_bin = 1
        for point in points:
            self.append(point)

    def append(self, point: EpochPoint) -> None:
        """Add the next epoch."""
        added = _Bin(point, epochs=1, validated=0 if point.validation_loss is None else 1)
        if self._bins and self._bins[-1].epochs < self._epochs_per_bin:
            self._bins[-1] = self._bins[-1].merged(added)
            return
        if len(self._bins) == MAX_POINTS:
            self._halve()
        self._bins.append(added)

    def _halve(self) -> None:
        pairs = zip(self._bins[::2], self._bins[1::2], strict=True)
        self._bins = [first.merged(second) for first, second in pairs]
        self._epochs_per_bin *= 2

    def __len__(self) -> int:
        return len(self._bins)

    def __iter__(self) -> Iterator[EpochPoint]:
        return (one.point for one in self._bins)

    def __getitem__(self, index: Any) -> Any:
        found = self._bins[index]
        return [one.point for one in found] if isinstance(found, list) else found.point

    def state_dict(self) -> dict[str, Any]:
        """What ``load_state_dict`` continues from, as JSON-ready values."""
        return {"epochs_per_bin": self._epochs_per_bin, "bins": [one.row() for one in self._bins]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what ``state_dict`` gave."""
        self._epochs_per_bin = state["epochs_per_bin"]
        self._bins = [_Bin.from_row(row) for row in state["bins"]]


@dataclass(frozen=True, slots=True)
class _Bin:
    """Some epochs in a row as one point, and how many of them it averages."""

    point: EpochPoint
    epochs: int
    validated: int

    def merged(self, later: "_Bin") -> "_Bin":
        epochs, validated = self.epochs + later.epochs, self.validated + later.validated
        train = self.point.train_loss * self.epochs + later.point.train_loss * later.epochs
        validation = (self.point.validation_loss or 0.0) * self.validated
        validation += (later.point.validation_loss or 0.0) * later.validated
        mean = validation / validated if validated else None
        point = EpochPoint(later.point.epoch, train / epochs, mean, later.point.mini_batch_noise)
        return _Bin(point, epochs, validated)

    def row(self) -> list[float | None]:
        point = self.point
        losses = [point.epoch, point.train_loss, point.validation_loss]
        return [*losses, self.epochs, self.validated, point.mini_batch_noise]

    @classmethod
    def from_row(cls, row: Sequence[Any]) -> "_Bin":
        epoch, train_loss, validation_loss, epochs, validated, *noise = (
            row  # earlier versions knew of no noise
        )
        return cls(EpochPoint(epoch, train_loss, validation_loss, *noise), epochs, validated)
