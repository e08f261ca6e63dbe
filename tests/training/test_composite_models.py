"""The models that are more than a sequence of layers: their shapes, what they learn, and that they resume exactly."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from epochd.contract.models import BUILTIN_MODELS
from epochd.errors import DataError
from epochd.training import device as devices
from epochd.training import weights
from epochd.training.architecture import BUILT_IN, layers, needs_two_samples
from epochd.training.config import DataShape, ModelConfig, OptimizerConfig, TrainingConfig
from epochd.training.data import Samples, TrainingData
from epochd.training.models import build, cost, draws_randomness, parameter_count
from epochd.training.models.attention import SelfAttention
from epochd.training.trainer import Trainer

IMAGE = DataShape("image", (3, 8, 8), 4)
TABLE = DataShape("table", (6,), 3)
MIXED = DataShape("table", (6,), 3, categories=(4, 5))
CODES = DataShape("table", (2,), 3, categories=(4, 5))
TEXT = DataShape("text", (12,), 2, vocabulary=30)

MODELS = {
    "resnet-18": ModelConfig("resnet", IMAGE, {"width": 8, "dropout": 0.2}),
    "resnet-34": ModelConfig("resnet", IMAGE, {"width": 8, "depth": 34}),
    "resnet-50": ModelConfig("resnet", DataShape("image", (1, 70, 66), 2), {"width": 8, "depth": 50}),
    "tabular_resnet": ModelConfig("tabular_resnet", TABLE, {"width": 16, "hidden_factor": 0.5}),
    "ft_transformer": ModelConfig("ft_transformer", MIXED, {"width": 16, "heads": 4}),
    "ft_transformer of numbers": ModelConfig("ft_transformer", TABLE, {"width": 16, "dropout": 0.0}),
    "ft_transformer of codes": ModelConfig("ft_transformer", CODES, {"width": 16}),
    "text_classifier": ModelConfig("text_classifier", TEXT, {"width": 16}),
}
by_name = pytest.mark.parametrize("config", MODELS.values(), ids=MODELS)


@pytest.fixture(autouse=True)
def one_thread():
    """Several would mostly wait for each other on models so small."""
    with devices.threads(1):
        yield


def inputs(data: DataShape, count: int) -> torch.Tensor:
    if data.kind == "text":
        return torch.randint(0, data.vocabulary, (count, *data.input_shape), dtype=torch.int32)
    x = torch.randn(count, *data.input_shape)
    for number, codes in enumerate(reversed(data.categories), start=1):
        x[:, -number] = torch.randint(0, codes, (count,))
    return x


@by_name
def test_a_model_maps_samples_to_outputs_and_is_counted(config):
    described = json.loads(json.dumps(layers(config)))
    torch.manual_seed(0)
    model = build(described)
    x = inputs(config.data, 5)
    assert model(x).shape == (5, config.data.outputs)
    assert parameter_count(described) == sum(parameter.numel() for parameter in model.parameters())
    assert draws_randomness(described, model) == any(layer.get("dropout", 0) > 0 for layer in described)
    multiply_adds, widest = cost(model, x[:1])
    assert multiply_adds > 0
    assert widest >= x[0].numel()


@by_name
def test_every_parameter_learns(config):
    torch.manual_seed(0)
    model = build(layers(config)).eval()
    for parameter in model.parameters():
        with torch.no_grad():
            parameter.add_(0.1 * torch.randn_like(parameter))  # what begins at zero lets nothing through
    model(inputs(config.data, 24)).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.abs().sum() > 0, name


def test_each_sample_is_computed_by_itself():
    for config in MODELS.values():
        torch.manual_seed(0)
        model, x = build(layers(config)).eval(), inputs(config.data, 4)
        with torch.no_grad():
            torch.testing.assert_close(model(x)[2:3], model(x[2:3]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("depth", "parameters"), [(18, 11_689_512), (34, 21_797_672), (50, 25_557_032)])
def test_the_residual_networks_are_those_of_the_paper(depth, parameters):
    """The counts for ImageNet that are quoted everywhere."""
    config = ModelConfig("resnet", DataShape("image", (3, 224, 224), 1000), {"depth": depth})
    assert parameter_count(layers(config)) == parameters


def test_small_images_keep_their_size_and_large_ones_do_not():
    features = {}
    for size in (64, 65):
        config = ModelConfig("resnet", DataShape("image", (1, size, size), 2), {"width": 8})
        features[size] = build(layers(config)).stem(torch.zeros(2, 1, size, size)).shape[-1]
    assert features == {64: 64, 65: 17}


def test_a_residual_block_begins_as_the_identity():
    block = build(layers(MODELS["resnet-18"])).eval().stages[0]
    x = torch.rand(2, 8, 4, 4)
    assert block(x).equal(x)


def test_attention_is_torchs():
    """``nn.MultiheadAttention`` with the same weights gives the same, padding left out."""
    torch.manual_seed(0)
    ours, theirs = SelfAttention(16, 4), torch.nn.MultiheadAttention(16, 4, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(ours.queries_keys_values.weight)
        theirs.out_proj.load_state_dict(ours.outputs.state_dict())
    x, is_padding = torch.randn(3, 7, 16), torch.arange(7).expand(3, 7) >= torch.tensor([[7], [4], [1]])
    expected, _ = theirs(x, x, x, key_padding_mask=is_padding)
    torch.testing.assert_close(ours(x, is_padding), expected)
    torch.testing.assert_close(ours(x), theirs(x, x, x)[0])


def test_padding_changes_nothing_and_a_text_without_words_is_a_number():
    config = MODELS["text_classifier"]
    torch.manual_seed(0)
    model = build(layers(config)).eval()
    text = torch.randint(1, 30, (1, 5), dtype=torch.int32)
    padded = torch.nn.functional.pad(text, (0, 7))
    assert (text > 0).all()
    torch.testing.assert_close(model(padded), model(text))
    empty = torch.zeros(2, 12, dtype=torch.int32)
    assert model(empty).isfinite().all()
    model(torch.cat([padded, empty])).sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    assert model.words.weight.grad[0].abs().sum() == 0


def test_a_text_is_more_than_a_bag_of_words():
    torch.manual_seed(0)
    model = build(layers(MODELS["text_classifier"])).eval()
    text = torch.tensor([[3, 4, 5, 6]])
    assert not torch.allclose(model(text), model(text.flip(1)))


def test_a_code_is_a_value_of_its_own_column():
    torch.manual_seed(0)
    model = build(layers(MODELS["ft_transformer of codes"])).eval()
    outputs = {(a, b): model(torch.tensor([[float(a), float(b)]])) for a in range(4) for b in range(5)}
    assert len({tuple(output.flatten().tolist()) for output in outputs.values()}) == 20


@pytest.mark.parametrize(("config", "message"), [
    (ModelConfig("resnet", TABLE), "resnet takes images"),
    (ModelConfig("ft_transformer", IMAGE), "ft_transformer takes tables"),
    (ModelConfig("tabular_resnet", IMAGE), "tabular_resnet takes tables"),
    (ModelConfig("text_classifier", IMAGE), "text_classifier takes texts"),
    (ModelConfig("ft_transformer", TABLE, {"width": 10, "heads": 4}), "10 is no multiple of the 4 heads"),
    (ModelConfig("text_classifier", TEXT, {"width": 10, "heads": 4}), "10 is no multiple of the 4 heads"),
])  # fmt: skip
def test_what_does_not_fit_is_refused(config, message):
    with pytest.raises(ValueError, match=message):
        layers(config)


def test_the_engine_and_the_contract_have_the_same_models_parameters_and_defaults():
    assert set(BUILT_IN) == set(BUILTIN_MODELS)
    data = {"cnn": IMAGE, "resnet": IMAGE, "text_classifier": TEXT}
    for name, contract in BUILTIN_MODELS.items():
        parameters = contract(name=name).model_dump(exclude={"name"})
        shape = data.get(name, TABLE)
        assert layers(ModelConfig(name, shape, parameters)) == layers(ModelConfig(name, shape)), name


# What they learn


def train(config: ModelConfig, data: TrainingData, *, rate: float, epochs: int, **fields) -> dict[str, float]:
    task = "regression" if data.train.y.ndim > 1 else "classification"
    loss = "mse" if task == "regression" else "cross_entropy"
    optimizer = OptimizerConfig("adamw", learning_rate=rate)
    whole = TrainingConfig(task, config, epochs, 32, optimizer, loss=loss, **fields)
    trainer = Trainer(whole, data)
    list(trainer.run())
    return trainer.evaluate()


def split(x: np.ndarray, y: np.ndarray, train_samples: int) -> TrainingData:
    return TrainingData(
        Samples(x[:train_samples], y[:train_samples]), Samples(x[train_samples:], y[train_samples:])
    )


@pytest.mark.parametrize("depth", [18, 34, 50])
def test_the_residual_network_reads_digits(depth):
    """Real handwriting: 500 digits of 8 by 8 pixels are enough for most of the next 200."""
    x, y = load_digits(return_X_y=True)
    images = ((x - x.mean()) / x.std()).astype(np.float32).reshape(-1, 1, 8, 8)[:700]
    config = ModelConfig("resnet", DataShape("image", (1, 8, 8), 10), {"depth": depth, "width": 8})
    found = train(config, split(images, y[:700], 500), rate=0.003, epochs=3)
    assert found["validation_accuracy"] > 0.6


def rows(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Two numbers and two codes; the second number counts only where the codes are the same."""
    random = np.random.default_rng(0)
    x = np.concatenate(
        [random.standard_normal((count, 2)), random.integers(0, 3, (count, 2))], axis=1
    ).astype(np.float32)
    target = np.where(x[:, 2] == x[:, 3], x[:, 1], x[:, 0])
    return x, target.astype(np.float32)[:, None]


