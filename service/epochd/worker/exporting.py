"""Which files a trained job leaves beside its weights, and what they are checked with."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Final

from torch import nn

from epochd.datasets.preprocessing.rows import count, part_of
from epochd.errors import EpochdError, ExportError
from epochd.training import export as exports
from epochd.training.export import Check, Format, Measured, Trained
from epochd.training.weights import SavedFile
from epochd.worker.prepare import PreparedData, Split

log = logging.getLogger("epochd.runner")

MAX_ROWS: Final = 1024
MAX_VALUES: Final = 2**22
"""At most so many samples, and numbers of them, are checked at a time."""
MAX_TRAINING_ROWS: Final = 10_000
"""Of the training split, where nothing was held back for validation."""


@dataclass(frozen=True, slots=True)
class Exported:
    """How one export went: ``file`` and ``check``, or else ``code`` and ``message`` say why there is none.

    ``split`` is what it was checked on.
    """

    name: str
    split: str
    file: SavedFile | None = None
    check: Check | None = None
    code: str | None = None
    message: str | None = None

    @property
    def kind(self) -> str:
        """The event that tells of it."""
        return "export.failed" if self.file is None else "export.completed"

    def as_dict(self) -> dict[str, Any]:
        """The event's data, and what the receipt says, as JSON-ready values."""
        if self.file is None or self.check is None:
            return {"name": self.name, "code": self.code, "message": self.message}
        return {"name": self.name, "bytes": self.file.bytes, "split": self.split, **self.check.as_dict()}


class Exporter:
    """Exports one trained model; ``provenance`` goes into the files beside what the data says.

    ``data.preprocessing`` is what the model was trained with.
    """

    def __init__(self, model: nn.Module, data: PreparedData, provenance: Mapping[str, Any]) -> None:
        self._model = model
        self._data = data
        self._provenance = provenance
        self._split = "train" if data.validation is None else "validation"
        self._side = data.validation or _beginning(data.train, len(data.training.train))

    def export(self, kind: Format, folder: Path) -> Exported:
        """Write one file, or say why there is none; raises nothing, for it is no failure of the training."""
        try:
            file, check = exports.export(self._trained(), kind, folder, self._samples)
        except EpochdError as error:
            return self.failed(kind, error)
        except Exception:  # the weights are good, whatever is wrong here
            log.exception("the model could not be exported as %s", kind)
            return self.failed(kind, ExportError("Unexpected error in the worker; its log has the details."))
        return Exported(f"model.{kind}", self._split, file, check)

    def failed(self, kind: Format, error: EpochdError) -> Exported:
        """Say why there is no such file."""
        return Exported(f"model.{kind}", self._split, code=error.code, message=error.message)

    def _samples(self) -> Iterator[Measured]:
        """The split, some samples at a time, as it was measured and as training saw it."""
        raw, rows = self._side.open(), self._side.rows
        reading = self._data.preprocessing.reading(raw)
        size = max(1, min(MAX_ROWS, MAX_VALUES // max(prod(reading.shape), 1)))
        total = count(rows, len(raw))
        for start in range(0, total, size):
            part = part_of(rows, start, min(start + size, total))
            yield Measured(reading.inputs(part), reading.apply(part))

    def _trained(self) -> Trained:
        info, described = self._data.info, self._data.preprocessing.as_dict()
        metadata = {
            "task": info.task,
            "inputs": exports.described_inputs(described, next(self._samples()).inputs),
            "outputs": "class scores" if described["classes"] else "targets",
            "classes": described["classes"],
            "targets": list(info.target_names),
            "columns": [{"name": column.name, "type": column.type} for column in info.columns],
            "preprocessing": described,
            **self._provenance,
        }
        return Trained(self._model, described, metadata)


def _beginning(split: Split, samples: int) -> Split:
    return Split(split.open, part_of(split.rows, 0, min(samples, MAX_TRAINING_ROWS)))


def export_all(
    exporter: Exporter,
    kinds: Sequence[Format],
    folder: Path,
    *,
    tell: Callable[[Exported], None],
    must_end: Callable[[], bool],
) -> list[Exported]:
    """Make the exports that a job asks for, one after the other, and tell of each.

    Once the process must end, none is begun any more: seconds count then.
    """
    done = []
    for kind in dict.fromkeys(kinds):
        if must_end():
            message = "The worker was to end at once. `epochd export` makes the file from the weights."
            exported = exporter.failed(kind, ExportError(message, code="export_left_out"))
        else:
            exported = exporter.export(kind, folder)
        tell(exported)
        done.append(exported)
    return done
