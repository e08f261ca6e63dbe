"""What a job's epochs come to, seen one after the other; of any number of them only a few numbers are kept."""

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

_ROUGHNESS: Final = (1.0, -2.0, 1.0)
"""The second difference of three successive values; it is zero on any straight line."""


@dataclass(slots=True)
class Progression:
    """Follows ``metric`` over a job's epochs, of which there are ``expected``.

    ``reached`` is epoch, iteration and seconds when the metric was first as good as ``target``. A value that is missing
    or not finite is passed over.
    """

    metric: str
    mode: Literal["min", "max"]
    target: float | None
    expected: int
    epochs: int = 0
    seconds: float = 0.0
    best_value: float | None = None
    best_epoch: int | None = None
    final_value: float | None = None
    gap: float | None = None
    reached: tuple[int, int, float] | None = None
    _newest: deque[float] = field(default_factory=lambda: deque(maxlen=3))
    _squares: float = 0.0
    _differences: int = 0

    def take(
        self, epoch: int, iteration: int, seconds: float, values: Mapping[str, float | None]
    ) -> float | None:
        """Note an epoch that took so many seconds; give its value."""
        self.epochs, self.seconds = epoch, self.seconds + seconds
        value = values.get(self.metric)
        if value is None or not math.isfinite(value):
            return None
        self.final_value = value
        if self.best_value is None or self._is_better(value, self.best_value):
            self.best_value, self.best_epoch, self.gap = value, epoch, _gap(values)
        if self.target is not None and self.reached is None and not self._is_better(self.target, value):
            self.reached = epoch, iteration, self.seconds
        self._take_roughness(epoch, value)
        return value

    @property
    def noise(self) -> float | None:
        """The standard deviation of the metric about its trend, in the later half of the epochs.

        Estimated from the second differences d of successive values, which a locally straight trend leaves alone: of
        independent deviations with variance s² they have the variance (1 + 4 + 1) s², so s² = mean(d²) / 6 (Gasser,
        Sroka and Jennen-Steinmetz 1986, Biometrika 73, 625-633). None before there are three values.
        """
        if not self._differences:
            return None
        weight = sum(one * one for one in _ROUGHNESS)
        return math.sqrt(self._squares / self._differences / weight)

    def _is_better(self, one: float, other: float) -> bool:
        return one < other if self.mode == "min" else one > other

    def _take_roughness(self, epoch: int, value: float) -> None:
        if 2 * epoch <= self.expected:  # the steep beginning is curved
            return
        self._newest.append(value)
        if len(self._newest) == len(_ROUGHNESS):
            difference = sum(a * b for a, b in zip(_ROUGHNESS, self._newest, strict=True))
            self._squares += difference * difference
            self._differences += 1


def _gap(values: Mapping[str, float | None]) -> float | None:
    validation, train = values.get("validation_loss"), values.get("train_loss")
    if validation is None or train is None:
        return None
    gap = validation - train
    return gap if math.isfinite(gap) else None
