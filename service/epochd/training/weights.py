"""Weights on disk: ``model.safetensors`` and ``model.json``, from which torch alone rebuilds the model."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import safetensors.torch
from torch import Tensor, nn

from epochd.training import durable
from epochd.training.models import build

WEIGHTS = "model.safetensors"
DESCRIPTION = "model.json"
LAST = "last.safetensors"
"""The weights after the last iteration, beside better ones: for jobs that start from them."""
FORMAT_VERSION = 1
MEDIA_TYPES = {WEIGHTS: "application/octet-stream", DESCRIPTION: "application/json"}


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
    durable.write_files(
        folder, {name: _writer(content) for name, content in contents.items()}, what="the weights"
    )
    return [_saved_file(folder / name, content) for name, content in contents.items()]


def load(folder: Path) -> tuple[nn.Module, dict[str, Any]]:
    """The model in evaluation mode on the CPU, and its description.

    Raises OSError, and ValueError for a damaged file.
    """
    description: dict[str, Any] = json.loads((folder / DESCRIPTION).read_bytes())
    model = build(description["architecture"])
    model.load_state_dict(load_tensors(folder / WEIGHTS))
    return model.eval(), description


def save_last(folder: Path, model: nn.Module) -> None:
    """Write the weights in ``model`` as those after the last iteration; raises what ``save`` does."""
    durable.write_files(folder, {LAST: _writer(_weights_bytes(model))}, what="the last weights")


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file onto the CPU. Raises OSError, and ValueError for another file."""
    try:
        return safetensors.torch.load_file(path)
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path.name} is no safetensors file: {error}") from error


def _weights_bytes(model: nn.Module) -> bytes:
    # Cloned one by one: the parameters are views of one tensor, which safetensors does not take.
    tensors = {
        name: tensor.detach().cpu().clone().contiguous() for name, tensor in model.state_dict().items()
    }
    return safetensors.torch.save(tensors, metadata={"format": "pt"})


def _writer(content: bytes) -> durable.Write:
    def write(file: BinaryIO) -> None:
        file.write(content)

    return write


def _saved_file(path: Path, content: bytes) -> SavedFile:
    digest = hashlib.sha256(content).hexdigest()
    return SavedFile(path.name, path, MEDIA_TYPES[path.name], len(content), digest)
