"""The receipt of a training: all that its result depends on, as ``receipt.json`` beside the weights.

Two receipts with the same ``inputs`` and ``environment``, both on CPU, have the same weights, bit for bit.
"""

import hashlib
import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import torch

from epochd.contract.models import OperatorModel
from epochd.contract.spec import JobSpec
from epochd.datasets.preprocessing.rows import Rows
from epochd.store.amendments import AmendmentRow
from epochd.training import durable, operator_package
from epochd.training.events import Selection
from epochd.training.trainer import Trainer
from epochd.training.weights import SavedFile
from epochd.version import __version__
from epochd.worker.order import AttemptOrder
from epochd.worker.prepare import PreparedData

RECEIPT: Final = "receipt.json"
FORMAT_VERSION: Final = 1
MEDIA_TYPE: Final = "application/json"
_AT_ONCE: Final = 2**20
_LIBRARIES: Final = ("numpy", "torch", "torchmetrics", "safetensors", "polars", "pillow", "scikit-learn")


@dataclass(frozen=True, slots=True)
class Ending:
    """How an attempt ended: ``files`` are the artifacts with the weights, ``exports`` what became of each export."""

    status: str
    stop_reason: str | None
    selection: Selection
    files: Sequence[SavedFile]
    exports: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True, slots=True)
class Background:
    """What an attempt came from: the checkpoint that it resumed from, and the weights that training began with.

    ``amendments`` are all that were asked for so far; some may not have taken effect.
    """

    restored: Mapping[str, Any] | None = None
    starts_from: Mapping[str, Any] | None = None
    amendments: Sequence[AmendmentRow] = ()


def save(  # noqa: PLR0913 - what an attempt was told, had, came from and came to, the last two by name
    folder: Path,
    order: AttemptOrder,
    data: PreparedData,
    trainer: Trainer,
    *,
    background: Background,
    ending: Ending,
) -> SavedFile:
    """Write the receipt into ``folder``.

    Raises InfrastructureError ``disk_full`` or ``data_dir_not_writable``, leaving nothing half-written.
    """
    spec = JobSpec.model_validate(order.spec)
    receipt = {
        "format_version": FORMAT_VERSION,
        "job": {"id": order.job_id, "attempt": order.attempt},
        "inputs": _inputs(order, spec, data)
        | {
            "starts_from": background.starts_from,
            "amendments": _applied(background.amendments, trainer),
        },
        "environment": _environment(spec, trainer),
        "restored": background.restored,
        "micro_batch_size": trainer.micro_batches.size,
        "result": _result(trainer, ending),
    }
    content = json.dumps(receipt, indent=2, allow_nan=False).encode() + b"\n"
    durable.write_files(folder, {RECEIPT: partial(_write, content)}, what="the receipt")
    digest = hashlib.sha256(content).hexdigest()
    return SavedFile(RECEIPT, folder / RECEIPT, MEDIA_TYPE, len(content), digest)


def _write(content: bytes, file: BinaryIO) -> None:
    file.write(content)


def _inputs(order: AttemptOrder, spec: JobSpec, data: PreparedData) -> dict[str, Any]:
    return {
        "spec": order.spec,
        "seed": spec.seed,
        "dataset": {"name": data.info.name, "digest": data.digest, "samples": data.info.samples},
        "validation_dataset": _validation_dataset(spec, data),
        "split": _split(data),
    }


def _applied(asked: Sequence[AmendmentRow], trainer: Trainer) -> list[dict[str, Any]]:
    """The amendments that took effect, and after which epoch and iteration; others changed nothing."""
    where = trainer.amended_at
    return [
        {
            "field": one.field,
            "value": one.value,
            "epoch": where[one.number][0],
            "iteration": where[one.number][1],
        }
        for one in asked
        if one.number in where
    ]


def _validation_dataset(spec: JobSpec, data: PreparedData) -> dict[str, Any] | None:
    if spec.validation is None or spec.validation.dataset is None or data.validation is None:
        return None
    other = data.validation.open()
    return {"name": other.info.name, "digest": other.digest, "samples": other.info.samples}


def _split(data: PreparedData) -> dict[str, Any]:
    train, held_back = len(data.training.train), data.training.validation
    validation = 0 if held_back is None else len(held_back)
    rows = None if data.validation is None else data.validation.rows
    digest = split_digest((data.train.rows, train), (rows, validation))
    return {"train_samples": train, "validation_samples": validation, "digest": digest}


def split_digest(*sides: tuple[Rows | None, int]) -> str:
    """SHA-256 over which samples are on which side, in their order.

    Of each side, given with its size: the size, and the samples' numbers in the data set, as little-endian int64.
    """
    digest = hashlib.sha256()
    for rows, samples in sides:
        digest.update(np.array(samples, "<i8").tobytes())
        for begin in range(0, samples, _AT_ONCE):
            span = np.arange(begin, min(begin + _AT_ONCE, samples), dtype="<i8")
            taken = rows[span] if isinstance(rows, np.ndarray) else span + _start(rows)
            digest.update(taken.astype("<i8").tobytes())
    return f"sha256:{digest.hexdigest()}"


def _start(rows: slice | None) -> int:
    return 0 if rows is None else rows.start or 0


def _environment(spec: JobSpec, trainer: Trainer) -> dict[str, Any]:
    return {
        "epochd": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "packages": {name: version for name in _LIBRARIES if (version := _version(name)) is not None},
        "model_package": _model_package(spec),
        "device": _device(trainer.device),
        "threads": torch.get_num_threads(),
        "determinism": _determinism(trainer.device),
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _model_package(spec: JobSpec) -> dict[str, str] | None:
    if not isinstance(spec.model, OperatorModel):
        return None
    return operator_package.load(spec.model.name).package


def _device(device: torch.device) -> dict[str, Any]:
    if device.type != "cuda":
        return {"name": device.type, "model": torch.backends.cpu.get_cpu_capability()}
    properties = torch.cuda.get_device_properties(device)
    return {
        "name": str(device),
        "model": properties.name,
        "memory_bytes": properties.total_memory,
        "capability": f"{properties.major}.{properties.minor}",
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
    }


def _determinism(device: torch.device) -> dict[str, Any]:
    """What was done for repeatable results, and how far that goes on this device."""
    return {
        "bit_exact": device.type == "cpu",
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
        "cudnn_deterministic": torch.backends.cudnn.deterministic,
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "cublas_workspace_config": os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
    }


def _result(trainer: Trainer, ending: Ending) -> dict[str, Any]:
    last = trainer.last_epoch
    return {
        "status": ending.status,
        "stop_reason": ending.stop_reason,
        "epochs": trainer.epochs_completed,
        "iterations": trainer.position.iteration,
        "metrics": {} if last is None else dict(last.metrics),
        "selected": ending.selection.as_dict(),
        "files": {file.name: f"sha256:{file.sha256}" for file in ending.files},
        "exports": [dict(one) for one in ending.exports],
    }
