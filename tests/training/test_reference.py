"""The engine against the training loop of the textbooks: same weights, same order, same numbers."""

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from torch import nn

from epochd.training.config import ScheduleConfig, TrainingConfig
from epochd.training.data import epoch_permutation, targets_tensor
from epochd.training.events import IterationsCompleted
from epochd.training.models import build
from epochd.training.schedules import make_schedule
from epochd.training.trainer import Trainer, TrainingData

OPTIMIZERS = {
    "sgd": {"name": "sgd", "learning_rate": 0.05},
    "momentum": {"name": "sgd", "learning_rate": 0.05, "momentum": 0.9, "weight_decay": 0.01},
    "nesterov": {"name": "sgd", "learning_rate": 0.05, "momentum": 0.9, "nesterov": True},
    "adam": {"name": "adam", "learning_rate": 0.01, "weight_decay": 0.0},
    "adamw": {"name": "adamw", "learning_rate": 0.01, "weight_decay": 0.1},
}
SCHEDULES = {
    "constant": ScheduleConfig("constant"),
    "cosine": ScheduleConfig("cosine", warmup_iterations=3),
    "step": ScheduleConfig("step", step_epochs=2, gamma=0.3),
    "one_cycle": ScheduleConfig("one_cycle"),
    "reduce_on_plateau": ScheduleConfig(
        "reduce_on_plateau", patience=0, min_delta=0.2, factor=0.5, monitor="train_loss"
    ),
}
LOSSES = {"cross_entropy": nn.CrossEntropyLoss, "mse": nn.MSELoss, "mae": nn.L1Loss, "huber": nn.HuberLoss}


@dataclass
class Rows:
    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    learning_rates: list[float] = field(default_factory=list)


def torch_optimizer(config: TrainingConfig, model: nn.Module) -> torch.optim.Optimizer:
    chosen = config.optimizer
    common = {"lr": chosen.learning_rate, "weight_decay": chosen.weight_decay}
    if chosen.name == "sgd":
        return torch.optim.SGD(
            model.parameters(), momentum=chosen.momentum, nesterov=chosen.nesterov, **common
        )
    kind = torch.optim.Adam if chosen.name == "adam" else torch.optim.AdamW
    return kind(model.parameters(), betas=chosen.betas, eps=chosen.eps, **common)


def textbook(config: TrainingConfig, data: TrainingData, model: nn.Module) -> Rows:
    rows, loss_function = Rows(), LOSSES[config.loss]()
    optimizer = torch_optimizer(config, model)
    x, y = torch.from_numpy(data.train.x), targets_tensor(data.train.y, config.task)
    per_epoch = len(x) // config.batch_size if config.drop_last else -(-len(x) // config.batch_size)
    schedule = make_schedule(
        config.schedule,
        config.optimizer.learning_rate,
        iterations_per_epoch=per_epoch,
        total_iterations=per_epoch * config.epochs,
    )
    model.train()
    for epoch in range(1, config.epochs + 1):
        order = epoch_permutation(len(x), config.seed, epoch)
        weighted, seen = 0.0, 0
        for indices in order.split(config.batch_size)[:per_epoch]:
            optimizer.param_groups[0]["lr"] = schedule(len(rows.losses) + 1)
            optimizer.zero_grad()
            loss = loss_function(model(x[indices]), y[indices])
            loss.backward()
            limit = config.gradient_clip_norm or float("inf")
            norm = nn.utils.clip_grad_norm_(model.parameters(), limit)
            optimizer.step()
            rows.losses.append(loss.item())
            rows.norms.append(norm.item())
            rows.learning_rates.append(optimizer.param_groups[0]["lr"])
            weighted, seen = weighted + loss.item() * len(indices), seen + len(indices)
        schedule.epoch_completed(weighted / seen)
    return rows


def assert_same(config: TrainingConfig, data: TrainingData) -> Rows:
    trainer = Trainer(config, data)
    plain = build(trainer.layers)
    plain.load_state_dict(trainer.model.state_dict())
    expected = textbook(config, data, plain)
    blocks = [event for event in trainer.run() if isinstance(event, IterationsCompleted)]
    for column, values in (
        ("train_loss", expected.losses),
        ("gradient_norm", expected.norms),
        ("learning_rate", expected.learning_rates),
    ):
        found = np.concatenate([getattr(block, column) for block in blocks])
        np.testing.assert_allclose(found, values, rtol=1e-4, atol=1e-6, err_msg=column)
    for name, tensor in trainer.model.state_dict().items():
        torch.testing.assert_close(tensor, plain.state_dict()[name], rtol=1e-3, atol=1e-5)
    return expected


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_optimizer_with_every_schedule(optimizer, schedule, make_config, classification):
    config = make_config(epochs=6, optimizer=OPTIMIZERS[optimizer], schedule=SCHEDULES[schedule])
    rows = assert_same(config, classification)
    assert rows.losses[-1] < rows.losses[0]
    assert (len(set(rows.learning_rates)) > 1) == (schedule != "constant")


@pytest.mark.parametrize("loss", ["mse", "mae", "huber"])
def test_every_regression_loss(loss, make_config, regression):
    rows = assert_same(make_config(task="regression", loss=loss, epochs=5), regression)
    assert rows.losses[-1] < rows.losses[0]


@pytest.mark.parametrize("fields", [
    {"drop_last": True},
    {"batch_size": 1, "epochs": 1},
    {"batch_size": 1000},
    {"batch_size": 149},
    {"seed": 2**63 - 1},
    {"model": {"batch_norm": True, "hidden_sizes": (8, 8)}, "optimizer": OPTIMIZERS["momentum"]},
    {"model": {"name": "linear"}},
], ids=str)  # fmt: skip
def test_mini_batches_of_every_kind(fields, make_config, classification):
    assert_same(make_config(**fields), classification)


def test_clipping_and_the_norm_before_it(make_config, classification):
    rows = assert_same(
        make_config(gradient_clip_norm=0.6, optimizer={"name": "sgd", "learning_rate": 0.5}), classification
    )
    assert max(rows.norms) > 0.6 > min(rows.norms)  # some are clipped, some are not


@pytest.mark.parametrize("batch_norm", [False, True])
def test_a_convolutional_network(batch_norm, make_config, images):
    model = {"name": "cnn", "input_shape": (3, 8, 8), "channels": (4, 8), "batch_norm": batch_norm}
    # Not Adam: a bias before batch_norm has a gradient of mere rounding errors, which Adam scales up.
    assert_same(make_config(model=model, batch_size=16, optimizer=OPTIMIZERS["nesterov"]), images)


def test_a_multi_layer_perceptron_on_images(make_config, images):
    assert_same(make_config(model={"input_shape": (3, 8, 8)}, batch_size=16), images)
