"""A spec from a file, from flags, and from fields by their paths."""

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from epochd.errors import ConfigurationError


class _Loader(yaml.SafeLoader):
    """YAML as people write numbers: 1e-3, which YAML 1.1 takes for text, is one, as in YAML 1.2 and in JSON."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)


def given(file: Path | None, flags: Mapping[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """Join them: flags go before the file, and ``FIELD=VALUE`` before both.

    Raises ConfigurationError, which says what is wrong with which.
    """
    spec = {} if file is None else _read(file)
    for path, value in flags.items():
        if value is not None:
            _put(spec, path, value)
    for one in settings:
        path, equals, value = one.partition("=")
        if not equals or not path:
            raise ConfigurationError(
                f"--set: {one!r} is no FIELD=VALUE, such as optimizer.learning_rate=0.01"
            )
        _put(spec, path, _value(value))
    # What has parts needs a name; of these the service has one that is usual.
    if "optimizer" in spec and isinstance(spec["optimizer"], dict):
        spec["optimizer"].setdefault("name", "adamw")
    return spec


def _read(file: Path) -> dict[str, Any]:
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
        # JSON is YAML, but for tabs.
        spec = json.loads(text) if text.lstrip().startswith("{") else yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    except OSError as error:
        raise ConfigurationError(f"{file}: {error.strerror}") from None
    except (ValueError, yaml.YAMLError) as error:
        raise ConfigurationError(f"{file} is neither JSON nor YAML: {' '.join(str(error).split())}") from None
    if not isinstance(spec, dict):
        raise ConfigurationError(
            f"{file} holds no spec: it has to be an object with dataset, epochs and batch_size"
        )
    return spec


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _put(spec: dict[str, Any], path: str, value: Any) -> None:
    *parents, name = path.split(".")
    at = spec
    for parent in parents:
        below = at.setdefault(parent, {})
        if isinstance(below, str) and parent in {"model", "dataset", "optimizer", "schedule"}:
            below = at[parent] = {"name": below}
        if not isinstance(below, dict):
            raise ConfigurationError(f"{path}: {parent} is {json.dumps(below)}, which has no fields")
        at = below
    at[name] = value
