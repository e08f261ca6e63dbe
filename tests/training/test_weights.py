import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from epochd.errors import InfrastructureError
from epochd.training import weights
from epochd.training.architecture import layers
from epochd.training.config import DataShape, ModelConfig
from epochd.training.models import build
from epochd.training.parameters import FlatParameters

CONFIG = ModelConfig("cnn", DataShape("image", (3, 8, 8), 4), {"dropout": 0.3, "batch_norm": True})


def make_model() -> nn.Sequential:
    """Its parameters are views of one tensor, and its batch-norm statistics are not the initial ones."""
    model = build(layers(CONFIG))
    FlatParameters(model)
    model(torch.randn(16, 3, 8, 8) * 3 + 1)
    return model.eval()


def save(folder: Path, model: nn.Module, **extra) -> list[weights.SavedFile]:
    return weights.save(
        folder,
        model,
        architecture=layers(CONFIG),
        preprocessing={"mean": [0.5], "scale": [2.0]},
        classes=["a", "b", "c", "d"],
        task="classification",
        input_shape=CONFIG.data.input_shape,
        selection={"epoch": 3, "iteration": 12, "metric": None, "value": None, "reason": "said so"},
        extra=extra,
    )


def test_what_is_saved_is_loaded(tmp_path):
    model = make_model()
    save(tmp_path / "new" / "folder", model, job="job_1")
    loaded, description = weights.load(tmp_path / "new" / "folder")
    x = torch.randn(5, 3, 8, 8)
    assert loaded(x).equal(model(x))
    assert description["classes"] == ["a", "b", "c", "d"]
    assert description["preprocessing"] == {"mean": [0.5], "scale": [2.0]}
    assert description["task"] == "classification"
    assert description["input_shape"] == [3, 8, 8]
    assert description["selection"]["epoch"] == 3
    assert description["job"] == "job_1"


def test_torch_alone_reads_it(tmp_path):
    model = make_model()
    save(tmp_path, model)
    description = json.loads((tmp_path / "model.json").read_text())
    rebuilt = nn.Sequential(
        *[getattr(nn, layer.pop("type"))(**layer) for layer in description["architecture"]]
    )
    rebuilt.load_state_dict(load_file(tmp_path / "model.safetensors"))
    x = torch.randn(5, 3, 8, 8)
    assert rebuilt.eval()(x).equal(model(x))


def test_digests_and_sizes_are_those_on_disk(tmp_path):
    files = save(tmp_path, make_model())
    assert [file.name for file in files] == ["model.safetensors", "model.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.json", "model.safetensors"]
    for file in files:
        content = file.path.read_bytes()
        assert file.path == tmp_path / file.name
        assert (file.bytes, file.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert [file.media_type for file in files] == ["application/octet-stream", "application/json"]


def test_saving_again_replaces(tmp_path):
    save(tmp_path, make_model())
    second = make_model()
    save(tmp_path, second)
    x = torch.randn(2, 3, 8, 8)
    assert weights.load(tmp_path)[0](x).equal(second(x))


def test_a_full_disk_leaves_what_was_there(tmp_path):
    """The limit on file sizes stands in for a full disk: the kernel refuses the write in the same place."""
    save(tmp_path, make_model())
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    script = f"""
import resource, signal, sys
from pathlib import Path
import torch
from epochd.errors import InfrastructureError
from epochd.training import weights
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
layers = [{{"type": "Linear", "in_features": 99, "out_features": 99}}]
try:
    weights.save(Path({str(tmp_path)!r}), torch.nn.Sequential(torch.nn.Linear(99, 99)), architecture=layers,
        preprocessing={{}}, classes=None, task="regression", input_shape=[99], selection={{}}, extra={{}})
except InfrastructureError as error:
    print(error.code, error.message)
"""
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout.startswith("disk_full The disk that holds")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_folder_that_cannot_be_written_is_named_in_the_log_and_its_reason_to_all(tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(
        InfrastructureError, match=r"could not write .* data directory: File exists"
    ) as caught:
        save(tmp_path / "file", make_model())
    assert caught.value.code == "data_dir_not_writable"
    assert str(tmp_path) not in caught.value.message
    assert str(tmp_path / "file") in caplog.text
    with pytest.raises(InfrastructureError) as caught:
        save(Path("/proc/epochd"), make_model())
    assert caught.value.code == "data_dir_not_writable"


def test_a_name_that_is_taken_leaves_no_temporary_file(tmp_path):
    (tmp_path / "model.safetensors" / "occupied").mkdir(parents=True)
    with pytest.raises(InfrastructureError):
        save(tmp_path, make_model())
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]
