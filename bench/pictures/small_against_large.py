"""The picture of ``bench/batch_sizes.py``: SVG that is legible on light and on dark pages."""

import math
import statistics
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from batch_sizes import Row

WIDTH: Final = 920
HEIGHT: Final = 560
COLOURS: Final = ("#0072b2", "#009e73", "#e69f00", "#d55e00", "#cc79a7", "#56b4e9")
"""Okabe and Ito (2008): told apart by colour-blind readers, too; on white and on black."""
STYLE: Final = """<style>
  text { font: 13px system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; fill: #1f2328 }
  .title { font-weight: 600; font-size: 14px }
  .dim { fill: #59636e; font-size: 12px }
  .axis { stroke: #8c959f; stroke-width: 1; fill: none }
  .grid { stroke: #8c959f; stroke-opacity: 0.25; stroke-width: 1 }
  .curve { fill: none; stroke-width: 2; stroke-linejoin: round }
  @media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .dim { fill: #9198a1 } }
</style>"""
PANELS: Final = (
    ("memory", "memory, MB"),
    ("epoch_seconds", "seconds an epoch"),
    ("jitter", "noise of mini-batches, %"),
    ("accuracy", "held-out accuracy, %"),
)
LEARNT: Final = frozenset({"jitter", "accuracy"})
"""What depends on the learning rate."""
TITLES: Final = ("validation loss, same learning rate", "learning rate × √(batch size / 16)")


def picture(rows: Sequence["Row"], scaled: Sequence["Row"]) -> str:
    """Draw the median validation loss by epoch above, and four figures by batch size below.

    ``scaled`` are the same batch sizes at a learning rate that grows with them.
    """
    label = "Small mini-batches against large ones: memory, speed, noise and accuracy"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">',
        STYLE,
    ]
    every = [_medians(part) for part in (rows, scaled)]
    bounds = min(min(map(min, one)) for one in every) * 0.9, max(max(map(max, one)) for one in every) * 1.1
    for place, (title, medians) in enumerate(zip(TITLES, every, strict=True)):
        parts += _curves(rows, medians, bounds, title, 55 + place * 455)
    for place, (name, title) in enumerate(PANELS):
        parts += _panel(rows, scaled if name in LEARNT else (), name, title, 15 + place * 228)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _medians(rows: Sequence["Row"]) -> list[list[float]]:
    """Give the median of the seeds, of each batch size by epoch."""
    return [
        [statistics.median(step) for step in zip(*(run.losses for run in row.runs), strict=True)]
        for row in rows
    ]


def _curves(
    rows: Sequence["Row"],
    medians: Sequence[Sequence[float]],
    bounds: tuple[float, float],
    title: str,
    left: float,
) -> Iterator[str]:
    right, top, bottom, (low, high) = left + 300, 40, 280, bounds
    epochs = len(medians[0])

    def x(epoch: int) -> float:
        return left + (right - left) * (epoch - 1) / max(epochs - 1, 1)

    def y(loss: float) -> float:
        return bottom - (bottom - top) * math.log(loss / low) / math.log(high / low)

    yield _text(left - 40, 20, title, "title")
    for tick in _decades(low, high):
        yield f'<path class="grid" d="M{left} {y(tick):.1f}H{right}"/>'
        yield _text(left - 8, y(tick) + 4, f"{tick:g}", "dim", "end")
    yield f'<path class="axis" d="M{left} {bottom}H{right}"/>'
    for tick in sorted({1, *range(10, epochs + 1, 10)}):
        yield _text(x(tick), bottom + 17, str(tick), "dim", "middle")
    yield _text((left + right) / 2, bottom + 34, "epoch", "dim", "middle")
    places = _spread([y(losses[-1]) for losses in medians], bottom - 4)
    for index, losses in enumerate(medians):
        colour, points = (
            COLOURS[index],
            " ".join(f"{x(i):.1f},{y(loss):.1f}" for i, loss in enumerate(losses, 1)),
        )
        yield f'<polyline class="curve" stroke="{colour}" points="{points}"/>'
        yield f'<path d="M{right + 3} {y(losses[-1]):.1f}L{right + 13} {places[index]:.1f}" stroke="{colour}"/>'
        yield _text(right + 17, places[index] + 4, f"batch {rows[index].batch_size}")


def _panel(
    rows: Sequence["Row"], scaled: Sequence["Row"], name: str, title: str, left: float
) -> Iterator[str]:
    top, bottom, width = 375, 505, 205
    low, high = _bounds(name, [*rows, *scaled])

    def y(value: float) -> float:
        within = min(max(value, low), high)
        height = math.log(within / low, high / low) if name == "jitter" else (within - low) / (high - low)
        return bottom - (bottom - top) * height

    def bar(x: float, row: "Row", colour: str, opacity: float) -> Iterator[str]:
        value, error = _figure(row, name)
        mean, *ends = (y(one) for one in (value, value - error, value + error))
        look = f'stroke="{colour}" stroke-width="12" stroke-opacity="{opacity}"'
        yield f'<path d="M{x:.1f} {bottom}V{mean:.1f}" {look}/>'
        if error:
            yield f'<path class="axis" d="M{x:.1f} {ends[0]:.1f}V{ends[1]:.1f}"/>'
        if not scaled:
            yield _text(x, ends[1] - 5, _brief(value), "dim", "middle")

    yield _text(left, top - 24, title, "title")
    yield f'<path class="axis" d="M{left} {bottom}h{width}"/>'
    if scaled:
        yield _text(
            left + width,
            top - 8,
            f"{_brief(low)} to {_brief(high)}{' (log.)' * (name == 'jitter')}",
            "dim",
            "end",
        )
    for place, row in enumerate(rows):
        middle = left + width * (place + 0.5) / len(rows)
        yield from bar(middle - 7 * bool(scaled), row, COLOURS[place], 1)
        if scaled:
            yield from bar(middle + 7, scaled[place], COLOURS[place], 0.45)
        yield _text(middle, bottom + 17, str(row.batch_size), "dim", "middle")
    under = "left: same rate, right: scaled" if scaled else "batch size"
    yield _text(left + width / 2, bottom + 35, under, "dim", "middle")


def _figure(row: "Row", name: str) -> tuple[float, float]:
    """Give a figure and its spread, in the unit that the title names."""
    if name == "memory":
        return row.memory_bytes / 1e6, 0.0
    scale = 100.0 if name == "accuracy" else 1.0
    return (row.mean(name) or 0.0) * scale, row.spread(name) * scale


def _bounds(name: str, rows: Sequence["Row"]) -> tuple[float, float]:
    """Bars begin at zero; those of accuracies, which are all high, and on a logarithmic scale below the lowest."""
    figures = [_figure(row, name) for row in rows]
    high = max(mean + error for mean, error in figures)
    if name == "jitter":
        return max(min(value for value, _ in figures) / 2, 0.01), high
    if name != "accuracy":
        return 0.0, high or 1.0
    return math.floor(min(mean - error for mean, error in figures) - 1), high


def _decades(low: float, high: float) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [tick for power in powers for digit in (1, 2, 5) if low <= (tick := digit * 10.0**power) <= high]


def _spread(places: Sequence[float], end: float, apart: float = 17) -> list[float]:
    """Move labels until none lies on another or below ``end``; they keep their order."""
    moved, limit = dict.fromkeys(range(len(places)), 0.0), end
    for index in sorted(moved, key=lambda one: -places[one]):
        moved[index] = min(places[index], limit)
        limit = moved[index] - apart
    return list(moved.values())


def _brief(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2g}"


def _text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{words}</text>'
