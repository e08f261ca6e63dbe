"""What training happens to: the model on its device, its mini-batches, its weight updates and its evaluation."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from epochd.training import device as devices
from epochd.training.architecture import OPERATOR_MODEL, layers
from epochd.training.augmentation import Augmentation
from epochd.training.config import TrainingConfig
from epochd.training.data import (
    DiskSamples,
    MiniBatches,
    Samples,
    SplitOnDevice,
    TrainingData,
    samples_per_chunk,
)
from epochd.training.evaluation import ACTIVATION_ELEMENTS, Evaluation
from epochd.training.extra_metrics import extra_metrics
from epochd.training.losses import training_loss
from epochd.training.metric_names import METRIC_NAMES
from epochd.training.metrics import metric_factory
from epochd.training.models import build, cost, draws_randomness, parts_to_share
from epochd.training.optimizers import make_optimizer
from epochd.training.parameters import FlatParameters, Snapshot
from epochd.training.streaming import on_device
from epochd.training.weight_update import WeightUpdate, make_forward

CONVOLUTIONAL = frozenset({"cnn", "resnet"})
"""Models that are faster on images whose channels come last in memory."""


class Learner:
    """A model and the data that it learns from, on ``device``.

    ``update(x, y, learning_rate, loss_slot, norm_slot)`` trains on one mini-batch, ``mini_batches`` gives
    them, ``augmentation(x, epoch, iteration)``, unless None, changes one first, ``make_metric()`` is an empty metric
    of their outputs; ``layers`` describes the model, ``threads`` is on how many CPU threads to compute, and
    ``micro_batches`` tells how mini-batches are split that do not fit into memory.

    Raises InfrastructureError when the device is not there, and OutOfMemoryError.
    """

    def __init__(self, config: TrainingConfig, data: TrainingData) -> None:
        self.device = devices.resolve_device(config.device)
        self.layers = layers(config.model)
        self._config = config
        augmented = config.augmentation
        self.augmentation = None if augmented is None else Augmentation(augmented, config.seed)
        with devices.memory_errors():
            samples = self._on_device(data.train)
            self._make_model(samples)
            self._make_mini_batches(samples)
            self._make_evaluation(data)
        draws = draws_randomness(self.layers, self.model)
        self._randomness = devices.Randomness(self.device) if draws else None

    def _on_device(self, samples: Samples | DiskSamples) -> SplitOnDevice:
        channels_last = self._config.model.name in CONVOLUTIONAL
        return on_device(samples, self._config.task, self.device, channels_last=channels_last)

    def _make_model(self, samples: SplitOnDevice) -> None:
        config = self._config
        self.model = self._initial_model()
        self.flat = FlatParameters(self.model)
        self._loss = training_loss(config, samples.y.cpu().numpy(), self.device)
        self.make_metric = metric_factory(config.task, samples.y.to(self.device))
        self._optimizer = make_optimizer(config.optimizer, self.flat.values, self.flat.gradient)
        self._weight_update = WeightUpdate(
            make_forward(self.model, self.device, config.precision),
            self._loss,
            self.flat,
            self._optimizer,
            config.gradient_clip_norm,
            model=self.model,
        )
        self.micro_batches = self._weight_update.micro_batches
        self.update = self._watched_update(self._weight_update)
        with self._watch():
            multiply_adds, self._widest = cost(self.model, samples.slice(0, 1)[0])
        work = multiply_adds * config.batch_size
        self.threads = devices.suitable_threads(work // parts_to_share(self.model))

    def _watch(self) -> AbstractContextManager[None]:
        """To be around whatever calls the model: an operator's may raise anything, which becomes a ModelError."""
        if self.layers[0]["type"] != OPERATOR_MODEL:
            return nullcontext()
        # Imported when there is one, as for building it.
        watch: AbstractContextManager[None] = import_module("epochd.training.operator_models").failures(
            self._config.model.name
        )
        return watch

    def _watched_update(self, update: WeightUpdate) -> Callable[..., Tensor]:
        """Leave the update as it is for our own models: the smallest of them would feel a function around it."""
        if self.layers[0]["type"] != OPERATOR_MODEL:
            return update

        def watched(*arguments: Any) -> Tensor:
            with self._watch():
                return update(*arguments)

        return watched

    def _initial_model(self) -> nn.Module:
        """Made on the CPU, so that a seed means the same weights on every device."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(devices.mixed_seed("weights", self._config.seed))
            return build(self.layers).to(self.device)

    def _make_mini_batches(self, samples: SplitOnDevice) -> None:
        config = self._config
        # The outputs for a chunk are kept as long as the chunk, so they count too.
        bytes_per_sample = max(samples.bytes_per_sample, 4 * config.model.data.outputs)
        self.mini_batches = MiniBatches(
            samples,
            config.batch_size,
            seed=config.seed,
            drop_last=config.drop_last,
            chunk_size=samples_per_chunk(config.batch_size, bytes_per_sample),
        )

    def _make_evaluation(self, data: TrainingData) -> None:
        self._evaluation = None
        if data.validation is None:
            return
        self._evaluation = Evaluation(
            self.model,
            self._on_device(data.validation),
            self._loss,
            self.make_metric,
            batch_size=max(self._config.batch_size, ACTIVATION_ELEMENTS // self._widest),
            make_extra=extra_metrics(
                self._config.metrics,
                self._config.model.data.outputs,
                scale=data.target_scale,
                mean=data.target_mean,
                device=self.device,
            ),
        )

    def begin_epoch(self, epoch: int) -> None:
        """Draw what an epoch draws from its own seed on."""
        if self._randomness is not None:
            torch.manual_seed(self._dropout_seed(epoch))

    def _dropout_seed(self, *parts: int) -> int:
        return devices.mixed_seed("dropout", self._config.seed, *parts)

    def swap_randomness(self) -> None:
        """Exchange the random state of the training with that of its caller."""
        if self._randomness is not None:
            self._randomness.swap()

    def evaluate(self) -> dict[str, float]:
        """The validation metrics of the weights in the model; empty without validation data."""
        if self._evaluation is None:
            return {}
        with devices.threads(self.threads), devices.memory_errors(), self._watch():
            loss, metric, extra = self._evaluation.run()
        measured = {"loss": loss, METRIC_NAMES[self._config.task]: metric, **extra}
        return {f"validation_{name}": value for name, value in measured.items()}

    def state_dict(self, weights: Snapshot) -> dict[str, Any]:
        """What ``load_state_dict`` continues from, with the ``weights`` to continue with; tensors are in use."""
        return {
            "weights": weights.as_dict(),
            "optimizer": self._optimizer.state_dict(),
            "randomness": None if self._randomness is None else self._randomness.state_dict(),
            "micro_batch_size": self.micro_batches.size,
            "evaluated_together": None if self._evaluation is None else self._evaluation.batch_size,
        }

    def load_state_dict(self, state: dict[str, Any], epoch: int, iteration: int) -> None:
        """Continue from what ``state_dict`` gave after ``iteration`` of ``epoch``.

        Raises ValueError when the weights are those of another model.
        """
        Snapshot.from_dict(state["weights"], self.device).load(self.flat, self.model)
        self._optimizer.load_state_dict(state["optimizer"])
        if self._randomness is not None:
            self._randomness.load_state_dict(state["randomness"], self._dropout_seed(epoch, iteration))
        # What ran out of memory before would do so again, and other sizes round differently. Older states have neither.
        self._weight_update.split(state.get("micro_batch_size"))
        if self._evaluation is not None and state.get("evaluated_together") is not None:
            self._evaluation.batch_size = state["evaluated_together"]
