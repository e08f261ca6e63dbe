"""The written-out gradient against autograd's: same kernels, same draws, same numbers within rounding."""

from copy import deepcopy
from dataclasses import dataclass

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from epochd.training import device as devices
from epochd.training.architecture import layers
from epochd.training.backpropagation import backpropagation
from epochd.training.config import DataShape, ModelConfig, OptimizerConfig
from epochd.training.losses import LOSSES, loss_function
from epochd.training.models import build
from epochd.training.optimizers import make_optimizer
from epochd.training.parameters import FlatParameters
from epochd.training.weight_update import Autograd, WeightUpdate, make_forward

CPU = torch.device("cpu")
LEARNING_RATE = 0.05


@pytest.fixture(autouse=True)
def _one_thread():
    with devices.threads(1):
        yield


@dataclass
class Case:
    """A model, its loss, and mini-batches of several sizes."""

    modules: list[nn.Module]
    loss: str
    mini_batches: list[tuple[Tensor, Tensor]]
    clip_norm: float | None = None

    def __str__(self) -> str:
        shapes = [tuple(x.shape) for x, _ in self.mini_batches]
        return f"{nn.Sequential(*self.modules)} {self.loss} {shapes} clip={self.clip_norm}"

    __repr__ = __str__


@dataclass
class Trained:
    losses: Tensor
    norms: Tensor
    outputs: list[Tensor]
    model: nn.Sequential
    random_state: Tensor


def train(case: Case, *, by_autograd: bool) -> Trained:
    model = nn.Sequential(*deepcopy(case.modules)).train()
    flat = FlatParameters(model)
    optimizer = make_optimizer(OptimizerConfig("sgd", momentum=0.9), flat.values, flat.gradient)
    # As a function the model is nothing that could be written out.
    forward = model.forward if by_autograd else model
    update = WeightUpdate(forward, loss_function(case.loss), flat, optimizer, case.clip_norm, model=model)
    assert isinstance(update.differentiate, Autograd) == by_autograd
    losses, norms = (torch.zeros(len(case.mini_batches)) for _ in range(2))
    torch.manual_seed(7)
    outputs = [
        update(x, y, LEARNING_RATE, losses[number], norms[number]).clone()
        for number, (x, y) in enumerate(case.mini_batches)
    ]
    return Trained(losses, norms, outputs, model, torch.get_rng_state())


def assert_same(case: Case) -> Trained:
    before = deepcopy(case.mini_batches)
    expected, found = (train(case, by_autograd=by_autograd) for by_autograd in (True, False))
    # Batch norm over a few values, most of them dropped, enlarges rounding as it enlarges gradients.
    close = {"rtol": 1e-3, "atol": 3e-4 * max(float(expected.norms.max()), 1.0)}
    torch.testing.assert_close(found.losses, expected.losses, **close)
    torch.testing.assert_close(found.norms, expected.norms, **close)
    torch.testing.assert_close(found.outputs, expected.outputs, **close)
    torch.testing.assert_close(found.model.state_dict(), expected.model.state_dict(), **close)
    gradients = [[parameter.grad for parameter in run.model.parameters()] for run in (found, expected)]
    torch.testing.assert_close(*gradients, **close)
    assert found.random_state.equal(expected.random_state)
    torch.testing.assert_close(case.mini_batches, before, rtol=0, atol=0)
    return found


def activations(draw: st.DrawFn, features: int, norm: type[nn.Module]) -> list[nn.Module]:
    """What may stand between two layers with weights, in any order."""
    makers = {
        "norm": lambda: norm(features),
        "relu": nn.ReLU,
        "dropout": lambda: nn.Dropout(draw(st.sampled_from([0.1, 0.5, 0.9]))),
    }
    return [makers[name]() for name in draw(st.lists(st.sampled_from(sorted(makers)), max_size=3))]


def perceptron(draw: st.DrawFn, features: int, outputs: int) -> list[nn.Module]:
    sizes = draw(st.lists(st.integers(1, 9), max_size=3))
    modules: list[nn.Module] = []
    for hidden in sizes:
        modules += [nn.Linear(features, hidden), *activations(draw, hidden, nn.BatchNorm1d)]
        features = hidden
    return [*modules, nn.Linear(features, outputs)]


