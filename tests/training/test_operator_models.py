from dataclasses import replace

import pytest
import torch
from tests.packages import BUILD, WIDE, install

from epochd.errors import InfrastructureError, ModelError
from epochd.training import operator_models
from epochd.training.config import DataShape, ModelConfig
from epochd.training.operator_package import load, provided
from epochd.training.trainer import Trainer

TABLE = DataShape("table", (4,), 3)


@pytest.fixture
def add(tmp_path, monkeypatch):
    """Install a package whose model is called ``acme``."""

    def make(code, *names, **more):
        install(tmp_path, code, *(names or ("acme",)), **more)

    monkeypatch.syspath_prepend(str(tmp_path))
    return make


def test_a_package_is_found_described_and_built(add):
    add(WIDE, "acme", "acme_too")
    assert provided() == {"acme": ["acme-models"], "acme_too": ["acme-models"]}
    described = load("acme").describe()
    assert described["package"] == {"name": "acme-models", "version": "1.2.0"}
    assert (described["description"], described["encoding"]) == ("One hidden layer.", "one_hot")
    assert (described["kinds"], described["tasks"]) == (["table"], ["classification"])
    schema = described["parameters"]
    assert schema["additionalProperties"] is False
    assert schema["properties"]["width"]["maximum"] == 4096
    assert schema["properties"]["rates"]["default"] == [0.5], "what a factory makes is shown, too"
    model = operator_models.build("acme", TABLE, {"width": 5})
    assert model[0].weight.shape == (5, 4)
    assert model.training


def test_the_global_generator_decides_the_weights(add):
    add(WIDE)
    torch.manual_seed(3)
    one = operator_models.build("acme", TABLE, {})
    torch.manual_seed(3)
    assert torch.equal(operator_models.build("acme", TABLE, {})[0].weight, one[0].weight)


def test_without_a_pydantic_model_build_gets_a_dict_and_anything_but_text_fits(add):
    add(
        f"PARAMETERS = {{'type': 'object'}}\n{BUILD.replace('nn.Flatten(), ', '')}    assert parameters == {{'a': 1}}"
    )
    described = load("acme").describe()
    assert described["kinds"] == ["table", "image", "array"]
    assert described["parameters"] == {"type": "object"}
    operator_models.build("acme", TABLE, {"a": 1})


@pytest.mark.parametrize(
    ("code", "wrong"),
    [
        ("", "no function build"),
        (f"{BUILD}\nTASKS = 'classification'", "TASKS"),
        (f"{BUILD}\nKINDS = ('video',)", "video"),
        (f"{BUILD}\nENCODING = 'hashes'", "hashes"),
        (f"{BUILD}\nParameters = dict", "PARAMETERS"),
    ],
)
def test_a_description_that_is_wrong_is_refused(add, code, wrong):
    add(code)
    with pytest.raises(ValueError, match=wrong):
        load("acme").describe()


BUILDS = {
    "model_parameters_refused": f"{WIDE}\n",
    "model_refused": "def build(data, parameters): raise ValueError('width has to be even')",
    "model_failed": "def build(data, parameters): return {}['secret']",
    "model_not_trainable": "from torch import nn\ndef build(data, parameters): return nn.Flatten()",
}


@pytest.mark.parametrize("code", BUILDS)
def test_what_a_package_refuses_or_breaks_ends_the_job_with_its_reason(add, code, caplog):
    add(BUILDS[code])
    with pytest.raises(ModelError) as caught:
        operator_models.build("acme", TABLE, {"width": 0})
    assert (caught.value.code, caught.value.category, caught.value.retryable) == (code, "spec", False)
    message = caught.value.message
    assert {
        "model_parameters_refused": "model.width: ",
        "model_refused": "width has to be even",
        "model_failed": "KeyError",
        "model_not_trainable": "(2, 3)",
    }[code] in message
    assert "secret" not in message
    assert ("secret" in caplog.text) == (code == "model_failed")


@pytest.mark.parametrize(
    ("module", "wrong"),
    [
        ("None", "NoneType"),
        ("nn.Linear(4, 3, dtype=torch.float64).float().double()", "model_failed"),
        ("nn.Linear(4, 7)", r"\(2, 7\), and not \(2, 3\)"),
        ("nn.Sequential(nn.Linear(4, 3), nn.Flatten(0))", r"\(6,\)"),
        ("nn.Sequential(nn.Linear(4, 3).requires_grad_(False))", "make it a buffer"),
        ("nn.LazyConv2d(3, 1)", "model_failed"),
    ],
)
def test_what_is_no_model_for_the_data_is_refused(add, module, wrong):
    add(f"import torch\nfrom torch import nn\ndef build(data, parameters): return {module}")
    with pytest.raises(ModelError, match=wrong if wrong != "model_failed" else "failed with"):
        operator_models.build("acme", TABLE, {})


def test_a_model_that_is_not_there_or_there_twice_is_for_another_worker(add):
    def refused():
        with pytest.raises(InfrastructureError) as caught:
            operator_models.build("acme", TABLE, {})
        return caught.value.code, caught.value.retryable

    assert refused() == ("model_not_installed", True)
    add(WIDE, package="one-package")
    operator_models.build("acme", TABLE, {})
    add(WIDE, package="another-package")
    assert refused() == ("model_not_installed", True)


FAULTS = {
    "raises": "if self.training: raise RuntimeError('secret')",
    "raises_when_evaluated": "if not self.training and len(x) == 40: raise KeyError('secret')",
    "raises_for_one_sample": "if len(x) == 1: raise ValueError('secret')",
    "another_shape_in_training": "if self.training: return super().forward(x).sum(1)",
    "one_output_for_two_targets": "if self.training: return super().forward(x)[:, :1]",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_model_that_fails_while_it_is_trained_ends_the_job_and_is_not_tried_again(
    add, fault, make_config, regression, caplog
):
    add(
        f"""
from torch import nn

class Model(nn.Linear):
    def forward(self, x):
        {FAULTS[fault]}
        return super().forward(x)

def build(data, parameters):
    return Model(*data.input_shape, data.outputs)
"""
    )
    made = make_config(task="regression")
    made = replace(made, model=ModelConfig("acme", made.model.data, {}))
    with pytest.raises(ModelError) as caught:
        list(Trainer(made, regression).run())
    assert not caught.value.retryable
    assert caught.value.code == ("model_failed" if "raises" in fault else "model_not_trainable")
    assert "secret" not in caught.value.message
    assert ("secret" in caplog.text) == ("raises" in fault)
