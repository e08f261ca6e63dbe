"""What a job can be mirrored or exported to."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from epochd.store.jobs import JobRow


@dataclass(frozen=True, slots=True)
class Series:
    """Values of one metric, ascending by step, all finite; ``times`` are in seconds since 1970, ascending."""

    key: str
    steps: npt.NDArray[np.int64]
    values: npt.NDArray[np.float64]
    times: npt.NDArray[np.float64]

    def after(self, step: int) -> "Series":
        """Give the values that follow a step."""
        i = int(np.searchsorted(self.steps, step, side="right"))
        return Series(self.key, self.steps[i:], self.values[i:], self.times[i:])


class Run(Protocol):
    """One job at a target."""

    @property
    def name(self) -> str:
        """What the target calls it; found again by it."""

    @property
    def known(self) -> Mapping[str, int]:
        """The newest step of each metric that the target had when the run was opened."""

    def log(self, series: Sequence[Series]) -> None:
        """Add values. When this returns, the target keeps them; when it raises, it has some beginning of each."""

    def describe(self, job: JobRow) -> None:
        """Bring all but the metrics up to date: parameters, tags, status and end. Sends what has changed."""

    def give_way(self, run: str) -> None:
        """Say, where that can be said, that this other run is the job's from now on."""

    def close(self) -> None:
        """Give back what is held open."""


class Target(Protocol):
    """A tool that shows runs.

    Everything here raises ``MirrorAwayError`` when the target cannot be used for now, and ``MirrorRefusedError`` when
    it does not take this job.
    """

    @property
    def name(self) -> str:
        """What the table ``mirrors`` calls it."""

    @property
    def rows(self) -> int:
        """How many iterations it is best sent at once."""

    def open(self, job: JobRow, run: str | None, *, key: str, replaces: str | None = None) -> Run:
        """Open the run of this name; without a name the job's run with this key, begun when there is none.

        One that is begun says, where that can be said, which other run it ``replaces``.
        """

    def close(self) -> None:
        """Give back what is held open."""


def mirror_key(job: JobRow) -> str:
    """Name the curve that a mirror shows: a retry from scratch begins another."""
    return job.id if job.restarted_after == 0 else f"{job.id}-retry-{job.restarted_after}"


def rewound_key(job: JobRow, attempt: int) -> str:
    """Name the curve as an attempt has made it that trained other numbers than were sent."""
    return f"{mirror_key(job)}-attempt-{attempt}"


def parameters(job: JobRow) -> dict[str, Any]:
    """Give what training began with, flat: ``optimizer.learning_rate``. Lists are JSON; null is left out."""
    spec = {key: value for key, value in (job.initial_spec or job.spec).items() if key not in _NO_PARAMETERS}
    return dict(_flat(spec, ""))


def amended(job: JobRow) -> dict[str, Any]:
    """Give the parameters that are no longer what training began with."""
    before = parameters(job)
    spec = {key: value for key, value in job.spec.items() if key not in _NO_PARAMETERS}
    return {key: value for key, value in _flat(spec, "") if before.get(key) != value}


_NO_PARAMETERS = frozenset({"name", "tags", "priority", "webhook"})


def _flat(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inside in value.items():
            yield from _flat(inside, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        yield path, json.dumps(value)
    elif value is not None:
        yield path, value