def convolutions(draw: st.DrawFn, shape: tuple[int, int, int]) -> tuple[list[nn.Module], int]:
    """Convolutional layers for images of ``shape``, and the number of features that they give."""
    modules: list[nn.Module] = []
    channels = shape[0]
    for _ in range(draw(st.integers(1, 2))):
        # One channel alone is channels-last and not at once: which of the two a kernel takes it for decides
        # where in the images a mask of dropout lands.
        made = draw(st.integers(2, 5))
        kernel = draw(st.sampled_from([1, 3]))
        modules += [
            nn.Conv2d(channels, made, kernel, stride=draw(st.integers(1, 2)), padding=kernel // 2),
            *activations(draw, made, nn.BatchNorm2d),
        ]
        if draw(st.booleans()):
            window = draw(
                st.sampled_from([{"kernel_size": 2}, {"kernel_size": 3, "stride": 2, "padding": 1}])
            )
            modules += [nn.MaxPool2d(ceil_mode=True, **window)]
        modules += activations(draw, made, nn.BatchNorm2d)
        channels = made
    with torch.no_grad():
        features = nn.Sequential(*modules, nn.Flatten()).eval()(torch.zeros(1, *shape)).shape[1]
    return [*modules, nn.Flatten()], features


@st.composite
def cases(draw: st.DrawFn) -> Case:
    torch.manual_seed(draw(st.integers(0, 2**32)))
    outputs, loss = draw(st.integers(1, 5)), draw(st.sampled_from(sorted(LOSSES)))
    if draw(st.booleans()):
        shape: tuple[int, ...] = (draw(st.integers(1, 3)), draw(st.integers(4, 9)), draw(st.integers(4, 9)))
        head, features = convolutions(draw, shape)
    else:
        shape = draw(st.sampled_from([(4,), (1,), (2, 3), (1, 2, 2)]))
        head, features = [nn.Flatten()] * (len(shape) > 1), torch.Size(shape).numel()
    modules = [*head, *perceptron(draw, features, outputs)]
    channels_last = draw(st.booleans()) and len(shape) == 3
    sizes = draw(st.lists(st.integers(2, 9), min_size=1, max_size=4))
    mini_batches = [(images(size, shape, channels_last), targets(size, outputs, loss)) for size in sizes]
    return Case(modules, loss, mini_batches, draw(st.sampled_from([None, 0.1, 100.0])))


def images(size: int, shape: tuple[int, ...], channels_last: bool) -> Tensor:
    x = torch.randn(size, *shape)
    return x.to(memory_format=torch.channels_last) if channels_last else x


def targets(size: int, outputs: int, loss: str) -> Tensor:
    if loss == "cross_entropy":
        return torch.randint(0, outputs, (size,))
    return 2 * torch.randn(size, outputs)


def classify(*modules: nn.Module, shape: tuple[int, ...], sizes: tuple[int, ...] = (8, 8, 3)) -> Case:
    torch.manual_seed(1)
    outputs = modules[-1].out_features
    return Case(
        list(modules),
        "cross_entropy",
        [(torch.randn(size, *shape), targets(size, outputs, "cross_entropy")) for size in sizes],
    )


@settings(max_examples=80, deadline=None, derandomize=True)
@given(case=cases())
@example(
    classify(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3), shape=(4,))
)
@example(
    classify(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64, 3),
        shape=(1, 8, 8),
    )
)
def test_it_trains_as_autograd_does(case):
    assert_same(case)


@pytest.mark.parametrize("config", [
    ModelConfig("linear", DataShape("array", (2, 3), 4)),
    ModelConfig("mlp", DataShape("table", (5,), 4), {"hidden_sizes": (16, 8), "dropout": 0.3, "batch_norm": True}),
    ModelConfig(
        "cnn", DataShape("image", (3, 9, 10), 4),
        {"channels": (4, 8), "dropout": 0.3, "batch_norm": True, "hidden_size": 6},
    ),
], ids=lambda config: config.name)  # fmt: skip
@pytest.mark.parametrize("loss", sorted(LOSSES))
def test_every_model_with_every_loss_is_written_out(config, loss):
    torch.manual_seed(2)
    mini_batches = [(torch.randn(n, *config.data.input_shape), targets(n, 4, loss)) for n in (16, 16, 5)]
    found = assert_same(Case(list(build(layers(config))), loss, mini_batches, clip_norm=0.5))
    assert (found.norms > 0).all()


def test_ties_in_a_pooling_window_go_where_autograd_sends_them():
    case = classify(
        nn.Conv2d(1, 2, 1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 2), shape=(1, 4, 4)
    )
    case.mini_batches = [(x.sign(), y) for x, y in case.mini_batches]
    assert_same(case)


