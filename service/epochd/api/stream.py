"""A job's events, and on demand its iterations, as frames of a ``text/event-stream``.

A *cursor* is a place in that sequence, and every message carries the one behind it as its ``id``, so that a
client that was cut off anywhere gets exactly the rest. Iterations come before the event that follows them;
those of one page of events come together. An event's id is its ``seq``, and an iterations message's is
``<seq>-<iteration>``: the last event and the last iteration sent. An event has the long form, too, when
iterations beyond its own were sent.
"""

import itertools
import re
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import orjson

from epochd.api.errors import problem_of, unexpected
from epochd.contract.base import rfc3339
from epochd.contract.events import LAST_EVENT_TYPES
from epochd.errors import EpochdError, InvalidRequestError, ParamError
from epochd.store import events, jobs, metrics
from epochd.store.database import Transaction
from epochd.store.events import EventRow

EVENTS_PER_PAGE: Final = 200
ITERATIONS_PER_MESSAGE: Final = 2000
MESSAGES_PER_PAGE: Final = 8

RETRY_MILLISECONDS: Final = 1000
PREAMBLE: Final = b"retry: %d\n\n" % RETRY_MILLISECONDS
HEARTBEAT: Final = b": heartbeat\n\n"

_ID: Final = re.compile(r"([0-9]{1,18})(?:-([0-9]{1,18}))?")


class Cursor(NamedTuple):
    """Sent so far: events up to ``seq``, and of ``attempt`` the iterations up to ``iteration``.

    ``attempt`` is that of event ``seq``. Without iterations the last two are 0.
    """

    seq: int
    iteration: int = 0
    attempt: int = 0


@dataclass(frozen=True, slots=True)
class Frame:
    """One message as bytes, and the cursors before and behind it.

    ``terminal`` when the job is done with it: none follows, unless the job is retried.
    """

    before: Cursor
    after: Cursor
    data: bytes
    terminal: bool = False


class Page(NamedTuple):
    """Frames, and the cursor behind them, which moves on even where there was nothing to send."""

    frames: list[Frame]
    cursor: Cursor


def start(tx: Transaction, job_number: int, event_id: str | None, *, iterations: bool) -> Cursor:
    """Find the cursor that an event id names; without one the beginning.

    Raises:
        InvalidRequestError: no message of this job has this id.

    """
    match = _ID.fullmatch(event_id) if event_id else None
    if event_id and match is None:
        raise _invalid_id("must be the id of a message, such as '17' or '17-4096'")
    seq = int(match[1]) if match else 0
    cursor = _behind(tx, job_number, seq)
    if not iterations:
        return Cursor(seq)
    return cursor._replace(iteration=int(match[2])) if match and match[2] else cursor


def _behind(tx: Transaction, job_number: int, seq: int) -> Cursor:
    if seq == 0:
        return Cursor(0)
    found = events.after(tx, job_number, seq - 1, 1)
    if not found:
        raise _invalid_id(f"must name an event that has happened; {seq} has not")
    return Cursor(seq, _iteration_at(found[0]), found[0].attempt)


def _invalid_id(message: str) -> InvalidRequestError:
    return InvalidRequestError.of(ParamError("after", message, "invalid_event_id"))


def is_over(tx: Transaction, job_number: int, cursor: Cursor) -> bool:
    """Tell whether the event at the cursor is the job's newest and, unless somebody retries it, its last."""
    found = events.after(tx, job_number, cursor.seq - 1, 2) if cursor.seq else []
    return len(found) == 1 and found[0].type in LAST_EVENT_TYPES


def read_page(tx: Transaction, job_number: int, cursor: Cursor, head: Cursor, *, iterations: bool) -> Page:
    """Read a bounded piece of what follows ``cursor`` up to ``head``: call again until the cursor is there.

    Comes back with the same cursor only when nothing is left before ``head``, as when the job was deleted.
    """
    rows = events.after(tx, job_number, cursor.seq, EVENTS_PER_PAGE) if cursor.seq < head.seq else []
    rows = [row for row in rows if row.seq <= head.seq]
    frames: list[Frame] = []
    if iterations:
        same = list(itertools.takewhile(lambda row: row.attempt == cursor.attempt, rows))
        target = _target(same, rows, cursor, head)
        frames, cursor = _iterations(tx, job_number, cursor, target)
        if cursor.iteration < target:
            return Page(frames, cursor)
        rows = rows[: len(same) + 1]
    for row in rows:
        frames.append(_event(row, cursor, iterations=iterations))
        cursor = frames[-1].after
    return Page(frames, cursor)


