"""Files that run without epochd, in processes that do not have it."""

import json
import subprocess
import sys

import numpy as np
import onnx
import pytest
import torch
from tests.training.test_portable import images, table, texts
from torch import nn

from epochd.datasets.encoding import encoded
from epochd.datasets.info import DatasetInfo
from epochd.datasets.preprocessing import Preprocessing
from epochd.datasets.raw import RawData
from epochd.errors import ExportError
from epochd.training.architecture import layers
from epochd.training.config import DataShape, ModelConfig
from epochd.training.export import METADATA, Measured, Trained, described_inputs, export
from epochd.training.models import build
from epochd.training.parameters import FlatParameters

TORCH = """
import json, sys
sys.modules["epochd"] = sys.modules["onnxruntime"] = None
import numpy as np, torch
for folder in sys.argv[1:]:
    extra = {"epochd.json": ""}
    model = torch.export.load(folder + "/model.pt2", extra_files=extra).module()
    names = [one["name"] for one in json.loads(extra["epochd.json"])["inputs"]]
    given = np.load(folder + "/inputs.npz")
    for samples in (1, 2, 6):
        with torch.no_grad():
            outputs = model(*(torch.from_numpy(given[name][:samples]) for name in names))
        np.save(f"{folder}/{samples}.npy", outputs.numpy())
"""
ONNX = """
import sys
sys.modules["epochd"] = sys.modules["torch"] = None
import numpy as np, onnxruntime
for folder in sys.argv[1:]:
    session = onnxruntime.InferenceSession(folder + "/model.onnx", providers=["CPUExecutionProvider"])
    given = np.load(folder + "/inputs.npz")
    for samples in (1, 2, 6):
        inputs = {one.name: given[one.name][:samples] for one in session.get_inputs()}
        np.save(f"{folder}/{samples}.npy", session.run(None, inputs)[0])
"""


def prices():
    random = np.random.default_rng(0)
    info = DatasetInfo("prices", "regression", 30, (4,), None, 1, "", "array")
    x = random.normal(5, 3, (30, 4)).astype(np.float32)
    y = (x[:, :1] * 1000 + 50_000).astype(np.float32)
    raw = RawData(info, {"x": x}, y, "")
    return raw, Preprocessing.fit(raw, np.arange(20), encoded(info, "one_hot"))


MODELS = {
    "linear": (prices, {}),
    "mlp": (lambda: table("one_hot"), {"batch_norm": True, "dropout": 0.5, "hidden_sizes": (8,)}),
    "cnn": (images, {"channels": (4,), "batch_norm": True}),
    "resnet": (images, {"width": 8}),
    "tabular_resnet": (lambda: table("one_hot"), {"width": 8, "blocks": 1}),
    "ft_transformer": (lambda: table("codes"), {"width": 8, "heads": 2, "blocks": 1}),
    "text_classifier": (texts, {"width": 8, "heads": 2, "blocks": 1}),
}


def shape_of(name, raw):
    codes = encoded(raw.info, "codes" if name == "ft_transformer" else "one_hot")
    if raw.info.kind == "text":
        codes = encoded(raw.info, "one_hot", vocabulary_size=12, sequence_length=6)
    return DataShape(raw.info.kind, codes.input_shape, raw.info.outputs, codes.categories, codes.vocabulary)


def make_model(name, parameters, raw, preprocessing):
    torch.manual_seed(0)
    model = build(layers(ModelConfig(name, shape_of(name, raw), parameters)))
    FlatParameters(model)
    # The statistics of normalisations are not the initial ones, as after a training.
    model.train()(torch.as_tensor(preprocessing.apply(raw)))
    return model.eval()


def trained(model, raw, preprocessing):
    described = preprocessing.as_dict()
    inputs = described_inputs(described, preprocessing.inputs(raw))
    return Trained(
        model, described, {"task": raw.info.task, "inputs": inputs, "classes": described["classes"]}
    )


def in_parts(raw, preprocessing):
    """Samples in uneven parts, the first of one."""

    def samples():
        for start, stop in ((0, 1), (1, 4), (4, len(raw))):
            rows = np.arange(start, stop)
            yield Measured(preprocessing.inputs(raw, rows), preprocessing.apply(raw, rows))

    return samples


def expected_of(model, raw, preprocessing):
    with torch.no_grad():
        outputs = model(torch.as_tensor(preprocessing.apply(raw))).numpy()
    if preprocessing.target_scale is None:
        return outputs
    return outputs * preprocessing.target_scale + preprocessing.target_mean


