"""Asks a service to put jobs side by side, and shows the answer on a terminal."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

import httpx
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from epochd.client.sparkline import sparkline
from epochd.errors import (
    EpochdError,
    InvalidRequestError,
    NotFoundError,
    ServiceUnavailableError,
    UnauthorizedError,
)

TIMEOUT_SECONDS: Final = 60.0
POINTS: Final = 200
_ERRORS: Final[Mapping[int, type[EpochdError]]] = {
    HTTPStatus.UNPROCESSABLE_ENTITY: InvalidRequestError,
    HTTPStatus.NOT_FOUND: NotFoundError,
    HTTPStatus.UNAUTHORIZED: UnauthorizedError,
}
_SHOWN_DIFFERENCES: Final = 2
_PALETTE: Final = ("cyan", "magenta", "yellow", "green", "blue", "red")

Answer = Mapping[str, Any]
"""What ``GET /v1/metrics/compare`` gives, or one job of it."""
Column = tuple[str, str, bool | None, Callable[[Answer], str]]
"""Title, name, whether the lowest wins (None: nobody does), and how it is written."""


def fetch(
    url: str, key: str | None, ids: Sequence[str], metric: str | None = None, target: float | None = None
) -> Answer:
    """Ask the service at ``url``.

    Raises:
        ServiceUnavailableError: nobody answers there, or somebody who is no such service.
        InvalidRequestError, NotFoundError, UnauthorizedError: as the service says.

    """
    asked = [("job", id_) for id_ in ids] + [("points", str(POINTS))]
    asked += [
        (name, str(value)) for name, value in (("metric", metric), ("target", target)) if value is not None
    ]
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        address = httpx.URL(url.rstrip("/") + "/v1/metrics/compare", params=asked)
        answer = httpx.get(address, headers=headers, timeout=TIMEOUT_SECONDS)
        content = answer.json()
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        said = f"{url} does not answer as epochd does ({error}); give the address of a service with --url"
        raise ServiceUnavailableError(said) from None
    if answer.status_code != HTTPStatus.OK:
        _refuse(answer.status_code, content)
    return dict(content)


def _refuse(status: int, problem: Any) -> None:
    said = problem.get("detail", "no reason given") if isinstance(problem, dict) else "no reason given"
    kind = _ERRORS.get(status, ServiceUnavailableError)
    raise kind(f"the service answers {status}: {said}")


def show(console: Console, found: Answer) -> None:
    """Print the figures, the curves on one scale, and what stands against comparing them."""
    console.print(draw(found, console.width))


def draw(found: Answer, width: int) -> RenderableType:
    """Draw the whole picture for a terminal of this width."""
    better = "lower" if found["mode"] == "min" else "higher"
    target = "" if found["target"] is None else f", target {_number(found['target'])}"
    title = Text.assemble((found["metric"], "bold"), (f"  {better} is better{target}", "dim"))
    notes = [Text(f"! {note}", style="yellow") for note in found["notes"]]
    gap = [Text("")] if notes else []
    figures = [part for columns in _fitting(found, width) for part in (_figures(found, columns), "")]
    return Padding(Group(title, "", *figures, _curves(found, width), *gap, *notes), (1, 2))


def labels(found: Answer) -> list[str]:
    """Call each job by what sets it apart: where the specs differ, or its name, or its id."""
    told = sorted(found["differences"], key=lambda one: one["path"] != "batch_size")[:_SHOWN_DIFFERENCES]
    named = [
        "  ".join(f"{one['path'].rpartition('.')[2]} {_brief(one['values'][place])}" for one in told)
        for place in range(len(found["data"]))
    ]
    if len(set(named)) == len(named):
        return named
    names = [job["name"] for job in found["data"]]
    return (
        names if None not in names and len(set(names)) == len(names) else [job["id"] for job in found["data"]]
    )


def _brief(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else "-" if value is None else str(value)


def _fitting(found: Answer, width: int) -> list[list[Column]]:
    """Put all columns beside each other, or where there is no room for that, in two tables one below the other."""
    columns = list(_columns(found))
    needed = 4 + max(map(len, labels(found))) + 12 * len(columns)
    half = (len(columns) + 1) // 2
    return [columns] if needed <= width else [columns[:half], columns[half:]]


def _figures(found: Answer, columns: Sequence[Column]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("", no_wrap=True, max_width=36)
    for title, *_ in columns:
        table.add_column(title, justify="right", no_wrap=True)
    winners = [_winner(found["data"], name, lowest=lowest) for _, name, lowest, _ in columns]
    for place, (label, job) in enumerate(zip(labels(found), found["data"], strict=True)):
        cells = [
            Text(write(job), style="bold green" if job["id"] == winner else "")
            for (_, _, _, write), winner in zip(columns, winners, strict=True)
        ]
        table.add_row(Text(label, style=_colour(place)), *cells)
    return table


def _columns(found: Answer) -> Iterator[Column]:
    lowest = found["mode"] == "min"
    yield "best", "best_value", lowest, lambda job: _number(job["best_value"])
    yield "in epoch", "best_epoch", None, lambda job: f"{_number(job['best_epoch'])}/{job['epochs']}"
    yield "gap", "generalisation_gap", None, lambda job: _number(job["generalisation_gap"])
    yield "noise", "noise", True, lambda job: _number(job["noise"])
    if found["target"] is not None:
        goal = _number(found["target"])
        yield f"epochs to {goal}", "epochs_to_target", True, lambda job: _number(job["epochs_to_target"])
        yield f"seconds to {goal}", "seconds_to_target", True, lambda job: _number(job["seconds_to_target"])
    yield "samples/s", "samples_per_second", False, lambda job: _large(job["samples_per_second"])
    yield "memory", "peak_memory_bytes", True, lambda job: _bytes(job["peak_memory_bytes"])


def _winner(data: Sequence[Answer], name: str, *, lowest: bool | None) -> str | None:
    known = [job for job in data if job[name] is not None]
    if lowest is None or not known:
        return None
    best = (min if lowest else max)(known, key=lambda job: job[name])
    return str(best["id"])


def _curves(found: Answer, width: int) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True, max_width=36)
    for _ in range(3):
        grid.add_column(no_wrap=True)
    curves = list(found["curves"]["values"].values())
    positive = [value for curve in curves for value in curve if value is not None and value > 0]
    bounds = (min(positive), max(positive)) if positive else None
    called = labels(found)
    room = max(10, width - max(map(len, called)) - 30)
    for place, (label, job, curve) in enumerate(zip(called, found["data"], curves, strict=True)):
        style = _colour(place)
        final, status = Text(_number(job["final_value"])), Text(job["status"], style="dim")
        grid.add_row(
            Text(label, style=style), Text(_stretched(curve, room, bounds), style=style), final, status
        )
    return grid


def _stretched(curve: Sequence[float | None], room: int, bounds: tuple[float, float] | None) -> str:
    """Draw a curve as wide as there is room, so that all have the same epochs below each other."""
    wide = [curve[place * len(curve) // room] for place in range(room)] if curve else []
    return sparkline(wide, room, bounds)


def _colour(place: int) -> str:
    return _PALETTE[place % len(_PALETTE)]


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.4g}"


def _large(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def _bytes(value: int | None) -> str:
    return "-" if value is None else f"{value / 1e6:,.0f} MB"
