"""What every variant trains: the same data, model, initial weights and order of samples."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn
from torch.utils.data import Sampler

from epochd.training.architecture import layers
from epochd.training.config import DataShape, ModelConfig, OptimizerConfig, TrainingConfig
from epochd.training.data import Samples, epoch_permutation
from epochd.training.models import build
from epochd.training.trainer import Trainer, TrainingData

LEARNING_RATE, WEIGHT_DECAY = 1e-3, 0.01


class Clock:
    """Seconds: of the wall, or (``of_cpu``) of CPU by all threads, which a busy machine changes less."""

    of_cpu = False

    def __call__(self) -> float:
        return time.process_time() if self.of_cpu else time.perf_counter()


clock = Clock()


@dataclass(frozen=True)
class Run:
    """How many iterations were trained, in how many seconds, and each one's loss (none for a bare step)."""

    iterations: int
    seconds: float
    losses: list[float]


Train = Callable[["Workload", int], Run]
"""Trains a workload for at least so many iterations. Start-up and the making of the model are not timed."""


@dataclass(frozen=True)
class Workload:
    """A classification of random samples; nothing is learned, and the arithmetic is the same."""

    name: str
    model: ModelConfig
    samples: Samples
    batch_size: int

    @property
    def iterations_per_epoch(self) -> int:
        return -(-len(self.samples) // self.batch_size)

    def config(self, iterations: int) -> TrainingConfig:
        """What the engine is told; it trains whole epochs unless it is left before."""
        return TrainingConfig(
            task="classification",
            model=self.model,
            epochs=-(-iterations // self.iterations_per_epoch),
            batch_size=self.batch_size,
            optimizer=OptimizerConfig("adamw", LEARNING_RATE, WEIGHT_DECAY),
        )

    def trainer(self, iterations: int) -> Trainer:
        """The engine, with this workload's data."""
        return Trainer(self.config(iterations), TrainingData(self.samples))

    def torch_model(self) -> nn.Sequential:
        """A model of its own with the engine's initial weights."""
        model = build(layers(self.model))
        assert isinstance(model, nn.Sequential), "the peers train simple models"
        model.load_state_dict(self.trainer(1).model.state_dict())
        return model.train()

    def tensors(self) -> tuple[torch.Tensor, torch.Tensor]:
        """All samples and targets."""
        return torch.from_numpy(self.samples.x), torch.from_numpy(self.samples.y)

    def order(self, iterations: int) -> "EngineOrder":
        """The engine's order of samples, for loops that take a sampler."""
        return EngineOrder(len(self.samples), self.batch_size * iterations)

    def epochs(self, iterations: int) -> int:
        """How many epochs of ``order(iterations)`` make at least so many iterations."""
        return -(-iterations // min(iterations, self.iterations_per_epoch))


class EngineOrder(Sampler[int]):
    """The order of samples that the engine takes with seed 0, one epoch after the other.

    An epoch ends after ``limit`` samples, so that loops which only know whole epochs end when they should.
    """

    def __init__(self, samples: int, limit: int) -> None:
        self._samples = samples
        self._limit = min(limit, samples)
        self._epoch = 0

    def __len__(self) -> int:
        return self._limit

    def __iter__(self) -> Iterator[int]:
        self._epoch += 1
        order = epoch_permutation(self._samples, 0, self._epoch)
        yield from order[: self._limit].tolist()


def adamw(model: nn.Module, *, fused: bool | None = None) -> torch.optim.AdamW:
    """The optimizer of every loop but the engine's, which has its own."""
    return torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=fused)


def _random(shape: tuple[int, ...], classes: int, count: int) -> Samples:
    random = np.random.default_rng(0)
    x = random.standard_normal((count, *shape), dtype=np.float32)
    return Samples(x, random.integers(0, classes, count))


def workloads() -> dict[str, Workload]:
    """The three that all variants train, by name."""
    digits = ModelConfig("mlp", DataShape("table", (64,), 10), {"hidden_sizes": (128,)})
    table = ModelConfig("mlp", DataShape("table", (32,), 2), {"hidden_sizes": (256, 256)})
    images = ModelConfig("cnn", DataShape("image", (1, 28, 28), 10))
    return {
        "digits": Workload("MLP 64-128-10, 1 438 samples", digits, _random((64,), 10, 1438), 32),
        "table": Workload("MLP 32-256-256-2, 200 000 samples", table, _random((32,), 2, 200_000), 256),
        "images": Workload("CNN on 10 000 images of 28×28", images, _random((1, 28, 28), 10, 10_000), 64),
    }


def batch_sizes() -> list[Workload]:
    """The table at several batch sizes."""
    table = workloads()["table"]
    return [replace(table, batch_size=size) for size in (32, 128, 512, 2048, 8192)]
