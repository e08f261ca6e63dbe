"""How far a metric varies from one value to the next beside its trend, and what gain that variation cannot explain."""

import math
from collections import deque
from collections.abc import Iterable
from itertools import islice
from statistics import median
from typing import Final

WINDOW: Final = 64
"""The newest so many values are remembered: the variation may change as training goes on."""
LEAST: Final = 9
"""Fewer values than this do not tell the variation."""

_DIFFERENCE_LENGTH: Final = math.sqrt(1 + 9 + 9 + 1)
_MEDIAN_OF_NORMAL: Final = 0.6744897501960817
_ONE_SIDED_95: Final = 1.6448536269514722


class Variation:
    """The standard deviation of a metric's noise, estimated from its newest values. Bounded memory, no randomness.

    Let the values be a smooth trend plus independent noise of standard deviation s. Successive differences take the
    trend away (J. von Neumann et al., "The mean square successive difference", Ann. Math. Statist. 12, 1941); those
    of third order, d = x[t] - 3 x[t-1] + 3 x[t-2] - x[t-3], take away all of it that is quadratic within four values,
    and have the standard deviation s·sqrt(20) (P. Hall, J. W. Kay and D. M. Titterington, "Asymptotically optimal
    difference-based estimation of variance in nonparametric regression", Biometrika 77, 1990). So that a few jumps do
    not count, their spread is measured by the median of |d|, which for a normal distribution is 0.6745 standard
    deviations (F. R. Hampel, "The influence curve and its role in robust estimation", J. Am. Stat. Assoc. 69, 1974)::

        s = median |d| / (0.6745 · sqrt(20))

    From 64 values this is 2 % too large on average, with a standard error of 20 %; from 9 values 11 % and 55 %. Noise
    that is correlated from epoch to epoch is underestimated. Where most values are equal, as an accuracy over few
    samples may be, s is 0. Values that are not finite are left out, as if the epochs around them followed each other.
    """

    def __init__(self, recent: Iterable[tuple[int, float]] = ()) -> None:
        self._recent: deque[tuple[int, float]] = deque(recent, maxlen=WINDOW)
        self._deviation: float | None = None
        self._is_fresh = False

    def add(self, epoch: int, value: float) -> None:
        """Take in the value of an epoch; epochs ascend."""
        if math.isfinite(value):
            self._recent.append((epoch, value))
            self._is_fresh = False

    def starting(self, epoch: int) -> "Variation":
        """The same without what lies before ``epoch``."""
        return Variation(one for one in self._recent if one[0] >= epoch)

    @property
    def standard_deviation(self) -> float | None:
        """Of the noise, in the metric's unit; None while there are fewer than ``LEAST`` values."""
        if not self._is_fresh:  # kept until the next value: it takes microseconds
            self._deviation, self._is_fresh = self._measure(), True
        return self._deviation

    @property
    def least_gain(self) -> float | None:
        """The gain that noise alone exceeds in at most 5 % of cases: 1.645 · s; None where s is.

        The one-sided test of the hypothesis that the metric's level is no better than the reference: a value with
        normal noise around such a level is better than the reference by more than this in at most 5 % of cases. In
        fewer, in fact: the reference is the best of several values, so that the level is mostly worse.
        """
        deviation = self.standard_deviation
        return None if deviation is None else _ONE_SIDED_95 * deviation

    def _measure(self) -> float | None:
        if len(self._recent) < LEAST:
            return None
        values = [value for _, value in self._recent]
        later = zip(values, islice(values, 1, None), islice(values, 2, None), islice(values, 3, None))  # noqa: B905 - each is one shorter
        sizes = [abs(d - 3 * c + 3 * b - a) for a, b, c, d in later]
        found = median(sizes) / (_MEDIAN_OF_NORMAL * _DIFFERENCE_LENGTH)
        return found if math.isfinite(found) else None  # the largest floats: their differences overflow

    def state(self) -> list[list[float]]:
        """What ``of_state`` continues from, as JSON-ready values."""
        return [[epoch, value] for epoch, value in self._recent]

    @classmethod
    def of_state(cls, state: Iterable[list[float]]) -> "Variation":
        """Continue from what ``state`` gave."""
        return cls((int(epoch), value) for epoch, value in state)
