"""Weights on disk: ``model.safetensors`` and ``model.json``, from which torch alone rebuilds the model."""

import contextlib
import errno
import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import nn

from epochd.errors import InfrastructureError
from epochd.training.models import build

log = logging.getLogger("epochd.training")

WEIGHTS = "model.safetensors"
DESCRIPTION = "model.json"
FORMAT_VERSION = 1
MEDIA_TYPES = {WEIGHTS: "application/octet-stream", DESCRIPTION: "application/json"}
DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@dataclass(frozen=True, slots=True)
class SavedFile:
    """A file on disk; ``sha256`` is the digest of its content in hex."""

    name: str
    path: Path
    media_type: str
    bytes: int
    sha256: str


def save(  # noqa: PLR0913 - each is one fact of the description, all but the first two by name
    folder: Path,
    model: nn.Module,
    *,
    architecture: Sequence[Mapping[str, Any]],
    preprocessing: Mapping[str, Any],
    classes: Sequence[str] | None,
    task: str,
    input_shape: Sequence[int],
    selection: Mapping[str, Any],
    extra: Mapping[str, Any],
) -> list[SavedFile]:
    """Write the weights and their description into ``folder``, which is made if need be.

    Both files are complete on disk before either gets its name; the description comes last. ``extra`` is
    merged into the description. Raises InfrastructureError ``disk_full`` or ``data_dir_not_writable``,
    leaving nothing half-written.
    """
    description = {
        "format_version": FORMAT_VERSION,
        "task": task,
        "input_shape": list(input_shape),
        "classes": None if classes is None else list(classes),
        "architecture": [dict(layer) for layer in architecture],
        "preprocessing": dict(preprocessing),
        "selection": dict(selection),
        **extra,
    }
    contents = {
        WEIGHTS: _weights_bytes(model),
        DESCRIPTION: json.dumps(description, indent=2, allow_nan=False).encode() + b"\n",
    }
    with _disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        _write_atomically(folder, contents)
    return [_saved_file(folder / name, content) for name, content in contents.items()]


def load(folder: Path) -> tuple[nn.Sequential, dict[str, Any]]:
    """The model in evaluation mode on the CPU, and its description. Raises FileNotFoundError."""
    description: dict[str, Any] = json.loads((folder / DESCRIPTION).read_bytes())
    model = build(description["architecture"])
    model.load_state_dict(safetensors.torch.load_file(folder / WEIGHTS))
    return model.eval(), description


def _weights_bytes(model: nn.Module) -> bytes:
    # Cloned one by one: the parameters are views of one tensor, which safetensors does not take.
    tensors = {
        name: tensor.detach().cpu().clone().contiguous() for name, tensor in model.state_dict().items()
    }
    return safetensors.torch.save(tensors, metadata={"format": "pt"})


def _saved_file(path: Path, content: bytes) -> SavedFile:
    digest = hashlib.sha256(content).hexdigest()
    return SavedFile(path.name, path, MEDIA_TYPES[path.name], len(content), digest)


def _write_atomically(folder: Path, contents: Mapping[str, bytes]) -> None:
    temporary = {name: folder / f".{name}.{os.getpid()}.tmp" for name in contents}
    try:
        for name, content in contents.items():
            _write_durably(temporary[name], content)
        for name, path in temporary.items():
            path.replace(folder / name)
        # The two above may be as new as this one: the job's, and that of all artifacts.
        for changed in (folder, folder.parent, folder.parent.parent):
            _sync_folder(changed)
    finally:
        for path in temporary.values():
            path.unlink(missing_ok=True)


def _write_durably(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in DISK_FULL:
            message = (
                "The disk that holds the worker's data directory is full; free some space, then try again."
            )
            raise InfrastructureError(message, code="disk_full") from error
        log.exception("the weights could not be written to %s", folder)
        message = f"The worker could not write the weights into its data directory: {error.strerror}."
        raise InfrastructureError(message, code="data_dir_not_writable") from error
