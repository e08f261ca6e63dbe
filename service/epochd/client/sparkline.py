"""A curve in one line of text."""

import math
from collections.abc import Sequence

LEVELS = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float | None], width: int, bounds: tuple[float, float] | None = None) -> str:
    """Draw the values, oldest first, on a logarithmic scale in at most ``width`` characters.

    More values than that are drawn by the last of each group. Losses fall by orders of magnitude: on a
    linear scale all but the first epochs would look alike. A value that is None or not positive is a blank.
    ``bounds`` are the values of the lowest and the highest character, so that several curves share a scale.
    """
    shown = (
        [values[(i + 1) * len(values) // width - 1] for i in range(width)] if len(values) > width else values
    )
    logs = [math.log(value) if value is not None and value > 0 else None for value in shown]
    known = (
        [math.log(value) for value in bounds] if bounds else [value for value in logs if value is not None]
    )
    if not known:
        return ""
    low, span = min(known), (max(known) - min(known)) or 1.0
    return "".join(" " if value is None else LEVELS[_level((value - low) / span)] for value in logs)


def _level(height: float) -> int:
    return round(min(max(height, 0.0), 1.0) * (len(LEVELS) - 1))
