"""What Pydantic found wrong with a request, in the words of the contract.

``param_errors`` turns each finding into a dotted parameter, a message that says what is wrong and what would
be right, and a stable code.
"""

import difflib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from pydantic import BaseModel

from epochd.api.known_names import allowed_names, fixed_names
from epochd.contract import datasets, models, spec
from epochd.contract.job import AMENDABLE
from epochd.errors import ParamError

MAX_ERRORS: Final = 50
MAX_SHOWN: Final = 80
MAX_MESSAGE: Final = 400

Finding = Mapping[str, Any]
"""One of ``ValidationError.errors()``."""

_WRONG_TYPES: Final = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a whole number of a sensible size",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "a string",
    "string_sub_type": "a string",
    "string_unicode": "a string of valid Unicode",
    "list_type": "an array",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
    "none_required": "null",
}
_BOUNDS: Final = {
    "greater_than": ("gt", "greater than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}
_LENGTHS: Final = {
    "too_short": ("too_short", "min_length", "at least", "entries"),
    "too_long": ("too_long", "max_length", "at most", "entries"),
    "string_too_short": ("too_short", "min_length", "at least", "characters"),
    "string_too_long": ("too_long", "max_length", "at most", "characters"),
}


def param_errors(
    findings: Sequence[Finding], body: Any = None, models: Mapping[str, type[BaseModel]] | None = None
) -> list[ParamError]:
    """Translate findings; ``models`` maps ``body`` and ``query`` to the model that was asked for.

    With them the message for an unknown parameter names the known ones. At most MAX_ERRORS are told.
    """
    # A misspelt parameter explains why another is missing: it comes first, and into the problem's `detail`.
    ordered = sorted(findings, key=lambda finding: finding["type"] != "extra_forbidden")
    return [_param_error(finding, body, models or {}) for finding in ordered[:MAX_ERRORS]]


def _param_error(finding: Finding, body: Any, models: Mapping[str, type[BaseModel]]) -> ParamError:
    where, *location = finding["loc"] or ("",)
    keys = _keys(location, body, finding["type"]) if where == "body" else [str(key) for key in location[:1]]
    if finding["type"].startswith("union_tag"):
        keys.append(str(finding["ctx"]["discriminator"]).strip("'"))
    unknown = finding["type"] == "extra_forbidden"
    code, message = _unknown(location, models.get(str(where))) if unknown else _explain(finding)
    return ParamError(".".join(_printable(key) for key in keys), message, code)


def _keys(location: Sequence[str | int], value: Any, kind: str) -> list[str]:
    """Keep those elements of a location that are keys of the value at that place: the rest are union tags."""
    keys = []
    for depth, key in enumerate(location):
        if _has(value, key):
            value = value[key]
            keys.append(str(key))
        elif kind == "missing" and depth == len(location) - 1:
            keys.append(str(key))
    return keys


def _has(value: Any, key: str | int) -> bool:
    if isinstance(value, Mapping):
        return key in value
    return isinstance(value, list) and isinstance(key, int) and 0 <= key < len(value)


def _explain(finding: Finding) -> tuple[str, str]:
    kind, context, given = finding["type"], finding.get("ctx") or {}, finding.get("input")
    if kind in _WRONG_TYPES:
        return "wrong_type", f"must be {_WRONG_TYPES[kind]}; got {shown(given)}"
    if kind in _BOUNDS:
        key, words = _BOUNDS[kind]
        return "out_of_range", f"must be {words} {context[key]}; got {shown(given)}"
    if kind in _LENGTHS:
        code, key, words, unit = _LENGTHS[kind]
        return code, f"must have {words} {context[key]} {unit}"
    explain = _OTHERS.get(kind)
    return explain(context, given) if explain else ("invalid", _printable(str(finding["msg"])))


_FORMATS: Final = {
    spec.PRINTABLE: "text without control characters",
    datasets.DATASET_NAME: "1 to 200 letters, digits, spaces and . _ - + ( ), beginning with a letter or digit",
    spec.TAG_KEY: "1 to 64 letters, digits, dots, dashes and underscores",
    models.OPERATOR_MODEL: "1 to 100 letters, digits, dots, dashes and underscores, beginning with a letter",
    spec.DEVICE: "auto, cpu, cuda or cuda:0, cuda:1, …",
}
_OTHERS: Final[dict[str, Callable[[Mapping[str, Any], Any], tuple[str, str]]]] = {
    "missing": lambda _context, _given: ("required", "is required"),
    "finite_number": lambda _context, given: ("not_finite", f"must be a finite number; got {shown(given)}"),
    "literal_error": lambda context, given: (
        "not_one_of",
        f"must be {context['expected']}; got {shown(given)}",
    ),
    "union_tag_invalid": lambda context, _given: (
        "not_one_of",
        f"must be one of {context['expected_tags']}; got {shown(context['tag'])}",
    ),
    "union_tag_not_found": lambda _context, _given: ("required", "is required: it says which kind is meant"),
    "string_pattern_mismatch": lambda context, given: (
        "invalid_format",
        f"must be {_FORMATS.get(context['pattern'], 'like ' + context['pattern'])}; got {shown(given)}",
    ),
    "value_error": lambda context, _given: (
        "invalid",
        _printable(str(context.get("error", "is not valid")), MAX_MESSAGE),
    ),
}


def _unknown(location: Sequence[str | int], model: type[BaseModel] | None) -> tuple[str, str]:
    """Explain a parameter that a request does not take."""
    *place, key = location
    name = str(key)
    if model is not None and name in fixed_names(model, place):
        return "not_amendable", f"cannot be amended, only {AMENDABLE}; to change it, send a new job"
    names = allowed_names(model, place) if model is not None else []
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    known = f"; known here: {', '.join(names)}" if names else "; nothing can be given here"
    return "unknown_parameter", f"is not known{hint or known}"


def shown(value: Any) -> str:
    """Write a value that was sent, short enough for a message."""
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, list | tuple):
        return "an array"
    if value is None or isinstance(value, str | bool | int | float):
        text = json.dumps(value)
        return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"
    return type(value).__name__


def _printable(text: str, most: int = MAX_SHOWN) -> str:
    """Cut and clean a text that a caller chose, so that any JSON parser takes it."""
    clean = text.encode(errors="replace").decode()
    return clean if len(clean) <= most else f"{clean[:most]}…"
