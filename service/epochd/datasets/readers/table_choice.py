"""Which columns of a table are predicted, and from which: as its owner says, or by their names."""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from epochd.datasets.readers.table_columns import forms_of
from epochd.datasets.readers.table_scan import Table
from epochd.datasets.reading import Options, Source
from epochd.errors import InvalidDatasetError

TARGET_NAMES: Final = ("target", "label", "class", "y")
_SHOWN: Final = 20


@dataclass(frozen=True, slots=True)
class Choice:
    """``given`` tells that the owner named the features."""

    target: tuple[str, ...]
    features: tuple[str, ...]
    given: bool
    notes: tuple[dict[str, str], ...]


def choose(table: Table, options: Options) -> Choice:
    """Settle target and features.

    Raises InvalidDatasetError: ``unknown_target``, ``unknown_feature``, ``repeated_target``, ``repeated_feature``,
    ``target_is_feature``, ``no_features``, ``unsupported_column``.
    """
    names, source = list(table.schema), table.source
    target = options.target or _named_target(names)
    notes = () if options.target else (_target_note(target[0]),)
    _check_known(target, names, source, "target")
    features = options.features or tuple(name for name in names if name not in target)
    _check_known(features, names, source, "feature")
    _check_apart(target, features, source)
    if not features:
        raise _no_features(source, table, target)
    _check_types(table, (*target, *features))
    return Choice(target, features, options.features is not None, notes)


def shown(values: Iterable[object]) -> str:
    """Give the first names of a list that may be long, for a message."""
    texts = [repr(value) for value in values]
    more = f" and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else ""
    return ", ".join(texts[:_SHOWN]) + more


def _named_target(names: Sequence[str]) -> tuple[str]:
    lowered = {name.lower(): name for name in reversed(names)}
    found = [lowered[name] for name in TARGET_NAMES if name in lowered]
    return (found[0] if found else names[-1],)


def _target_note(name: str) -> dict[str, str]:
    why = "for its name" if name.lower() in TARGET_NAMES else "as it is the last"
    message = f"The column {name!r} is the target, {why}; send target to choose another."
    return {"code": "target_inferred", "message": message}


def _check_known(chosen: Sequence[str], names: Sequence[str], source: Source, what: str) -> None:
    param = "target" if what == "target" else "features"
    for place, name in enumerate(chosen):
        if name in chosen[:place]:
            message = f"The {what} {name!r} is named twice; name each column once."
            raise InvalidDatasetError(message, f"repeated_{what}", param=param, file=source.name, column=name)
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1)
            guess = f" Did you mean {close[0]!r}?" if close else ""
            message = f"{source.name!r} has no column {name!r} ({what}).{guess} It has: {shown(names)}."
            raise InvalidDatasetError(message, f"unknown_{what}", param=param, file=source.name, column=name)


def _check_apart(target: Sequence[str], features: Sequence[str], source: Source) -> None:
    for name in features:
        if name in target:
            message = f"The column {name!r} is target and feature at once; leave it out of the features."
            raise InvalidDatasetError(
                message, "target_is_feature", param="features", file=source.name, column=name
            )


def _no_features(source: Source, table: Table, target: Sequence[str]) -> InvalidDatasetError:
    separators = " Separators looked for are comma, semicolon, tab, | and a space." if not table.typed else ""
    message = (
        f"{source.name!r} has no column beside the target {shown(target)} that it could be predicted from."
    )
    return InvalidDatasetError(message + separators, "no_features", file=source.name)


def _check_types(table: Table, columns: Sequence[str]) -> None:
    for name in columns:
        dtype = table.schema[name]
        if not forms_of(dtype, typed=table.typed, separator=table.separator):
            what = "nested" if dtype.is_nested() else "not of a type that can be read"
            raise InvalidDatasetError(
                f"The column {name!r} of {table.source.name!r} is {what} ({dtype}); columns are numbers, booleans, "
                "dates or text: unnest it, or leave it out by naming the features.",
                "unsupported_column",
                file=table.source.name,
                column=name,
            )