def test_the_ft_transformer_finds_what_codes_and_numbers_say_together():
    x, y = rows(1200)
    data = DataShape("table", (4,), 1, categories=(3, 3))
    config = ModelConfig("ft_transformer", data, {"width": 32, "heads": 4, "blocks": 2, "dropout": 0.0})
    assert train(config, split(x, y, 1000), rate=0.003, epochs=15)["validation_r2"] > 0.9


def test_the_tabular_residual_network_finds_it_one_hot():
    x, y = rows(1200)
    one_hot = np.eye(3, dtype=np.float32)[x[:, 2:].astype(int)].reshape(-1, 6)
    table = np.concatenate([x[:, :2], one_hot], axis=1)
    config = ModelConfig("tabular_resnet", DataShape("table", (8,), 1), {"width": 32, "dropout": 0.0})
    assert train(config, split(table, y, 1000), rate=0.005, epochs=12)["validation_r2"] > 0.9


def test_the_text_classifier_learns_which_word_comes_first():
    """Word 2 before or behind word 3, somewhere among others: the words alone do not tell."""
    random = np.random.default_rng(0)
    x = random.integers(4, 10, (1400, 8)).astype(np.int32)
    y = random.integers(0, 2, 1400)
    for text, label in zip(x, y, strict=True):
        first, second = sorted(random.choice(6, 2, replace=False))
        text[[first, second]] = (2, 3) if label else (3, 2)
        text[random.integers(6, 9) :] = 0
    config = ModelConfig(
        "text_classifier", DataShape("text", (8,), 2, vocabulary=10), {"width": 32, "dropout": 0.0}
    )
    assert train(config, split(x, y, 1200), rate=0.003, epochs=8)["validation_accuracy"] > 0.9