def test_it_repeats_itself_bit_for_bit():
    case = classify(nn.Linear(4, 64), nn.ReLU(), nn.Dropout(0.5), nn.Linear(64, 3), shape=(4,))
    first, second = (train(case, by_autograd=False) for _ in range(2))
    torch.testing.assert_close(first.model.state_dict(), second.model.state_dict(), rtol=0, atol=0)
    assert first.losses.equal(second.losses)


def test_nothing_is_carried_from_one_iteration_to_the_next():
    case = classify(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3), shape=(4,), sizes=(8, 3))
    (x, y), other = case.mini_batches
    model = nn.Sequential(*case.modules)
    flat = FlatParameters(model)
    passes = backpropagation(model, LOSSES["cross_entropy"])
    assert passes is not None
    slot = torch.zeros(())
    outputs = passes(x, y, slot)
    gradient, kept = flat.gradient.clone(), outputs.clone()
    passes(*other, slot)
    assert outputs.equal(kept)  # whoever got them may keep them
    flat.gradient.fill_(float("nan"))
    for parameter in model.parameters():
        parameter.grad.fill_(9.0)
    passes(x, y, slot)
    for parameter, before in zip(model.parameters(), gradient_views(flat, gradient, model), strict=True):
        assert parameter.grad.equal(before)


def gradient_views(flat: FlatParameters, gradient: Tensor, model: nn.Module) -> list[Tensor]:
    """The parts of a copy of ``flat.gradient`` that belong to each parameter."""
    start = flat.gradient.data_ptr()
    offsets = [(p.grad.data_ptr() - start) // 4 for p in model.parameters()]
    parameters = zip(model.parameters(), offsets, strict=True)
    return [gradient[offset : offset + p.numel()].view_as(p) for p, offset in parameters]


@pytest.mark.parametrize("modules", [
    [nn.Linear(4, 4, bias=False), nn.Linear(4, 2)],
    [nn.Linear(4, 4), nn.GELU(), nn.Linear(4, 2)],
    [nn.Dropout(0.5), nn.Linear(4, 2)],
    [nn.ReLU(), nn.Linear(4, 2)],
    [nn.Linear(4, 4), nn.Dropout(1.0), nn.Linear(4, 2)],
    [nn.Linear(4, 4), nn.BatchNorm1d(4, affine=False), nn.Linear(4, 2)],
    [nn.Linear(4, 4), nn.BatchNorm1d(4, momentum=None), nn.Linear(4, 2)],
    [nn.Linear(4, 4), nn.BatchNorm1d(4, track_running_stats=False), nn.Linear(4, 2)],
    [nn.Unflatten(1, (1, 2, 2)), nn.Conv2d(1, 2, 3, padding="same"), nn.Flatten(), nn.Linear(8, 2)],
    [nn.Sequential(nn.Linear(4, 2))],
], ids=str)  # fmt: skip
def test_autograd_does_what_is_not_written_out(modules):
    model = nn.Sequential(*deepcopy(modules))
    flat = FlatParameters(model)
    optimizer = make_optimizer(OptimizerConfig("adamw"), flat.values, flat.gradient)
    loss = LOSSES["cross_entropy"]
    assert backpropagation(model, loss) is None
    before = flat.values.clone()
    slots = torch.zeros(2)
    outputs = WeightUpdate(model, loss, flat, optimizer, None, model=model)(
        torch.randn(6, 4), torch.randint(0, 2, (6,)), LEARNING_RATE, slots[0], slots[1]
    )
    assert outputs.shape == (6, 2)
    assert not outputs.requires_grad
    assert slots.isfinite().all()
    assert not flat.values.equal(before)


def test_other_losses_precisions_and_types_are_autograds():
    model = nn.Sequential(nn.Linear(4, 2))
    FlatParameters(model)
    assert backpropagation(model, LOSSES["mse"]) is not None
    assert backpropagation(model, nn.functional.smooth_l1_loss) is None
    assert not isinstance(make_forward(model, CPU, "bf16"), nn.Module)
    doubled = nn.Sequential(nn.Linear(4, 2)).double()
    FlatParameters(doubled)
    assert backpropagation(doubled, LOSSES["mse"]) is None
    assert backpropagation(nn.Sequential(nn.Linear(4, 2)), LOSSES["mse"]) is None  # no gradient tensors


def test_one_value_per_channel_has_no_variance():
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    FlatParameters(model)
    passes = backpropagation(model, LOSSES["cross_entropy"])
    assert passes is not None
    with pytest.raises(ValueError, match="more than one value per channel"):
        passes(torch.randn(1, 4), torch.zeros(1, dtype=torch.int64), torch.zeros(()))