@pytest.mark.parametrize(("kind", "script"), [("pt2", TORCH), ("onnx", ONNX)])
def test_a_process_without_epochd_predicts_the_same(kind, script, tmp_path):
    expected = {name: exported(name, kind, tmp_path / name) for name in MODELS}
    folders = [str(tmp_path / name) for name in MODELS]
    subprocess.run([sys.executable, "-c", script, *folders], check=True, cwd=tmp_path, timeout=100)
    for name, (outputs, tolerance) in expected.items():
        for samples in (1, 2, 6):
            found = np.load(tmp_path / name / f"{samples}.npy")
            assert found.shape == (samples, outputs.shape[1])
            np.testing.assert_allclose(found, outputs[:samples], rtol=0, atol=tolerance, err_msg=name)


def exported(name, kind, folder):
    """Export a model, put what it takes beside it, and give what it should say, and how far off it may be."""
    made, parameters = MODELS[name]
    raw, preprocessing = made()
    model = make_model(name, parameters, raw, preprocessing)
    file, check = export(trained(model, raw, preprocessing), kind, folder, in_parts(raw, preprocessing))
    assert file.bytes == (folder / f"model.{kind}").stat().st_size
    assert check.samples == len(raw)
    assert 0 <= check.largest_difference <= check.tolerance
    np.savez(folder / "inputs.npz", **preprocessing.inputs(raw))
    return expected_of(model, raw, preprocessing), check.tolerance


@pytest.fixture
def linear():
    raw, preprocessing = prices()
    model = make_model("linear", {}, raw, preprocessing)
    return model, raw, preprocessing


def test_the_model_itself_is_left_as_it_was(linear, tmp_path):
    model, raw, preprocessing = linear
    before = [parameter.clone() for parameter in model.parameters()]
    export(trained(model, raw, preprocessing), "pt2", tmp_path, in_parts(raw, preprocessing))
    assert all(one.requires_grad for one in model.parameters())
    assert all(one.equal(other) for one, other in zip(model.parameters(), before, strict=True))


def test_metadata_travels_in_the_files(linear, tmp_path):
    model, raw, preprocessing = linear
    for kind in ("pt2", "onnx"):
        export(trained(model, raw, preprocessing), kind, tmp_path, in_parts(raw, preprocessing))
    extra = {METADATA: ""}
    torch.export.load(tmp_path / "model.pt2", extra_files=extra)
    expected = {
        "task": "regression",
        "classes": None,
        "inputs": [{"name": "x", "dtype": "float32", "shape": ["samples", 4]}],
    }
    assert json.loads(extra[METADATA]) == expected
    props = {one.key: one.value for one in onnx.load(tmp_path / "model.onnx").metadata_props}
    assert props["task"] == "regression"
    assert json.loads(props["inputs"]) == expected["inputs"]


class OtherOnceExported(nn.Linear):
    def forward(self, x):
        return super().forward(x) * (1.0 if torch.compiler.is_compiling() else 1.01)


class Branching(nn.Linear):
    def forward(self, x):
        return super().forward(x) if x.sum() > 0 else super().forward(-x)


class Infinite(nn.Linear):
    def forward(self, x):
        return super().forward(x) * float("nan")


class Unbounded(nn.Linear):
    """Infinite where it was trained, and an ordinary number once it is exported."""

    def forward(self, x):
        return super().forward(x) * (1.0 if torch.compiler.is_compiling() else float("inf"))


class OfThree(nn.Linear):
    def forward(self, x):
        return super().forward(x) + torch.zeros(len(x), 1)


@pytest.mark.parametrize(
    ("model", "code", "message"),
    [
        (OtherOnceExported, "export_differs", "was not kept: over 30 samples its outputs differ"),
        (Branching, "export_failed", "could not be exported as onnx"),
        (OfThree, "export_failed", "takes the number of samples for a constant"),
        (Infinite, "export_differs", "differ from the trained model's by up to nan"),
        (Unbounded, "export_differs", "differ from the trained model's by up to nan"),
    ],
)
def test_what_does_not_do_the_same_is_not_kept(model, code, message, tmp_path):
    raw, preprocessing = prices()
    with pytest.raises(ExportError, match=message) as caught:
        export(trained(model(4, 1), raw, preprocessing), "onnx", tmp_path, in_parts(raw, preprocessing))
    assert caught.value.code == code
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_loaded_that_was_not_asked_for():
    script = (
        "import sys, epochd.training.export\n"
        "print([name for name in ('onnx', 'onnxscript', 'onnxruntime') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"
