import json
import subprocess
import sys

import pytest
import torch
from torch import nn

from epochd.training.architecture import layers
from epochd.training.config import DataShape, ModelConfig
from epochd.training.models import build, cost, parameter_count

MODELS = [
    ModelConfig("linear", DataShape("table", (64,), 10)),
    ModelConfig("linear", DataShape("image", (1, 8, 8), 1)),
    ModelConfig(
        "mlp", DataShape("table", (64,), 10), {"hidden_sizes": (128, 32), "dropout": 0.2, "batch_norm": True}
    ),
    ModelConfig("mlp", DataShape("image", (3, 8, 8), 2), {"hidden_sizes": (16,)}),
    ModelConfig("cnn", DataShape("image", (1, 8, 8), 10)),
    ModelConfig(
        "cnn",
        DataShape("image", (3, 9, 17), 4),
        {"channels": (4, 8, 16), "dropout": 0.5, "batch_norm": True, "hidden_size": 7},
    ),
]


@pytest.mark.parametrize("config", MODELS, ids=lambda config: f"{config.name}-{config.data.input_shape}")
def test_a_model_maps_samples_to_outputs(config):
    described = layers(config)
    model = build(described)
    assert model(torch.randn(5, *config.data.input_shape)).shape == (5, config.data.outputs)
    assert parameter_count(described) == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("config", MODELS, ids=lambda config: f"{config.name}-{config.data.input_shape}")
def test_torch_alone_rebuilds_a_model_from_json(config):
    described = json.loads(json.dumps(layers(config)))
    rebuilt = nn.Sequential(*[getattr(nn, layer.pop("type"))(**layer) for layer in described])
    model = build(layers(config))
    rebuilt.load_state_dict(model.state_dict())
    x = torch.randn(4, *config.data.input_shape)
    assert rebuilt.eval()(x).equal(model.eval()(x))


def test_the_mlp_is_built_in_the_usual_order():
    config = ModelConfig(
        "mlp", DataShape("table", (4,), 2), {"hidden_sizes": (8, 6), "dropout": 0.1, "batch_norm": True}
    )
    block = ["Linear", "BatchNorm1d", "ReLU", "Dropout"]
    assert [layer["type"] for layer in layers(config)] == [*block, *block, "Linear"]


@pytest.mark.parametrize("name", ["linear", "mlp"])
def test_dropout_of_zero_is_no_layer(name):
    assert "Dropout" not in [
        layer["type"] for layer in layers(ModelConfig(name, DataShape("table", (4,), 2)))
    ]


def test_the_cnn_takes_only_images():
    with pytest.raises(ValueError, match=r"takes images .* Take mlp or linear"):
        layers(ModelConfig("cnn", DataShape("table", (64,), 10)))


def test_pooling_must_leave_a_pixel():
    layers(ModelConfig("cnn", DataShape("image", (1, 8, 9), 10), {"channels": (2, 2, 2)}))
    with pytest.raises(ValueError, match="at most 3 channel counts"):
        layers(ModelConfig("cnn", DataShape("image", (1, 8, 9), 10), {"channels": (2, 2, 2, 2)}))


def test_nothing_but_layers_is_built_from_a_description():
    with pytest.raises(ValueError, match="is no layer"):
        build([{"type": "Module"}])


def test_the_cost_counts_multiply_adds_and_the_widest_activation():
    model = build(
        layers(ModelConfig("cnn", DataShape("image", (3, 8, 8), 5), {"channels": (4,), "hidden_size": 6}))
    )
    multiply_adds, widest = cost(model, torch.zeros(1, 3, 8, 8))
    assert multiply_adds == 8 * 8 * (3 * 9 * 4) + 64 * 6 + 6 * 5
    assert widest == 4 * 8 * 8
    assert model.training


def test_describing_a_model_does_not_import_torch():
    code = "import sys, epochd.training.architecture; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
