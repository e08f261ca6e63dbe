"""Trains again what was diagnosed, as the first suggestion says, and looks at what came of it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any, Final

import numpy as np

from epochd.jobs.remedies import remedies
from epochd.training.diagnosis import FITTED, Diagnosis
from labelled.curves import of
from labelled.trained import Trained, resolved, train

FAULTS: Final = ("underfitting", "overfitting", "diverging", "plateau", "noisy")
ROUNDS: Final = 4
"""How often the first suggestion is followed, while there is a fault."""
SAME: Final = 0.01
"""Held-out losses no farther apart, as parts of the trivial predictor's, are the same."""


@dataclass(frozen=True)
class Mended:
    """A training whose fault was diagnosed rightly, and what came of following the first suggestion again and again.

    Losses are those on held-out samples, as parts of the trivial predictor's: ``at_end`` of the faulty training,
    ``kept`` of the epochs that are kept, whose validation is best: of the faulty training, then of each that followed.
    """

    fault: str
    name: str
    messages: tuple[str, ...]
    verdicts: tuple[str, ...]
    at_end: float
    kept: tuple[float, ...]

    def is_mended(self, rounds: int) -> bool:
        """Whether what was diagnosed at first was gone after so many rounds."""
        return any(verdict not in {self.fault, "failed"} for verdict in self.verdicts[:rounds])

    @property
    def is_no_worse(self) -> bool:
        """Whether the held-out loss of the best epoch is at least as good at last."""
        return self.kept[-1] <= self.kept[0] + SAME


def mended(counted: Sequence[tuple[Trained, str]]) -> Iterator[Mended]:
    """Follow the suggestions for each training that was diagnosed rightly and has a fault."""
    for one, label in counted:
        if label in FAULTS and diagnosed(one).verdict == label:
            yield _follow(one, label)


def _follow(one: Trained, fault: str) -> Mended:
    at_end, kept = float(one.held_out[-1]), [_kept(one)]
    messages: list[str] = []
    verdicts: list[str] = []
    again: Trained | None = one
    for _ in range(ROUNDS):
        assert again is not None
        suggested = _first(again)
        if suggested is None or (verdicts and verdicts[-1] != fault):
            break
        messages.append(suggested["message"])
        again = train(replace(again.case, spec={**again.case.spec, **suggested["patch"]}))
        verdicts.append("failed" if again is None else diagnosed(again).verdict)
        kept.append(np.inf if again is None else _kept(again))
        if again is None:
            break
    return Mended(fault, one.case.name, tuple(messages), tuple(verdicts), at_end, tuple(kept))


def diagnosed(one: Trained) -> Diagnosis:
    """Diagnose it at its end."""
    return of(one, "").diagnosed(FITTED)


def _first(one: Trained) -> dict[str, Any] | None:
    found = diagnosed(one).as_dict()
    spec = resolved(one.case).model_dump(mode="json")
    suggested = remedies(found, spec, train_samples=one.train_samples)
    return suggested[0] if suggested else None


def _kept(one: Trained) -> float:
    validation = np.array([point.validation_loss for point in one.curve], dtype=np.float64)
    return float(one.held_out[int(validation.argmin())])


def show(found: Sequence[Mended]) -> None:
    """Print what came of it, by fault, and those that were not mended."""
    print("\nThe first suggestion followed, where the diagnosis was right:\n")
    print(
        f"| fault | trainings | gone | gone after at most {ROUNDS} | no worse | held-out loss at the end | kept "
        "| kept, mended |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for fault in FAULTS:
        of_it = [one for one in found if one.fault == fault]
        gone = [sum(one.is_mended(rounds) for one in of_it) for rounds in (1, ROUNDS)]
        losses = [
            median(values)
            for values in zip(*((one.at_end, one.kept[0], one.kept[-1]) for one in of_it), strict=True)
        ]
        shown = " | ".join(f"{loss:.3f}" for loss in losses)
        no_worse = sum(one.is_no_worse for one in of_it)
        print(f"| `{fault}` | {len(of_it)} | {gone[0]} | {gone[1]} | {no_worse} | {shown} |")
    print(
        "\nLosses are medians, as parts of the trivial predictor's; kept is the epoch whose validation is best.\n"
    )
    for one in found:
        if not one.is_mended(ROUNDS) or not one.is_no_worse:
            kept = " -> ".join(f"{loss:.3f}" for loss in one.kept)
            print(
                f"  {one.name}: {one.fault}, then {', '.join(one.verdicts)}; {kept}; {' '.join(one.messages)}"
            )
