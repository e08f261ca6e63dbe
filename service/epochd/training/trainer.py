"""The training loop: epochs of iterations, validation, early stopping, and the weights that are kept."""

import math
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing

import torch
from torch import nn

from epochd.errors import NumericError
from epochd.training import device as devices
from epochd.training.architecture import layers
from epochd.training.checks import check_config, check_data, metric_names
from epochd.training.config import TrainingConfig
from epochd.training.data import DeviceSamples, MiniBatches, Samples, TrainingData, samples_per_chunk
from epochd.training.diagnosis import Diagnosis, diagnose
from epochd.training.early_stopping import EarlyStopping
from epochd.training.evaluation import ACTIVATION_ELEMENTS, Evaluation
from epochd.training.events import EpochCompleted, Event, IterationsCompleted, Selection, Stopped, StopReason
from epochd.training.iteration_log import IterationLog
from epochd.training.loss_curve import EpochPoint, LossCurve
from epochd.training.losses import loss_function, trivial_loss
from epochd.training.metrics import METRIC_NAMES, metric_factory
from epochd.training.models import build, cost
from epochd.training.optimizers import make_optimizer
from epochd.training.parameters import FlatParameters
from epochd.training.plan import make_plan
from epochd.training.schedules import make_schedule
from epochd.training.selection import Keep, Position, WeightSelection, monitored_epoch
from epochd.training.weight_update import WeightUpdate, make_forward

__all__ = ["Trainer", "TrainingData"]


