"""Puts jobs side by side: what each came to, how soon, and what of their specs made the difference.

Each job's epochs are read once, page by page; what is kept of them is a handful of numbers and the chosen points.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from epochd.contract.compare import ComparedCurves, ComparedJob, Comparison, SpecDifference
from epochd.errors import InvalidRequestError, ParamError
from epochd.jobs.lifecycle import is_done
from epochd.jobs.progression import Progression
from epochd.store import jobs, metrics
from epochd.store.database import Database
from epochd.store.jobs import JobRow
from epochd.store.metrics import EpochRow
from epochd.training.metric_names import better

MAX_EPOCHS: Final = 500_000
"""Of all jobs together: about ten seconds of reading."""
_PAGE: Final = 2000
_NOT_COMPARED: Final = frozenset({"name", "tags"})


def compare(
    db: Database, ids: Sequence[str], *, metric: str | None = None, target: float | None = None, points: int
) -> Comparison:
    """Compare jobs in any status by an epoch metric: by default ``validation_loss``, or what all have of the losses.

    ``points`` is the most that each curve has.

    Raises:
        NotFoundError: code ``job_not_found``.
        InvalidRequestError: a job comes twice, none has recorded the metric, or they have too many epochs to read.

    """
    _refuse_repetition(ids)
    with db.read() as tx:
        rows = [jobs.get(tx, id_) for id_ in ids]
    _refuse_length(rows)
    chosen = _metric(rows, metric)
    mode = better(chosen)
    shown = evenly(max(row.epoch for row in rows), points)
    followed = [_follow(db, row, Progression(chosen, mode, target, row.epoch), shown) for row in rows]
    return Comparison(
        metric=chosen,
        mode=mode,
        target=target,
        data=[_shown(row, one) for row, (one, _) in zip(rows, followed, strict=True)],
        differences=list(differences([row.spec for row in rows])),
        curves=ComparedCurves(
            epoch=shown, values={row.id: curve for row, (_, curve) in zip(rows, followed, strict=True)}
        ),
        notes=list(_notes(rows, chosen)),
    )


def evenly(last: int, points: int) -> list[int]:
    """Choose at most ``points`` (at least 2) of the epochs 1 to ``last``, the first and the last among them."""
    if last <= points:
        return list(range(1, last + 1))
    return [1 + round(i * (last - 1) / (points - 1)) for i in range(points)]


def differences(specs: Sequence[Mapping[str, Any]]) -> Iterator[SpecDifference]:
    """Walk through all specs at once, in the order of their keys, and yield what is not the same everywhere."""
    flat = [dict(_leaves(spec)) for spec in specs]
    for path in dict.fromkeys(path for spec in flat for path in spec):
        values = [spec.get(path) for spec in flat]
        if path.partition(".")[0] not in _NOT_COMPARED and any(value != values[0] for value in values):
            yield SpecDifference(path=path, values=values)


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}" if path else str(key))
    else:
        yield path, value


def _refuse_repetition(ids: Sequence[str]) -> None:
    for place, id_ in enumerate(ids):
        if id_ in ids[:place]:
            message = f"names {id_} twice; name each job once"
            raise InvalidRequestError.of(ParamError("job", message, "duplicate"))


def _refuse_length(rows: Sequence[JobRow]) -> None:
    epochs = sum(row.epoch for row in rows)
    if epochs > MAX_EPOCHS:
        message = f"have {epochs} epochs together, at most {MAX_EPOCHS} are read at once; compare fewer jobs"
        raise InvalidRequestError.of(ParamError("job", message, "too_many"))


def _metric(rows: Sequence[JobRow], wanted: str | None) -> str:
    if wanted is None:
        return "train_loss" if any(row.spec["validation"] is None for row in rows) else "validation_loss"
    known = list(dict.fromkeys(name for row in rows for name in row.metrics or {}))
    if wanted not in known:
        have = (
            f"one of {', '.join(known)}"
            if known
            else "left out: none of the jobs has recorded any metric yet"
        )
        raise InvalidRequestError.of(
            ParamError("metric", f"must be {have}; got {wanted[:80]!r}", "not_one_of")
        )
    return wanted


def _follow(
    db: Database, row: JobRow, seen: Progression, shown: Sequence[int]
) -> tuple[Progression, list[float | None]]:
    """Read a job's epochs once; give what was seen and the values of the epochs that are shown."""
    values: dict[int, float | None] = dict.fromkeys(shown)
    for epoch in _epochs(db, row):
        value = seen.take(epoch.epoch, epoch.iteration, epoch.seconds, epoch.metrics)
        if epoch.epoch in values:
            values[epoch.epoch] = value
    return seen, list(values.values())


def _epochs(db: Database, row: JobRow) -> Iterator[EpochRow]:
    after = 0
    while after < row.epoch:  # what a running job completes meanwhile is not waited for
        with db.read() as tx:
            page = metrics.epochs_as_recorded(tx, row, after=after, limit=_PAGE)
        if not page:
            return
        yield from (epoch for epoch in page if epoch.epoch <= row.epoch)
        after = page[-1].epoch


def _shown(row: JobRow, seen: Progression) -> ComparedJob:
    plan = row.plan
    samples = (plan["iterations_per_epoch"] - 1) * plan["batch_size"] + plan["last_batch_size"]
    return ComparedJob(
        id=row.id,
        name=row.name,
        status=row.status,
        verdict=(row.diagnosis or {}).get("verdict", "undetermined"),
        batch_size=plan["batch_size"],
        iterations_per_epoch=plan["iterations_per_epoch"],
        epochs=seen.epochs,
        iterations=row.shown_iteration,
        seconds=round(seen.seconds, 6),
        samples_per_second=round(samples * seen.epochs / seen.seconds, 1) if seen.seconds else None,
        device=row.device,
        peak_memory_bytes=(row.progress or {}).get("peak_memory_bytes"),
        best_value=seen.best_value,
        best_epoch=seen.best_epoch,
        final_value=seen.final_value,
        generalisation_gap=seen.gap,
        noise=seen.noise,
        epochs_to_target=seen.reached[0] if seen.reached else None,
        iterations_to_target=seen.reached[1] if seen.reached else None,
        seconds_to_target=round(seen.reached[2], 6) if seen.reached else None,
    )


def _notes(rows: Sequence[JobRow], metric: str) -> Iterator[str]:
    if _differ(rows, "dataset"):
        yield "The jobs are trained on different data sets: their losses and times are not on one scale."
    elif _differ(rows, "validation") or (metric.startswith("validation_") and _differ(rows, "seed")):
        yield "The jobs are validated on different samples (`validation`, `seed`): expect differences from that alone."
    if metric.endswith("_loss") and any(
        _differ(rows, name) for name in ("loss", "class_weights", "label_smoothing")
    ):
        yield "The jobs minimise different losses: compare them by another metric."
    if len({row.device for row in rows if row.device}) > 1:
        yield "The jobs are trained on different devices: their seconds and memory tell of these as well."
    for row in rows:
        if not is_done(row.status):
            yield f"{row.id} is not done ({row.status}): its figures are those of its epochs so far."


def _differ(rows: Sequence[JobRow], field: str) -> bool:
    return any(row.spec.get(field) != rows[0].spec.get(field) for row in rows)
