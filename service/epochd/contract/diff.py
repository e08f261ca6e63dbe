"""Where two jobs differ, as callers see it."""

from typing import Any, Literal

from epochd.contract.base import Response


class Difference(Response):
    """One value that is not the same."""

    path: str
    """Dotted: `model.hidden_sizes`, `packages.torch`. Lists are compared whole."""
    a: Any
    b: Any
    only_in: Literal["a", "b"] | None
    """The job that has such a value at all; the other one's is shown as `null`."""


class JobDiff(Response):
    """Where two jobs differ; an empty list says that nothing does, `null` that it cannot be known."""

    a: str
    b: str
    spec: list[Difference]
    """Of the specs as they are now; what changes no number (`name`, `tags`, `priority`, …) included."""
    data: list[Difference] | None
    """Data sets, their digests, and the split. `null`: a job has left no receipt (yet)."""
    environment: list[Difference] | None
    """Versions, device, threads and determinism. `null` as for `data`."""
    results: list[Difference]
    """Status, how far training came, the metrics of the last epoch, the weights that were kept, and their digests."""
    first_different_epoch: int | None
    """The first epoch whose metrics differ; `null`: none of those that both have recorded."""
    notes: list[str]
    """What could not be compared, and why."""