class Trainer:
    """Trains one model on one data set, once.

    ``run()`` yields events; whoever consumes them stops the training by closing the generator. Then
    ``select()`` puts the weights that are kept into ``model``. ``layers`` describes the model (see
    ``architecture``), ``plan`` its iterations, ``position`` how far training has come, ``metric_names``
    what an epoch reports.

    Raises ValueError for a contradictory configuration, DataError for samples that cannot be trained on,
    InfrastructureError when the device is not there, and OutOfMemoryError.
    """

    def __init__(self, config: TrainingConfig, data: TrainingData) -> None:
        self.config = config
        self.plan = make_plan(
            train_samples=len(data.train),
            validation_samples=0 if data.validation is None else len(data.validation),
            batch_size=config.batch_size,
            epochs=config.epochs,
            drop_last=config.drop_last,
        )
        self.metric_names = metric_names(config, has_validation=data.validation is not None)
        check_config(config, self.metric_names)
        check_data(config, data, self.plan)
        self.device = devices.resolve_device(config.device)
        self.layers = layers(config.model)
        self.position = Position(0, 0)
        self.stop_reason: StopReason | None = None
        self._has_started = self._is_running = False
        with devices.memory_errors():
            samples = self._on_device(data.train)
            self._make_model(samples)
            self._make_mini_batches(samples)
            self._make_evaluation(data.validation)
        self._make_policies(data)

    def _make_model(self, samples: DeviceSamples) -> None:
        config = self.config
        self.model = self._initial_model()
        self._flat = FlatParameters(self.model)
        self._loss = loss_function(config.loss)
        self._make_metric = metric_factory(config.task, samples.y.to(self.device))
        self._optimizer = make_optimizer(config.optimizer, self._flat.values, self._flat.gradient)
        self._update = WeightUpdate(
            make_forward(self.model, self.device, config.precision),
            self._loss,
            self._flat,
            self._optimizer,
            config.gradient_clip_norm,
        )
        self._log = IterationLog(self.device)
        multiply_adds, self._widest = cost(self.model, samples.slice(0, 1)[0])
        self._threads = devices.suitable_threads(multiply_adds * config.batch_size)

    def _make_mini_batches(self, samples: DeviceSamples) -> None:
        config = self.config
        # The outputs for a chunk are kept as long as the chunk, so they count too.
        bytes_per_sample = max(samples.bytes_per_sample, 4 * config.model.outputs)
        self._mini_batches = MiniBatches(
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
                self._make_metric,
                batch_size=max(self.config.batch_size, ACTIVATION_ELEMENTS // self._widest),
            )

    def _on_device(self, samples: Samples) -> DeviceSamples:
        channels_last = self.config.model.name == "cnn"
        return DeviceSamples(samples, self.config.task, self.device, channels_last=channels_last)

    def _initial_model(self) -> nn.Sequential:
        """Made on the CPU, so that a seed means the same weights on every device."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(devices.mixed_seed("weights", self.config.seed))
            return build(self.layers).to(self.device)

    def _make_policies(self, data: TrainingData) -> None:
        config = self.config
        self._schedule = make_schedule(
            config.schedule,
            config.optimizer.learning_rate,
            iterations_per_epoch=self.plan.iterations_per_epoch,
            total_iterations=self.plan.total_iterations,
        )
        stopping = config.early_stopping
        self._early_stopping = None if stopping is None else EarlyStopping(stopping)
        monitored = monitored_epoch(config, has_validation=data.validation is not None)
        self._monitor = None if monitored is None else monitored.monitor
        self._selection = WeightSelection(self.model, self._flat, monitored)
        self._curve = LossCurve()
        self._baseline_loss = trivial_loss(config.loss, data.train.y)
        draws = any(layer["type"] == "Dropout" for layer in self.layers)
        self._randomness = devices.Randomness(self.device) if draws else None

    def run(self) -> Generator[Event]:
        """Train, yielding what happens; the last event is Stopped. Close the generator to stop before.

        Raises NumericError when the loss is no longer finite, and OutOfMemoryError. What was trained until
        then can be selected in each case.
        """
        if self._has_started:
            raise RuntimeError("A Trainer trains once; make another one.")
        self._has_started = self._is_running = True
        self._since = time.perf_counter()
        threads = devices.threads(self._threads)
        with closing(self._train()) as events, threads, devices.memory_errors():
            self._swap_randomness()
            try:
                for event in events:
                    self._swap_randomness()
                    try:
                        yield event
                    finally:
                        self._swap_randomness()
                    self._log.restart_clock()
            finally:
                self._swap_randomness()
                self._is_running = False

    def _swap_randomness(self) -> None:
        if self._randomness is not None:
            self._randomness.swap()

    def _train(self) -> Generator[Event]:
        while self.stop_reason is None:
            epoch = self.epochs_completed + 1
            started = time.perf_counter()
            yield from self._train_epoch(epoch)
            if self.stop_reason is None:
                yield self._complete_epoch(epoch, started)
        yield Stopped(self.stop_reason, self.epochs_completed, self.position.iteration)

    @property
    def epochs_completed(self) -> int:
        """How many epochs were trained to their end."""
        return self.position.iteration // self.plan.iterations_per_epoch

    def _train_epoch(self, epoch: int) -> Iterator[IterationsCompleted]:
        """The iterations of an epoch, or those until the time is up: then ``stop_reason`` says so."""
        log, update, schedule = self._log, self._update, self._schedule
        iteration = self.position.iteration
        last_iteration = epoch * self.plan.iterations_per_epoch
        self._begin_epoch(epoch)
        for chunk in self._mini_batches.chunks(epoch):
            outputs = []
            for x, y in chunk.mini_batches:
                iteration += 1
                learning_rate, slot = schedule(iteration), log.position
                outputs.append(update(x, y, learning_rate, log.losses[slot], log.norms[slot]))
                if log.add(learning_rate, len(y)) or iteration == last_iteration:
                    yield from self._fetch(epoch)
                    if iteration < last_iteration and self._is_out_of_time():
                        self.stop_reason = "time_limit"
                        return
            self._train_metric.add(torch.cat(outputs), chunk.y)

    def _begin_epoch(self, epoch: int) -> None:
        self.model.train()
        self._train_metric = self._make_metric()
        self._summed_loss = 0.0
        self._log.restart_clock()
        if self._randomness is not None:
            torch.manual_seed(devices.mixed_seed("dropout", self.config.seed, epoch))

    def _fetch(self, epoch: int) -> Iterator[IterationsCompleted]:
        block, summed_loss = self._log.fetch(epoch, self.position.iteration + 1)
        self._summed_loss += summed_loss
        self.position = Position(epoch, block.last_iteration)
        self._learning_rate = self._schedule(block.last_iteration)
        yield block
        loss = float(block.train_loss[-1])
        if not math.isfinite(loss):
            raise NumericError(
                f"The training loss became {loss} at iteration {block.last_iteration} (epoch {epoch}). "
                "A lower learning rate, gradient_clip_norm or a warm-up usually helps.",
                iteration=block.last_iteration,
            )

    def _is_out_of_time(self) -> bool:
        limit = self.config.max_runtime_seconds
        return limit is not None and time.perf_counter() - self._since >= limit

    def _complete_epoch(self, epoch: int, started: float) -> EpochCompleted:
        metrics = self._measure_epoch(epoch)
        monitored = None if self._monitor is None else metrics.get(self._monitor)
        is_best = self._selection.epoch_completed(self.position, monitored)
        if self.config.schedule.monitor in metrics:
            self._schedule.epoch_completed(metrics[self.config.schedule.monitor])
        return EpochCompleted(
            epoch=epoch,
            iteration=self.position.iteration,
            metrics={name: _finite(metrics.get(name)) for name in self.metric_names},
            learning_rate=self._learning_rate,
            seconds=time.perf_counter() - started,
            is_best=is_best,
            early_stopping=None if self._early_stopping is None else self._early_stopping.state,
            diagnosis=self._diagnose(epoch, metrics),
        )

    def _measure_epoch(self, epoch: int) -> Mapping[str, float]:
        """The metrics of an epoch, and whether it was the last one; the last one is always validated."""
        samples = self._mini_batches.samples_per_epoch
        metrics = {
            "train_loss": self._summed_loss / samples,
            f"train_{METRIC_NAMES[self.config.task]}": self._train_metric.value(),
        }
        if epoch == self.config.epochs:
            self.stop_reason = "completed"
        elif self._is_out_of_time():
            self.stop_reason = "time_limit"
        if self.stop_reason is not None or epoch % self.config.validate_every_epochs == 0:
            metrics |= self.evaluate()
        if self._stops_early(epoch, metrics) and "validation_loss" not in metrics:
            metrics |= self.evaluate()
        return metrics

    def _stops_early(self, epoch: int, metrics: Mapping[str, float]) -> bool:
        if self._early_stopping is None:
            return False
        self._early_stopping.update(epoch, metrics.get(self._early_stopping.config.monitor))
        self.stop_reason = self._early_stopping.stop_reason or self.stop_reason
        return self._early_stopping.stop_reason is not None

    def _diagnose(self, epoch: int, metrics: Mapping[str, float]) -> Diagnosis:
        self._curve.append(EpochPoint(epoch, metrics["train_loss"], metrics.get("validation_loss")))
        return diagnose(
            self._curve,
            baseline_loss=self._baseline_loss,
            epochs=self.config.epochs,
            finished=self.stop_reason is not None,
        )

    def evaluate(self) -> dict[str, float]:
        """The validation metrics of the weights that ``model`` holds now, in float32; each may be NaN.

        Empty without validation data.
        """
        if self._evaluation is None:
            return {}
        with devices.threads(self._threads), devices.memory_errors():
            loss, metric = self._evaluation.run()
        return {"validation_loss": loss, f"validation_{METRIC_NAMES[self.config.task]}": metric}

    def select(self, keep: Keep) -> Selection:
        """Load the best or the last weights into ``model``, once ``run()`` has ended or was closed.

        Without a best epoch these are the last weights, and the reason says why. May be called again.
        """
        if self._is_running:
            raise RuntimeError("The training still runs: close run() before selecting weights.")
        return self._selection.select(keep, self.position)

    def final_selection(self) -> Selection:
        """Load what the configuration wants: the best weights unless ``restore_best`` is off."""
        stopping = self.config.early_stopping
        return self.select("last" if stopping is not None and not stopping.restore_best else "best")


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
