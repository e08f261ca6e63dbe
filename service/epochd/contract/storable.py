"""What a value of any shape must be to be kept: JSON that both databases, and every reader, take."""

import math
from typing import Any, Final

MAX_DEPTH: Final = 16
_INTEGERS: Final = range(-(2**63), 2**63)


def require_storable(value: Any, where: str = "", depth: int = 0) -> None:
    """Raise ValueError, which names the place, for what cannot be kept.

    That is text with NUL or a lone surrogate (which Postgres does not store), a number that is not finite or has more
    than 64 bits, and anything nested deeper than MAX_DEPTH.
    """
    if depth > MAX_DEPTH:
        raise ValueError(f"{where} is nested deeper than {MAX_DEPTH} levels")
    match value:
        case dict():
            for key, inner in value.items():
                _require_text(key, f"a key of {where}" if where else "a key")
                require_storable(inner, f"{where}.{key}" if where else key, depth + 1)
        case list():
            for index, inner in enumerate(value):
                require_storable(inner, f"{where}.{index}", depth + 1)
        case str():
            _require_text(value, where)
        case bool() | None:
            pass
        case _:
            _require_number(value, where)


def _require_text(text: str, where: str) -> None:
    if "\x00" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError(f"{where} must be valid Unicode without NUL characters")


def _require_number(value: float, where: str) -> None:
    if isinstance(value, int) and value not in _INTEGERS:
        raise ValueError(f"{where} must be a number of at most 64 bits")
    if not math.isfinite(value):
        raise ValueError(f"{where} must be a finite number")
