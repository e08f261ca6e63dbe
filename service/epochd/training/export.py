"""Files that run without epochd: ``model.pt2`` (torch.export) and ``model.onnx``, checked before they are kept.

torch.export and onnx are loaded when an export is asked for: they take seconds.
"""

import copy
import hashlib
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from epochd.errors import ExportError, OutOfMemoryError
from epochd.training import device as devices
from epochd.training import durable
from epochd.training.portable import Portable, input_names
from epochd.training.weights import SavedFile

log = logging.getLogger("epochd.training")

Format = Literal["pt2", "onnx"]
Array = npt.NDArray[Any]
Inputs = Mapping[str, Array]
Predict = Callable[[Inputs], Array]

METADATA: Final = "epochd.json"
"""The extra file of a ``.pt2`` that says what goes in and what comes out."""
OUTPUT: Final = "output"
TOLERANCE: Final = 1e-4
MAX_ONNX_BYTES: Final = 2**31 - 1
_CONSTANT: Final = "specialized it to be a constant"
EXAMPLES: Final = 3
"""Samples that the model is traced with; with one, torch.export would take the number for fixed."""


@dataclass(frozen=True, slots=True)
class Trained:
    """A trained model, and how its data was preprocessed: what ``Preprocessing.as_dict()`` gave, version 2.

    ``metadata`` goes into the files.
    """

    model: nn.Module
    preprocessing: Mapping[str, Any]
    metadata: Mapping[str, Any]


def described_inputs(preprocessing: Mapping[str, Any], inputs: Inputs) -> list[dict[str, Any]]:
    """Describe the inputs of an exported model, in their order: name, type, and shape with ``samples`` first."""
    return [
        {"name": name, "dtype": str(inputs[name].dtype), "shape": ["samples", *inputs[name].shape[1:]]}
        for name in input_names(preprocessing)
    ]


@dataclass(frozen=True, slots=True)
class Measured:
    """Some samples, as they were measured and as training saw them: ``x`` float32 or int32 (n, *input_shape)."""

    inputs: Inputs
    x: Array


@dataclass(frozen=True, slots=True)
class Check:
    """How far a file's outputs are from the trained model's, over ``samples`` samples.

    Both differences are in units of the output: for regression those of the target, for classification scores.
    The largest one that is tolerated is 0.0001 times the largest output or, if that is more, times one standard
    deviation of the target (for scores: 1).
    """

    samples: int
    largest_difference: float
    tolerance: float

    def as_dict(self) -> dict[str, Any]:
        """The same as JSON-ready values."""
        return {
            "samples": self.samples,
            "largest_difference": self.largest_difference,
            "tolerance": self.tolerance,
        }


def export(
    trained: Trained, kind: Format, folder: Path, samples: Callable[[], Iterable[Measured]]
) -> tuple[SavedFile, Check]:
    """Write ``model.pt2`` or ``model.onnx`` into ``folder``, if it predicts what the trained model does.

    ``samples`` gives those to check with, in parts that fit into memory, the same each time it is called. Raises
    ExportError when the model cannot be exported or the file does something else; InfrastructureError as
    ``durable.write_files``, and OutOfMemoryError. Then there is no file.
    """
    first = next(iter(samples()), None)
    if first is None:
        raise ExportError("There are no samples to check an export with.")
    with _failures(kind), devices.memory_errors():
        content = _FORMATS[kind].write(_portable(trained), first.inputs, trained.metadata)
        check = _check(trained, _FORMATS[kind].read(content), samples())
    if not check.largest_difference <= check.tolerance:  # NaN is no match either
        raise ExportError(_mismatch(kind, check), code="export_differs")
    name = f"model.{kind}"
    durable.write_files(folder, {name: lambda file: _write(file, content)}, what=f"the export {name}")
    digest = hashlib.sha256(content).hexdigest()
    return SavedFile(name, folder / name, "application/octet-stream", len(content), digest), check


def _write(file: Any, content: bytes) -> None:
    file.write(content)


def _mismatch(kind: Format, check: Check) -> str:
    return (
        f"model.{kind} was not kept: over {check.samples} samples its outputs differ from the trained model's by up "
        f"to {check.largest_difference:.3g}, more than the tolerated {check.tolerance:.3g}."
    )


@contextmanager
def _failures(kind: Format) -> Iterator[None]:
    """Turn whatever torch.export, onnx or a model's own code raise into ExportError; the log has the details."""
    noisy = logging.getLogger("torch.onnx")
    level = noisy.level
    noisy.setLevel(logging.ERROR)  # it tells of packages that nobody needs
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    except (ExportError, OutOfMemoryError):
        raise
    except Exception as error:
        log.exception("the model could not be exported as %s", kind)
        lines = str(error).strip().splitlines()
        reason = lines[0][:300] if lines else type(error).__name__
        if _CONSTANT in str(error):
            reason = "it takes the number of samples for a constant; x.shape[0] is none, len(x) is"
        raise ExportError(f"The model could not be exported as {kind}: {reason}") from error
    finally:
        noisy.setLevel(level)


