"""What the API asks of the process that reads a data set, and what that answers: each one line of JSON."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

from epochd.datasets.reading import Limits, Options


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that was received: where it lies, and the name it came with."""

    path: Path
    name: str


@dataclass(frozen=True, slots=True)
class Reference:
    """A data set somewhere else.

    ``epochd.intake.fetch.fetch(url, accepted, folder, max_bytes) -> Source`` brings it into ``folder``, which is there
    and empty, as one file.
    """

    url: str


@dataclass(frozen=True, slots=True)
class Order:
    """Read this, in this way, into the folder ``data`` of ``folder``; what is fetched lies in ``fetched`` there.

    ``accepted_sources`` are the prefixes of addresses that may be fetched from, ``max_bytes`` is the largest file.
    ``memory_bytes`` is what the process may take, None without a limit.
    """

    source: Upload | Reference
    options: Options
    limits: Limits
    folder: Path
    accepted_sources: tuple[str, ...] = ()
    max_bytes: int = 10 * 2**30
    memory_bytes: int | None = None

    @property
    def data(self) -> Path:
        """The folder of the arrays."""
        return self.folder / "data"

    @property
    def fetched(self) -> Path:
        """The folder of what was fetched."""
        return self.folder / "fetched"

    def as_json(self) -> str:
        """One line that ``from_json`` reads."""
        return json.dumps(asdict(self), default=str)

    @classmethod
    def from_json(cls, line: str) -> Self:
        """Read what ``as_json`` wrote."""
        values = json.loads(line)
        source = values["source"]
        return cls(
            source=Reference(source["url"])
            if "url" in source
            else Upload(Path(source["path"]), source["name"]),
            options=Options(**_tupled(values["options"], "target", "features", "image_size")),
            limits=Limits(**values["limits"]),
            folder=Path(values["folder"]),
            **_tupled({name: values[name] for name in _PLAIN}, "accepted_sources"),
        )


_PLAIN = tuple(
    field.name for field in fields(Order) if field.name not in {"source", "options", "limits", "folder"}
)


def _tupled(values: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {
        name: tuple(value) if name in names and value is not None else value for name, value in values.items()
    }
