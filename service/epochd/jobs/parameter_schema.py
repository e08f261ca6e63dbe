"""The parameters of an operator's model: checked against the JSON schema that its package published.

Draft 2020-12, whose references stay within the schema.
"""

import copy
import difflib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError, best_match

from epochd.errors import ParamError

Schema = Mapping[str, Any]

MAX_ERRORS: Final = 50
_SHOWN: Final = 80
_RESERVED: Final = "name"
_REFERENCE: Final = re.compile(r"#(/.*)?")
_TYPES: Final = {
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "string": "a string",
    "array": "an array",
    "object": "an object",
    "null": "null",
}
_BOUNDS: Final = {
    "minimum": "at least",
    "exclusiveMinimum": "greater than",
    "maximum": "at most",
    "exclusiveMaximum": "less than",
    "multipleOf": "a multiple of",
}
_LENGTHS: Final = {
    "minLength": ("too_short", "at least", "characters"),
    "maxLength": ("too_long", "at most", "characters"),
    "minItems": ("too_short", "at least", "entries"),
    "maxItems": ("too_long", "at most", "entries"),
    "minProperties": ("too_short", "at least", "entries"),
    "maxProperties": ("too_long", "at most", "entries"),
}


def require_usable(schema: Any) -> None:
    """Raise ValueError, which says why, for what cannot describe the parameters of a model.

    That is what is no JSON schema of an object, refers to what is elsewhere or not there, calls a parameter ``name``,
    or has a default that it would refuse itself.
    """
    if not isinstance(schema, dict) or schema.get("type") != "object":
        raise ValueError('the schema of its parameters has to be of the type "object"')
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        where = ".".join(str(key) for key in error.absolute_path)
        raise ValueError(f"the schema of its parameters is none: {where}: {error.message}") from None
    for reference in _references(schema):
        if not _REFERENCE.fullmatch(reference) or _resolved(schema, {"$ref": reference}) is None:
            raise ValueError(f"the schema of its parameters refers to {reference!r}, which is not in it")
    if _RESERVED in schema.get("properties", {}):
        raise ValueError("a parameter cannot be called 'name': that is the model's own")
    wrong = [one for one in problems(schema, filled(schema, {})) if one.code != "required"]
    if wrong:
        raise ValueError(f"the default of {wrong[0].param} {wrong[0].message}")


def filled(schema: Schema, values: Mapping[str, Any], root: Schema | None = None) -> dict[str, Any]:
    """Fill in the defaults of all parameters that were left out, within objects that were given, too."""
    root = schema if root is None else root
    complete = dict(values)
    for name, described in (schema.get("properties") or {}).items():
        inner = _resolved(root, described) or {}
        if name not in complete and "default" in (default := {**inner, **_of(described)}):
            complete[name] = copy.deepcopy(default["default"])
        if isinstance(complete.get(name), dict):
            complete[name] = filled(inner, complete[name], root)
    return complete


def problems(schema: Schema, values: Mapping[str, Any], prefix: str = "model") -> list[ParamError]:
    """List what is wrong with the values; none when they fit. ``prefix`` begins each parameter's dotted path."""
    found = sorted(Draft202012Validator(schema).iter_errors(values), key=_misspelt_first)
    return [problem for error in found for problem in _explained(error, prefix)][:MAX_ERRORS]


def _misspelt_first(error: ValidationError) -> tuple[bool, list[str]]:
    # A misspelt parameter explains why another is missing.
    return error.validator != "additionalProperties", [str(key) for key in error.absolute_path]


def _explained(error: ValidationError, prefix: str) -> Iterator[ParamError]:
    if error.context:
        error = best_match([error]) or error
    place = ".".join([prefix, *(str(key)[:_SHOWN] for key in error.absolute_path)])
    if error.validator == "additionalProperties" and error.validator_value is False:
        yield from _unknown(error, place)
    elif error.validator == "required":
        missing = [key for key in error.validator_value if key not in error.instance]
        # One error a key: this one is told of by its own.
        yield ParamError(f"{place}.{_named(error.message, missing)}", "is required", "required")
    else:
        code, message = _reason(error)
        yield ParamError(place, message, code)


def _named(message: str, names: Sequence[str]) -> str:
    return next((name for name in names if message.startswith(repr(name))), names[0])


def _unknown(error: ValidationError, place: str) -> Iterator[ParamError]:
    known = sorted(error.schema.get("properties", {}))
    for key in sorted(set(error.instance) - set(known)):
        close = difflib.get_close_matches(key, known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(known)}"
        message = f"is not known; {hint if known else 'nothing can be given here'}"
        yield ParamError(f"{place}.{key[:_SHOWN]}", message, "unknown_parameter")


def _reason(error: ValidationError) -> tuple[str, str]:
    kind, wanted, got = str(error.validator), error.validator_value, _shown(error.instance)
    if kind == "type":
        types = [wanted] if isinstance(wanted, str) else wanted
        return "wrong_type", f"must be {' or '.join(_TYPES[one] for one in types)}; got {got}"
    if kind in _BOUNDS:
        return "out_of_range", f"must be {_BOUNDS[kind]} {wanted:g}; got {got}"
    if kind in _LENGTHS:
        code, words, unit = _LENGTHS[kind]
        return code, f"must have {words} {wanted} {unit}"
    if kind in {"enum", "const"}:
        allowed = wanted if kind == "enum" else [wanted]
        return "not_one_of", f"must be {' or '.join(_shown(one) for one in allowed)}; got {got}"
    if kind == "pattern":
        return "invalid_format", f"must be like {wanted}; got {got}"
    return "invalid", f"does not fit the schema of `GET /v1/models` ({kind}); got {got}"


def _shown(value: Any) -> str:
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "an array"
    text = json.dumps(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _of(described: Any) -> Schema:
    return described if isinstance(described, dict) else {}


def _resolved(root: Schema, described: Any) -> Schema | None:
    """Follow references; None where one leads nowhere, or in a circle."""
    for _ in range(100):
        if not isinstance(described, dict) or "$ref" not in described:
            return _of(described)
        described = _pointed_at(root, described["$ref"])
        if described is None:
            return None
    return None


def _pointed_at(root: Schema, reference: str) -> Any:
    place: Any = root
    for part in reference.removeprefix("#").split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        if not isinstance(place, dict) or key not in place:
            return None
        place = place[key]
    return place


def _references(schema: Any) -> Iterator[str]:
    if isinstance(schema, list):
        for one in schema:
            yield from _references(one)
    elif isinstance(schema, dict):
        for key, value in schema.items():
            if key in {"$ref", "$dynamicRef"} and isinstance(value, str):
                yield value
            elif key not in {"default", "examples", "const", "enum"}:
                yield from _references(value)
