"""What a diagnosis says. No torch."""

from dataclasses import dataclass, field
from typing import Any, Literal

Verdict = Literal["underfitting", "good_fit", "overfitting", "diverging", "plateau", "noisy", "undetermined"]


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """A verdict, and what it rests on.

    ``since_epoch`` is the epoch since which it holds, ``confidence`` the probability that it is right; both are None
    while the verdict is ``undetermined``. ``evidence`` is in words, ``measurements`` in numbers: see
    ``Reading.measurements``. A number that cannot be told is None.
    """

    verdict: Verdict
    since_epoch: int | None
    evidence: str
    confidence: float | None = None
    measurements: dict[str, float | None] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The same as JSON-ready values."""
        return {
            "verdict": self.verdict,
            "since_epoch": self.since_epoch,
            "confidence": self.confidence,
            "evidence": self.evidence,
            "measurements": dict(self.measurements),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Diagnosis":
        """Make it again from what ``as_dict`` gave; earlier versions measured nothing, and made suggestions."""
        return cls(
            values["verdict"],
            values["since_epoch"],
            values["evidence"],
            values.get("confidence"),
            dict(values.get("measurements", {})),
        )