# Batch normalisation, and what is saved


@pytest.mark.parametrize(("config", "needed"), [
    (ModelConfig("tabular_resnet", TABLE), True),
    (ModelConfig("resnet", IMAGE, {"width": 8}), True),
    (ModelConfig("resnet", DataShape("image", (3, 8, 9), 4), {"width": 8}), False),
    (ModelConfig("ft_transformer", TABLE), False),
    (ModelConfig("mlp", TABLE, {"batch_norm": True}), True),
    (ModelConfig("mlp", TABLE), False),
], ids=lambda value: str(value)[:60])  # fmt: skip
def test_a_last_mini_batch_of_one_is_refused_where_it_cannot_be_normalised(config, needed):
    assert needs_two_samples(config) == needed
    x, y = inputs(config.data, 33).numpy(), np.arange(33) % config.data.outputs
    trained = TrainingConfig("classification", config, epochs=1, batch_size=32)
    if needed:
        with pytest.raises(DataError, match="has a single sample, which has no variance"):
            Trainer(trained, TrainingData(Samples(x, y)))
    else:
        list(Trainer(trained, TrainingData(Samples(x, y))).run())


@by_name
def test_what_is_saved_is_loaded(config, tmp_path):
    torch.manual_seed(0)
    model, x = build(layers(config)), inputs(config.data, 8)
    model(x)  # moves the statistics of batch normalisation
    weights.save(
        tmp_path, model.eval(), architecture=layers(config), preprocessing={}, classes=None,
        task="classification", input_shape=config.data.input_shape, selection={}, extra={},
    )  # fmt: skip
    loaded, _ = weights.load(tmp_path)
    assert loaded(x).equal(model(x))


def test_counting_parameters_does_not_load_torchs_compiler():
    code = """
import sys
from epochd.training.architecture import layers
from epochd.training.config import DataShape, ModelConfig
from epochd.training.models import parameter_count
text = DataShape("text", (4,), 2, vocabulary=9)
for name, data in (("resnet", DataShape("image", (3, 8, 8), 4)), ("text_classifier", text)):
    parameter_count(layers(ModelConfig(name, data)))
sys.exit("sympy" in sys.modules or "torch._dynamo" in sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
