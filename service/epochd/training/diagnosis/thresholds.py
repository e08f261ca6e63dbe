"""The numbers that verdicts depend on, as ``bench/diagnosis.py`` fits them to trainings of known fault. No torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

MIN_EPOCHS: Final = 5
MIN_EPOCHS_TO_LEVEL: Final = 10
"""Before that, only the end of training shows that a curve stays where it is."""
HORIZON: Final = 10
"""A fall matters when it would matter after so many more epochs like the last ones."""
CLEAR_MARGIN: Final = 0.1
"""From here on a condition holds clearly; see ``comparison``."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """How large something must be to count.

    All are parts of the trivial predictor's loss, but those named ``_of_loss`` (of the loss itself) and
    ``deviations``.
    """

    rise: float = 0.04
    rise_of_loss: float = 0.25
    fall: float = 0.03
    fall_of_loss: float = 0.05
    train_fall_of_loss: float = 0.2
    """How far training must have gone on falling for a rise of validation to be overfitting."""
    gap: float = 0.3
    trivial: float = 0.92
    """From here on a loss is no better than the trivial predictor's."""
    plateau: float = 0.35
    """From here on a level validation loss is no good fit."""
    diverged: float = 0.2
    noisy: float = 0.025
    noisy_of_loss: float = 0.05
    deviations: float = 2.0
    """Standard deviations of a curve's noise by which a change must stand out."""
    reliability: Mapping[str, float] = field(default_factory=dict)
    """How often each verdict was right, (right + 1) / (all + 2) by Laplace's rule of succession."""

    def confidence(self, verdict: str, margin: float) -> float:
        """The probability that a verdict is right.

        Its reliability; where the margin is near 0 the next verdict is as likely, and half of that is left.
        """
        return self.reliability.get(verdict, 0.5) * (1 + min(1.0, margin / CLEAR_MARGIN)) / 2


FITTED: Final = Thresholds(
    reliability={
        "underfitting": 0.94, "good_fit": 0.86, "overfitting": 0.92, "diverging": 0.9, "plateau": 0.62, "noisy": 0.82
    }
)  # fmt: skip