def _portable(trained: Trained) -> Portable:
    # A copy, in plain memory: the trained model's parameters are views of one tensor, perhaps on another device.
    model = copy.deepcopy(trained.model).cpu()
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = tensor.data.contiguous()
    return Portable(model, trained.preprocessing)


def _check(trained: Trained, predict: Predict, parts: Iterable[Measured]) -> Check:
    samples, difference, extreme = 0, 0.0, _unit(trained.preprocessing)
    for part in parts:
        expected, found = _expected(trained, part.x), predict(part.inputs)
        if found.shape != expected.shape:
            raise ExportError(
                f"The exported model gives outputs of shape {found.shape}, not {expected.shape}.",
                code="export_differs",
            )
        samples += len(expected)
        if not (np.isfinite(found).all() and np.isfinite(expected).all()):  # nothing to compare by
            difference = float("nan")
            break
        difference = max(difference, float(np.abs(found - expected).max()))
        extreme = max(extreme, float(np.abs(expected).max()))
    return Check(samples, difference, TOLERANCE * extreme)


def _unit(preprocessing: Mapping[str, Any]) -> float:
    scale = preprocessing["target_scale"]
    return float(np.max(scale)) if scale else 1.0


@torch.no_grad()
def _expected(trained: Trained, x: Array) -> Array:
    """What the trained model says, where it was trained, in the units of the target."""
    trained.model.eval()
    device = next(trained.model.parameters()).device
    outputs: Array = trained.model(torch.as_tensor(x).to(device)).float().cpu().numpy()
    if not trained.preprocessing["target_scale"]:
        return outputs
    scale = np.asarray(trained.preprocessing["target_scale"], np.float32)
    in_units: Array = outputs * scale + np.asarray(trained.preprocessing["target_mean"], np.float32)
    return in_units


def _program(portable: Portable, inputs: Inputs) -> torch.export.ExportedProgram:
    examples = tuple(_example(inputs[name]) for name in portable.input_names)
    count = torch.export.Dim("samples")
    shapes = (tuple({0: count} for _ in examples),)
    return torch.export.export(portable, examples, dynamic_shapes=shapes)


def _example(values: Array) -> Tensor:
    return torch.as_tensor(np.ascontiguousarray(np.resize(values, (EXAMPLES, *values.shape[1:]))))


def _write_pt2(portable: Portable, inputs: Inputs, metadata: Mapping[str, Any]) -> bytes:
    buffer = io.BytesIO()
    extra = {METADATA: json.dumps(metadata, allow_nan=False)}
    torch.export.save(_program(portable, inputs), buffer, extra_files=extra)
    return buffer.getvalue()


def _read_pt2(content: bytes) -> Predict:
    extra = {METADATA: ""}
    program = torch.export.load(io.BytesIO(content), extra_files=extra)
    names = [described["name"] for described in json.loads(extra[METADATA])["inputs"]]
    model = program.module()

    @torch.no_grad()
    def predict(inputs: Inputs) -> Array:
        found: Array = model(*(torch.as_tensor(inputs[name]) for name in names)).numpy()
        return found

    return predict


def _write_onnx(portable: Portable, inputs: Inputs, metadata: Mapping[str, Any]) -> bytes:
    program = torch.onnx.export(
        _program(portable, inputs),
        input_names=list(portable.input_names),
        output_names=[OUTPUT],
        dynamo=True,
        verbose=False,
    )
    assert program is not None, "dynamo gives a program"
    program.model.metadata_props.update(_as_texts(metadata))
    model = program.model_proto
    if model.ByteSize() > MAX_ONNX_BYTES:
        raise ExportError("The model is larger than 2 GiB, which one ONNX file cannot hold.")
    content: bytes = model.SerializeToString()
    return content


def _as_texts(metadata: Mapping[str, Any]) -> dict[str, str]:
    """ONNX keeps a text for each key: what is no text becomes JSON."""
    return {
        key: value if isinstance(value, str) else json.dumps(value, allow_nan=False)
        for key, value in metadata.items()
    }


def _read_onnx(content: bytes) -> Predict:
    import onnxruntime  # type: ignore[import-untyped]  # noqa: PLC0415 - see the module

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def predict(inputs: Inputs) -> Array:
        found: Array = session.run([OUTPUT], dict(inputs))[0]
        return found

    return predict


@dataclass(frozen=True, slots=True)
class _FileFormat:
    write: Callable[[Portable, Inputs, Mapping[str, Any]], bytes]
    read: Callable[[bytes], Predict]


_FORMATS: Final[dict[Format, _FileFormat]] = {
    "pt2": _FileFormat(_write_pt2, _read_pt2),
    "onnx": _FileFormat(_write_onnx, _read_onnx),
}
