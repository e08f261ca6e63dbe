import pytest
import torch
from torch import nn

from epochd.training.config import OptimizerConfig
from epochd.training.optimizers import make_optimizer
from epochd.training.parameters import FlatParameters

CONFIGS = {
    "sgd": OptimizerConfig("sgd", 0.1),
    "sgd-decay": OptimizerConfig("sgd", 0.1, weight_decay=0.05),
    "momentum": OptimizerConfig("sgd", 0.1, momentum=0.9, weight_decay=0.05),
    "nesterov": OptimizerConfig("sgd", 0.1, momentum=0.9, nesterov=True),
    "adam": OptimizerConfig("adam", 0.01, betas=(0.8, 0.95), eps=1e-6),
    "adam-decay": OptimizerConfig("adam", 0.01, weight_decay=0.1),
    "adamw": OptimizerConfig("adamw", 0.01, weight_decay=0.1),
}


def reference(config: OptimizerConfig, parameters) -> torch.optim.Optimizer:
    common = {"lr": config.learning_rate, "weight_decay": config.weight_decay, "foreach": False}
    if config.name == "sgd":
        return torch.optim.SGD(parameters, momentum=config.momentum, nesterov=config.nesterov, **common)
    kind = torch.optim.Adam if config.name == "adam" else torch.optim.AdamW
    return kind(parameters, betas=config.betas, eps=config.eps, **common)


def gradients(seed: int, like: list[torch.Tensor]) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(tensor.shape, generator=generator) for tensor in like]


@pytest.mark.parametrize("name", CONFIGS)
def test_updates_are_those_of_torch(name):
    config = CONFIGS[name]
    ours, plain = nn.Linear(7, 5), nn.Linear(7, 5)
    plain.load_state_dict(ours.state_dict())
    flat = FlatParameters(ours)
    optimizer = make_optimizer(config, flat.values, flat.gradient)
    expected = reference(config, plain.parameters())
    for iteration in range(50):
        learning_rate = config.learning_rate / (1 + iteration % 7)
        expected.param_groups[0]["lr"] = learning_rate
        parameters = list(zip(ours.parameters(), plain.parameters(), strict=True))
        for (mine, theirs), gradient in zip(
            parameters, gradients(iteration, list(plain.parameters())), strict=True
        ):
            mine.grad.copy_(gradient)
            theirs.grad = gradient.clone()
        optimizer.update(learning_rate)
        expected.step()
        for mine, theirs in parameters:
            torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", CONFIGS)
def test_an_optimizer_continues_from_its_state(name):
    def trained(optimizer, flat, iterations):
        for iteration in iterations:
            flat.gradient.copy_(gradients(iteration, [flat.gradient])[0])
            optimizer.update(0.01)

    flat, resumed = FlatParameters(nn.Linear(7, 5)), FlatParameters(nn.Linear(7, 5))
    optimizer = make_optimizer(CONFIGS[name], flat.values, flat.gradient)
    trained(optimizer, flat, range(5))
    again = make_optimizer(CONFIGS[name], resumed.values, resumed.gradient)
    again.load_state_dict(optimizer.state_dict())
    resumed.values.copy_(flat.values)
    trained(optimizer, flat, range(5, 10))
    trained(again, resumed, range(5, 10))
    assert resumed.values.equal(flat.values)


def test_flat_parameters_are_the_parameters():
    model = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 2))
    before = [parameter.detach().clone() for parameter in model.parameters()]
    flat = FlatParameters(model)
    for parameter, value in zip(model.parameters(), before, strict=True):
        assert parameter.equal(value)
        assert parameter.data_ptr() % 64 == flat.values.data_ptr() % 64
    loss = model(torch.ones(4, 3)).square().sum()
    loss.backward()
    norm = torch.nn.utils.get_total_norm([parameter.grad for parameter in model.parameters()])
    torch.testing.assert_close(flat.gradient.norm(), norm)
    flat.values.zero_()
    assert all(parameter.count_nonzero() == 0 for parameter in model.parameters())