def _target(same: list[EventRow], rows: list[EventRow], cursor: Cursor, head: Cursor) -> int:
    """The iteration up to which this attempt's come before its events ``same``."""
    newest = max((row.iteration for row in same), default=cursor.iteration)
    reaches_head = len(same) == len(rows) and (rows[-1].seq if rows else cursor.seq) == head.seq
    if reaches_head and cursor.attempt == head.attempt:
        return head.iteration
    return newest


def _iterations(tx: Transaction, job_number: int, cursor: Cursor, target: int) -> Page:
    frames: list[Frame] = []
    job = jobs.by_number(tx, job_number) if cursor.iteration < target and cursor.attempt else None
    while job is not None and cursor.iteration < target and len(frames) < MESSAGES_PER_PAGE:
        limit = min(ITERATIONS_PER_MESSAGE, target - cursor.iteration)
        found = metrics.iterations_json(tx, job, after=cursor.iteration, limit=limit, attempt=cursor.attempt)
        columns = _up_to(orjson.loads(found)["columns"], target)
        if not columns["iteration"]:
            break
        frames.append(_columns(columns, cursor))
        cursor = frames[-1].after
    if len(frames) < MESSAGES_PER_PAGE:
        # All there is has been read, even if it is less than what was announced.
        cursor = cursor._replace(iteration=max(cursor.iteration, target))
    return Page(frames, cursor)


def _up_to(columns: dict[str, list[Any]], target: int) -> dict[str, list[Any]]:
    # An attempt that was resumed begins beyond the cursor: a slice of it may reach further than asked for.
    beyond = sum(iteration > target for iteration in columns["iteration"])
    return {name: values[:-beyond] for name, values in columns.items()} if beyond else columns


def _columns(columns: dict[str, list[Any]], cursor: Cursor) -> Frame:
    after = cursor._replace(iteration=columns["iteration"][-1])
    data = orjson.dumps({"attempt": cursor.attempt, "columns": columns})
    return Frame(cursor, after, encode("iterations", data, f"{after.seq}-{after.iteration}"))


def _event(row: EventRow, cursor: Cursor, *, iterations: bool) -> Frame:
    after = _after_event(row, cursor) if iterations else Cursor(row.seq)
    plain = not iterations or after.iteration == _iteration_at(row)
    event_id = str(row.seq) if plain else f"{row.seq}-{after.iteration}"
    return Frame(
        cursor, after, encode(row.type, orjson.dumps(as_json(row)), event_id), row.type in LAST_EVENT_TYPES
    )


def _after_event(row: EventRow, cursor: Cursor) -> Cursor:
    begins_anew = row.attempt != cursor.attempt
    return Cursor(row.seq, 0 if begins_anew else cursor.iteration, row.attempt)


def _iteration_at(row: EventRow) -> int:
    """The iteration up to which everything precedes this event: what a plain id stands for."""
    return 0 if row.type == "job.started" else row.iteration


def as_json(row: EventRow) -> dict[str, Any]:
    """Show an event as the contract does."""
    return {"seq": row.seq, "type": row.type, "created_at": rfc3339(row.created_at), "data": row.data}


def encode(kind: str, data: bytes, event_id: str | None = None) -> bytes:
    """Write one message; ``data`` must hold no line end, as JSON does not."""
    head = f"id: {event_id}\n" if event_id is not None else ""
    return b"%bevent: %b\ndata: %b\n\n" % (head.encode(), kind.encode(), data)


def failure(error: Exception) -> bytes:
    """Tell in the stream, whose answer has begun, what went wrong; the log has it, too."""
    problem = problem_of(error) if isinstance(error, EpochdError) else unexpected(error)
    return encode("error", bytes(problem.body))


def head_of(tx: Transaction, job_number: int, *, iterations: bool) -> Cursor | None:
    """Find the cursor behind the newest event; None when there is no such job."""
    watched = jobs.watch(tx, [job_number])
    if not watched:
        return None
    cursor = _behind(tx, job_number, watched[0].last_event)
    return cursor if iterations else Cursor(cursor.seq)
