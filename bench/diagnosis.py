"""How often the diagnosis is right: real trainings whose fault is known, over all built-in data sets.

    python bench/diagnosis.py [--fit] [--mend] [--threads 1] [--save FILE.json]

More than a hundred trainings are made to underfit, fit, overfit, diverge, come to a standstill or jump about, by
capacity, epochs, learning rate, label noise, number of samples and batch size: see ``labelled/cases.py``. A training
counts only when its losses on samples that neither it nor the diagnosis has seen agree with what it was made for: see
``fault`` in ``labelled/trained.py``. What the diagnosis then says, by training and validation losses alone, is compared
with that.

By their names the trainings are in two halves. The thresholds were fitted on one, as ``--fit`` does again and prints
them; the figures are those of the other, which was not looked at for it. ``--mend`` trains again
with the patch that is suggested first for what was diagnosed. ``--save`` writes the curves, which the tests read.
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).parent))  # as when it is imported
from labelled.cases import cases
from labelled.curves import LabelledCurve, as_rows, of
from labelled.fitting import fitted
from labelled.mended import mended, show
from labelled.trained import Trained, labelled, train

from epochd.training import device as devices
from epochd.training.diagnosis import FITTED, Thresholds

LABELS: Final = ("underfitting", "good_fit", "overfitting", "diverging", "plateau", "noisy")
VERDICTS: Final = (*LABELS, "undetermined")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--fit", action="store_true", help="Fit the thresholds again, and print them.")
    parser.add_argument(
        "--mend", action="store_true", help="Follow the first suggestion for each fault as well."
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--save", type=Path, help="Write the labelled curves there, as JSON.")
    arguments = parser.parse_args()
    devices.configure(arguments.threads)
    counted = trained()
    curves = [of(one, label) for one, label in counted]
    if arguments.save is not None:
        arguments.save.write_text(as_rows(curves), encoding="utf-8")
    halves = [one for one in curves if one.is_for_fitting], [one for one in curves if not one.is_for_fitting]
    thresholds = FITTED
    if arguments.fit:
        thresholds = fitted(halves[0])
        print(f"\nfitted: {thresholds}")
    for title, half in zip(("fitted on", "reported, not fitted on"), halves, strict=True):
        report(title, half, thresholds)
    if arguments.mend:
        show(list(mended(counted)))


def trained() -> list[tuple[Trained, str]]:
    """Train every case, and keep those whose fault is the one that was intended."""
    started = time.perf_counter()
    every = list(cases())
    finished = [one for case in every if (one := train(case)) is not None]
    counted = labelled(finished)
    print(
        f"{len(every)} trainings in {time.perf_counter() - started:.0f} s; {len(every) - len(finished)} did not stay "
        f"finite; {len(counted)} have the fault that they were made for, the others are left out"
    )
    return counted


def report(title: str, curves: Sequence[LabelledCurve], thresholds: Thresholds) -> None:
    """Print the confusion matrix of a half, and how far its confidences can be trusted."""
    found = [(one, one.diagnosed(thresholds)) for one in curves]
    counts = Counter((one.label, said.verdict) for one, said in found)
    right = sum(one.label == said.verdict for one, said in found)
    print(f"\n{title}: {right} of {len(found)} right ({100 * right / len(found):.0f} %)\n")
    print(f"| made to \\ diagnosed | {' | '.join(VERDICTS)} | right |")
    print(f"| --- |{' ---: |' * (len(VERDICTS) + 1)}")
    for label in LABELS:
        row = [counts[label, verdict] for verdict in VERDICTS]
        share = f"{100 * counts[label, label] / max(sum(row), 1):.0f} %"
        print(f"| `{label}` | {' | '.join(str(count or '') for count in row)} | {share} |")
    print()
    for low, high in ((0.0, 0.7), (0.7, 0.85), (0.85, 1.01)):
        of_it = [one.label == said.verdict for one, said in found if low <= (said.confidence or -1) < high]
        if of_it:
            print(f"confidence {low:.2f} to {min(high, 1):.2f}: {sum(of_it)} of {len(of_it)} right")
    for one, said in found:
        if one.label != said.verdict:
            print(f"  {one.name}: made to be {one.label}, diagnosed {said.verdict}: {said.evidence}")


if __name__ == "__main__":
    main()
