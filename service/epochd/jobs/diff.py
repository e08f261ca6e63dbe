"""Finds where two jobs differ: by their rows, their epochs, and the receipts that they left."""

import json
from collections.abc import Iterator, Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final

from epochd.contract.diff import Difference, JobDiff
from epochd.errors import NotFoundError
from epochd.store import artifacts, jobs, metrics
from epochd.store.database import Database, Transaction
from epochd.store.jobs import JobRow

RECEIPT: Final = "receipt.json"
_WEIGHTS: Final = frozenset({"model.safetensors", "model.pt2", "model.onnx"})
"""Artifacts that are the same when the results are; the others also say when, and by which job, they were made."""
_EPOCHS: Final = 500
_ABSENT: Final = object()

Receipt = Mapping[str, Any]


def diff(db: Database, artifacts_dir: Path, a: str, b: str) -> JobDiff:
    """Compare two jobs.

    Raises:
        NotFoundError: code ``job_not_found``.

    """
    with db.read() as tx:
        rows = jobs.get(tx, a), jobs.get(tx, b)
        results = [_results(tx, row) for row in rows]
        paths = [_receipt_path(tx, row, artifacts_dir) for row in rows]
    receipts = [None if path is None else _read(path) for path in paths]
    return JobDiff(
        a=a,
        b=b,
        spec=list(differences(rows[0].spec, rows[1].spec)),
        data=_of_receipts(_data, *receipts),
        environment=_of_receipts(_environment, *receipts),
        results=list(differences(results[0], results[1])),
        first_different_epoch=_first_different_epoch(db, *rows),
        notes=[_no_receipt(row) for row, receipt in zip(rows, receipts, strict=True) if receipt is None],
    )


def differences(a: Any, b: Any, path: str = "") -> Iterator[Difference]:
    """Walk through two JSON values, in the order of ``a``'s keys and then of those that only ``b`` has."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        for key in dict.fromkeys([*a, *b]):
            yield from differences(
                a.get(key, _ABSENT), b.get(key, _ABSENT), f"{path}.{key}" if path else str(key)
            )
    elif a is _ABSENT:
        yield Difference(path=path, a=None, b=b, only_in="b")
    elif b is _ABSENT:
        yield Difference(path=path, a=a, b=None, only_in="a")
    elif a != b or isinstance(a, bool) != isinstance(b, bool):
        yield Difference(path=path, a=a, b=b, only_in=None)


def _results(tx: Transaction, row: JobRow) -> dict[str, Any]:
    files = {one.name: one.sha256 for one in artifacts.of_job(tx, row.number) if one.name in _WEIGHTS}
    return {
        "status": row.status,
        "stop_reason": row.stop_reason,
        "epoch": row.epoch,
        "iteration": row.shown_iteration,
        "metrics": row.metrics or {},
        "selected_checkpoint": row.selected_checkpoint,
        "verdict": (row.diagnosis or {}).get("verdict"),
        "error": (row.error or {}).get("code"),
        "sha256": files,
    }


def _receipt_path(tx: Transaction, row: JobRow, artifacts_dir: Path) -> Path | None:
    try:
        return artifacts_dir / artifacts.get(tx, row.number, RECEIPT).path
    except NotFoundError:
        return None


def _read(path: Path) -> Receipt | None:
    try:
        receipt: Receipt = json.loads(path.read_bytes())
    except (OSError, ValueError):  # removed from the directory, or damaged: as if there were none
        return None
    return receipt


def _data(receipt: Receipt) -> dict[str, Any]:
    return {
        name: receipt["inputs"][name] for name in ("dataset", "validation_dataset", "split", "starts_from")
    }


def _environment(receipt: Receipt) -> dict[str, Any]:
    return dict(receipt["environment"])


def _of_receipts(part: Any, a: Receipt | None, b: Receipt | None) -> list[Difference] | None:
    return None if a is None or b is None else list(differences(part(a), part(b)))


def _first_different_epoch(db: Database, a: JobRow, b: JobRow) -> int | None:
    """Compare the recorded epochs page by page: their metrics and learning rate, and not how long they took."""
    pages = (_epochs(db, row) for row in (a, b))
    for one, other in zip_longest(*pages):
        if one is None or other is None:
            return None
        if one != other:
            return min(one[0], other[0])
    return None


def _epochs(db: Database, row: JobRow) -> Iterator[tuple[int, dict[str, float | None], float]]:
    after: int | None = 0
    while after is not None:
        with db.read() as tx:
            page, after = metrics.epochs(tx, row, after=after, limit=_EPOCHS)
        for one in page:
            yield one.epoch, one.metrics, one.learning_rate


def _no_receipt(row: JobRow) -> str:
    why = "it is not done" if row.finished_at is None else "it left none, or its file is gone"
    return f"{row.id} has no receipt ({why}): its data and environment are not known."
