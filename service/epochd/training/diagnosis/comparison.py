"""Conditions that know by how much they hold: numbers from -1 to 1, positive where the condition holds. No torch.

``-condition`` is its opposite, ``min`` of conditions holds where all do, ``max`` where any does (Zadeh, Fuzzy Sets,
1965). So a rule that is written with them says how near its verdict was to another one.
"""


def above(value: float, limit: float) -> float:
    """Whether ``value`` > ``limit``, neither of them negative: their difference by their sum."""
    size = abs(value) + abs(limit)
    return (value - limit) / size if size else 0.0


def holds(condition: bool) -> float:  # noqa: FBT001 - what it is about
    """A condition that either holds or not."""
    return 1.0 if condition else -1.0
