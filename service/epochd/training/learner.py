"""What training happens to: the model on its device, its mini-batches, its weight updates and its evaluation."""

from typing import Any

import torch
from torch import nn

from epochd.training import device as devices
from epochd.training.architecture import layers
from epochd.training.config import TrainingConfig
from epochd.training.data import DeviceSamples, MiniBatches, Samples, TrainingData, samples_per_chunk
from epochd.training.evaluation import ACTIVATION_ELEMENTS, Evaluation
from epochd.training.losses import loss_function
from epochd.training.metrics import METRIC_NAMES, metric_factory
from epochd.training.models import build, cost
from epochd.training.optimizers import make_optimizer
from epochd.training.parameters import FlatParameters, Snapshot
from epochd.training.weight_update import WeightUpdate, make_forward


class Learner:
    """A model and the data that it learns from, on ``device``.

    ``update(x, y, learning_rate, loss_slot, norm_slot)`` trains on one mini-batch, ``mini_batches`` gives
    them, ``make_metric()`` an empty metric of their outputs; ``layers`` describes the model, and ``threads``
    is on how many CPU threads to compute.

    Raises InfrastructureError when the device is not there, and OutOfMemoryError.
    """

    def __init__(self, config: TrainingConfig, data: TrainingData) -> None:
        self.device = devices.resolve_device(config.device)
        self.layers = layers(config.model)
        self._config = config
        with devices.memory_errors():
            samples = self._on_device(data.train)
            self._make_model(samples)
            self._make_mini_batches(samples)
            self._make_evaluation(data.validation)
        draws = any(layer["type"] == "Dropout" for layer in self.layers)
        self._randomness = devices.Randomness(self.device) if draws else None

    def _on_device(self, samples: Samples) -> DeviceSamples:
        channels_last = self._config.model.name == "cnn"
        return DeviceSamples(samples, self._config.task, self.device, channels_last=channels_last)

    def _make_model(self, samples: DeviceSamples) -> None:
        config = self._config
        self.model = self._initial_model()
        self.flat = FlatParameters(self.model)
        self._loss = loss_function(config.loss)
        self.make_metric = metric_factory(config.task, samples.y.to(self.device))
        self._optimizer = make_optimizer(config.optimizer, self.flat.values, self.flat.gradient)
        self.update = WeightUpdate(
            make_forward(self.model, self.device, config.precision),
            self._loss,
            self.flat,
            self._optimizer,
            config.gradient_clip_norm,
        )
        multiply_adds, self._widest = cost(self.model, samples.slice(0, 1)[0])
        self.threads = devices.suitable_threads(multiply_adds * config.batch_size)

    def _initial_model(self) -> nn.Sequential:
        """Made on the CPU, so that a seed means the same weights on every device."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(devices.mixed_seed("weights", self._config.seed))
            return build(self.layers).to(self.device)

    def _make_mini_batches(self, samples: DeviceSamples) -> None:
        config = self._config
        # The outputs for a chunk are kept as long as the chunk, so they count too.
        bytes_per_sample = max(samples.bytes_per_sample, 4 * config.model.outputs)
        self.mini_batches = MiniBatches(
            samples,
            config.batch_size,
            seed=config.seed,
            drop_last=config.drop_last,
            chunk_size=samples_per_chunk(config.batch_size, bytes_per_sample),
        )

    def _make_evaluation(self, validation: Samples | None) -> None:
        self._evaluation = None
        if validation is not None:
            self._evaluation = Evaluation(
                self.model,
                self._on_device(validation),
                self._loss,
                self.make_metric,
                batch_size=max(self._config.batch_size, ACTIVATION_ELEMENTS // self._widest),
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
        with devices.threads(self.threads), devices.memory_errors():
            loss, metric = self._evaluation.run()
        return {"validation_loss": loss, f"validation_{METRIC_NAMES[self._config.task]}": metric}

    def state_dict(self, weights: Snapshot) -> dict[str, Any]:
        """What ``load_state_dict`` continues from, with the ``weights`` to continue with; tensors are in use."""
        return {
            "weights": weights.as_dict(),
            "optimizer": self._optimizer.state_dict(),
            "randomness": None if self._randomness is None else self._randomness.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any], epoch: int, iteration: int) -> None:
        """Continue from what ``state_dict`` gave after ``iteration`` of ``epoch``.

        Raises ValueError when the weights are those of another model.
        """
        Snapshot.from_dict(state["weights"], self.device).load(self.flat, self.model)
        self._optimizer.load_state_dict(state["optimizer"])
        if self._randomness is not None:
            self._randomness.load_state_dict(state["randomness"], self._dropout_seed(epoch, iteration))
