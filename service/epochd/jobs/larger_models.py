"""The next larger model of the same kind."""

from collections.abc import Mapping
from typing import Any, Final

LARGEST: Final = {"width": 4096, "hidden": 65_536, "channels": 4096}
ENOUGH: Final = 64
"""Units of a layer that becomes wider get at least so many."""
TIMES: Final = 4


def larger(model: Mapping[str, Any]) -> dict[str, Any] | None:
    """Widen a built-in model's resolved spec; None for one that is as wide as can be, or an operator's."""
    match model["name"]:
        case "linear":
            return {"name": "mlp", "hidden_sizes": [128]}
        case "mlp":
            changes: dict[str, Any] = {"hidden_sizes": [_wider(one) for one in model["hidden_sizes"]]}
        case "cnn":
            changes = {"channels": [min(2 * one, LARGEST["channels"]) for one in model["channels"]]}
        case "resnet":
            changes = {"width": min(2 * model["width"], 512)}
        case "tabular_resnet":
            changes = {"width": min(2 * model["width"], LARGEST["hidden"])}
        case "ft_transformer" | "text_classifier":
            changes = _wider_tokens(model)
        case _:
            return None
    found = {**model, **changes}
    return found if found != dict(model) else None


def _wider(units: int) -> int:
    return min(max(TIMES * units, ENOUGH), LARGEST["hidden"])


def _wider_tokens(model: Mapping[str, Any]) -> dict[str, Any]:
    # Twice a multiple of the heads is one as well.
    width = 2 * int(model["width"])
    return {"width": width} if width <= LARGEST["width"] else {}
