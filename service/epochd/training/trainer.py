"""The training loop: epochs of iterations, validation, early stopping, and the weights that are kept."""

import math
from collections.abc import Container, Generator, Iterator, Mapping
from contextlib import closing
from typing import Any

from epochd.errors import NumericError
from epochd.training import device as devices
from epochd.training import resumption
from epochd.training.amendments import (
    AT_EPOCH_END,
    EVERY_FIELD,
    AmendableField,
    Amendment,
    Amendments,
    amended,
)
from epochd.training.checks import check_config, check_data, metric_names
from epochd.training.config import TrainingConfig
from epochd.training.data import TrainingData
from epochd.training.epoch_sums import EpochSums
from epochd.training.events import (
    AmendmentApplied,
    EpochCompleted,
    Event,
    IterationsCompleted,
    MemoryReduced,
    Selection,
    Stopped,
    StopReason,
)
from epochd.training.iteration_log import IterationLog
from epochd.training.learner import Learner
from epochd.training.losses import trivial_training_loss
from epochd.training.metric_names import METRIC_NAMES
from epochd.training.micro_batches import MicroBatches
from epochd.training.plan import Plan, make_plan
from epochd.training.policies import Policies
from epochd.training.selection import Keep, Position, WeightSelection, monitored_epoch
from epochd.training.stopwatch import Stopwatch

__all__ = ["Trainer", "TrainingData"]


class Trainer:
    """Trains one model on one data set, once; perhaps from where another trainer was.

    ``run()`` yields events; whoever consumes them stops the training by closing the generator. Then
    ``select()`` puts the weights that are kept into ``model``. Between two events, ``amend()`` changes the
    training, and ``state_dict()`` gives all that another trainer of the same configuration and data needs to
    go on from there: on the same device, with as many threads, it trains bit for bit what this one would have.

    ``layers`` describes the model (see ``architecture``), ``metric_names`` is what an epoch reports.
    ``position`` is how far training has come, ``epochs_completed`` how many epochs were trained and validated,
    ``last_epoch`` the event of the last of them, ``stop_reason`` why no more will follow.

    Raises ValueError for a contradictory configuration, DataError for samples that cannot be trained on,
    InfrastructureError when the device is not there, and OutOfMemoryError.
    """

    def __init__(self, config: TrainingConfig, data: TrainingData) -> None:
        plan = make_plan(
            train_samples=len(data.train),
            validation_samples=0 if data.validation is None else len(data.validation),
            batch_size=config.batch_size,
            epochs=config.epochs,
            drop_last=config.drop_last,
        )
        self.metric_names = metric_names(config, has_validation=data.validation is not None)
        check_config(config, self.metric_names)
        check_data(config, data, plan)
        self.position = Position(0, 0)
        self.epochs_completed = 0
        self.last_epoch: EpochCompleted | None = None
        self.stop_reason: StopReason | None = None
        self._learner = Learner(config, data)
        self.model, self.layers = self._learner.model, self._learner.layers
        self.device = self._learner.device
        monitored = monitored_epoch(config, has_validation=data.validation is not None)
        self._selection = WeightSelection(self.model, self._learner.flat, monitored)
        self._policies = Policies(config, plan, self._selection, trivial_training_loss(config, data.train.y))
        self._amendments = Amendments()
        self._log = IterationLog(self.device)
        self._sums: EpochSums | None = None
        self._learning_rate = config.optimizer.learning_rate
        self._stopwatch = Stopwatch()
        self._has_started = self._is_running = False
        self._is_between_events = self._is_finite = True
        chunk_size = self._learner.mini_batches.chunk_size
        self._description = resumption.description(config, plan, self.layers, chunk_size)

    @property
    def config(self) -> TrainingConfig:
        """The configuration in force: what was given, and the amendments since."""
        return self._policies.config

    @property
    def plan(self) -> Plan:
        """The plan in force."""
        return self._policies.plan

    @property
    def micro_batches(self) -> MicroBatches:
        """How mini-batches are split that do not fit into memory."""
        return self._learner.micro_batches

    @property
    def elapsed_seconds(self) -> float:
        """How long training has taken until now, that of the trainers before this one included."""
        return self._stopwatch.seconds

    def run(self) -> Generator[Event]:
        """Train, yielding what happens; the last event is Stopped. Close the generator to stop before.

        Raises NumericError when the loss is no longer finite, and OutOfMemoryError. What was trained until
        then can be selected in each case.
        """
        if self._has_started:
            raise RuntimeError("A Trainer trains once; make another one.")
        self._has_started = self._is_running = True
        self._selection.unselect()
        threads = devices.threads(self._learner.threads)
        with closing(self._train()) as events, threads, devices.memory_errors(), self._stopwatch:
            self._learner.swap_randomness()
            try:
                yield from self._between_events(events)
            finally:
                self._learner.swap_randomness()
                self._is_running = False

    def _between_events(self, events: Iterator[Event]) -> Generator[Event]:
        """The same events; while the caller has one, the randomness is the caller's, and the state is whole."""
        self._is_between_events = False
        for event in events:
            self._learner.swap_randomness()
            self._is_between_events = True
            try:
                yield event
            finally:
                self._learner.swap_randomness()
            self._is_between_events = False
            self._log.restart_clock()
        self._is_between_events = True

    def _train(self) -> Generator[Event]:
        # Before the first iteration nothing is decided yet; later this only announces what is in force already.
        yield from self._amend(() if self.position.iteration else EVERY_FIELD)
        while self.stop_reason is None:
            epoch = self.epochs_completed + 1
            yield from self._train_epoch(epoch)
            if self.stop_reason is None:
                yield from self._amend(AT_EPOCH_END)
                yield self._complete_epoch(epoch)
        yield Stopped(self.stop_reason, self.epochs_completed, self.position.iteration)

    def _train_epoch(self, epoch: int) -> Iterator[Event]:
        """What is left of an epoch's iterations, or those until the time is up: ``stop_reason`` says so."""
        log, update, policies = self._log, self._learner.update, self._policies
        augmentation, micro_batches = self._learner.augmentation, self.micro_batches
        iteration = self.position.iteration
        last_iteration = epoch * self.plan.iterations_per_epoch
        first_iteration = last_iteration - self.plan.iterations_per_epoch + 1
        if iteration < last_iteration:
            yield from self._amend({"learning_rate"})
        sums = self._begin_epoch(epoch)
        fetch_after = self._fetch_after(last_iteration)
        with closing(self._learner.mini_batches.chunks(epoch, sums.mini_batches)) as chunks:
            for chunk in chunks:
                # The chunk in progress is gathered whole: elsewhere in memory, kernels may round differently.
                trained = iteration + 1 - first_iteration - sums.mini_batches
                for x, y in chunk.mini_batches[trained:]:
                    iteration += 1
                    learning_rate, slot = policies.schedule(iteration), log.position
                    inputs = x if augmentation is None else augmentation(x, epoch, iteration)
                    sums.outputs.append(update(inputs, y, learning_rate, log.losses[slot], log.norms[slot]))
                    if log.add(learning_rate, len(y)) or iteration == fetch_after or micro_batches.is_news:
                        yield from self._fetch(epoch, sums)
                        if iteration < last_iteration:
                            if self._is_out_of_time():
                                self.stop_reason = "time_limit"
                                return
                            yield from self._amend({"learning_rate"})
                            fetch_after = self._fetch_after(last_iteration)
                sums.close_chunk(chunk)

    def _begin_epoch(self, epoch: int) -> EpochSums:
        """The sums of an epoch: new ones, or those of an epoch that was begun before."""
        self.model.train()
        if self._sums is None:
            self._sums = EpochSums(self._learner.make_metric(), self.elapsed_seconds)
            self._learner.begin_epoch(epoch)
        self._log.restart_clock()
        return self._sums

    def _fetch_after(self, last_iteration: int) -> int:
        """At which iteration the block ends at the latest: where the epoch does, or a known amendment."""
        known = self._amendments.next_iteration(self.position.iteration, "learning_rate")
        return last_iteration if known is None else min(known, last_iteration)

    def _fetch(self, epoch: int, sums: EpochSums) -> Iterator[IterationsCompleted | MemoryReduced]:
        block, samples = self._log.fetch(epoch, self.position.iteration + 1)
        loss = float(block.train_loss[-1])
        self._is_finite = math.isfinite(loss)
        if self._is_finite:
            sums.add(block.train_loss, samples)
        self.position = Position(epoch, block.last_iteration)
        self._learning_rate = self._policies.schedule(block.last_iteration)
        yield block
        if self.micro_batches.is_news:
            yield self._memory_reduced()
        if not self._is_finite:
            raise NumericError(
                f"The training loss became {loss} at iteration {block.last_iteration} (epoch {epoch}). "
                "A lower learning rate, gradient_clip_norm or a warm-up usually helps.",
                iteration=block.last_iteration,
            )

    def _memory_reduced(self) -> MemoryReduced:
        micro_batches, batch_size = self.micro_batches, self.plan.batch_size
        assert micro_batches.size is not None, "it was reduced"
        micro_batches.is_news = False
        return MemoryReduced(
            self.position.epoch,
            self.position.iteration,
            batch_size,
            micro_batches.size,
            micro_batches.parts(batch_size),
            micro_batches.has_batch_statistics,
        )

    def _is_out_of_time(self) -> bool:
        limit = self.config.max_runtime_seconds
        return limit is not None and self.elapsed_seconds >= limit

    def _amend(self, fields: Container[AmendableField]) -> Iterator[AmendmentApplied]:
        """Put what is due into force, of ``fields`` alone."""
        position = self.position
        while (amendment := self._amendments.due(position.iteration, fields)) is not None:
            if not self._amendments.is_in_force(amendment):
                self._policies.amend(amendment, next_epoch=self.epochs_completed + 1)
            yield self._amendments.applied(amendment, position.epoch, position.iteration)

    def _complete_epoch(self, epoch: int) -> EpochCompleted:
        metrics = self._measure_epoch(epoch)
        assert self._sums is not None, "the epoch was trained"
        noise = self._sums.mini_batch_noise()
        is_best = self._policies.epoch_completed(self.position, metrics, noise)
        completed = EpochCompleted(
            epoch=epoch,
            iteration=self.position.iteration,
            metrics={name: _finite(metrics.get(name)) for name in self.metric_names},
            learning_rate=self._learning_rate,
            seconds=self.elapsed_seconds - self._sums.started,
            is_best=is_best,
            early_stopping=self._policies.early_stopping,
            diagnosis=self._policies.diagnose(finished=self.stop_reason is not None),
        )
        self.epochs_completed, self.last_epoch, self._sums = epoch, completed, None
        return completed

    def _measure_epoch(self, epoch: int) -> Mapping[str, float]:
        """The metrics of an epoch, and whether it was the last one; the last one is always validated."""
        metrics = self._train_metrics()
        if epoch >= self.config.epochs:
            self.stop_reason = "completed"
        elif self._is_out_of_time():
            self.stop_reason = "time_limit"
        if self.stop_reason is not None or epoch % self.config.validate_every_epochs == 0:
            metrics |= self.evaluate()
        stops_early = self._policies.stops_early(epoch, metrics)
        if stops_early is not None:
            self.stop_reason = stops_early
            if "validation_loss" not in metrics:
                metrics |= self.evaluate()
        return metrics

    def _train_metrics(self) -> dict[str, float]:
        assert self._sums is not None, "the epoch was trained"
        loss, metric = self._sums.values(self._learner.mini_batches.samples_per_epoch)
        return {"train_loss": loss, f"train_{METRIC_NAMES[self.config.task]}": metric}

    def evaluate(self) -> dict[str, float]:
        """The validation metrics of the weights that ``model`` holds now, in float32; each may be NaN.

        Empty without validation data.
        """
        return self._learner.evaluate()

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

    def amend(self, amendment: Amendment) -> None:
        """Ask for a change, before ``run()`` or between two of its events.

        A learning rate holds from the next iteration on, and every schedule continues with it. ``epochs`` and
        ``early_stopping`` wait for the end of the epoch in progress (before the first iteration they do not),
        and are in force when it is decided whether training ends there. With ``amendment.iteration``, all
        that happens after that iteration. AmendmentApplied tells that it took effect.

        One that took effect before this trainer resumed is in its state already: it may be asked for again.
        Raises ValueError for a value that the training cannot have.
        """
        check_config(amended(self.config, amendment), self.metric_names)
        self._amendments.ask(amendment)

    @property
    def amended_at(self) -> Mapping[int, tuple[int, int]]:
        """After which epoch and iteration each amendment took effect, by its number."""
        return self._amendments.applied_at

    @property
    def is_resumable(self) -> bool:
        """Whether there is a state to resume from: not after an error, nor after a loss that is not finite."""
        return self._is_between_events and self._is_finite

    def state_dict(self) -> dict[str, Any]:
        """Everything that ``load_state_dict`` continues from; valid before ``run()``, at each event, and after.

        Nested dicts and lists of tensors on the CPU, which training does not change any more, and of plain
        values. Raises RuntimeError unless ``is_resumable``, and OutOfMemoryError.
        """
        if not self.is_resumable:
            raise RuntimeError(
                "Training was cut off by an error, or has diverged: nothing can resume from it."
            )
        with devices.memory_errors():
            learner = resumption.on_cpu(self._learner.state_dict(self._selection.last()), copy=True)
            sums = None if self._sums is None else resumption.on_cpu(self._sums.state_dict(), copy=True)
            # The best weights are never changed in place: no copy of them is needed.
            policies = resumption.on_cpu(self._policies.state_dict(), copy=False)
        return {
            "version": resumption.VERSION,
            "description": self._description,
            "epoch": self.position.epoch,
            "iteration": self.position.iteration,
            "epochs_completed": self.epochs_completed,
            "last_epoch": None if self.last_epoch is None else self.last_epoch.as_dict(),
            "stop_reason": self.stop_reason,
            "elapsed_seconds": self.elapsed_seconds,
            "learning_rate": self._learning_rate,
            "learner": learner,
            "sums": sums,
            "policies": policies,
            "amendments": self._amendments.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what ``state_dict`` of a trainer with the same configuration and data gave.

        Call it before ``run()``. Raises ValueError that says what does not fit; this trainer is of no more use
        then.
        """
        if self._has_started:
            raise RuntimeError("A Trainer resumes before it trains; make another one.")
        resumption.require_version(state)
        self._selection.unselect()
        try:
            resumption.require_same(state["description"], self._description)
            with devices.memory_errors():
                self._load_state_dict(state)
        except (AttributeError, KeyError, RuntimeError, TypeError) as error:
            raise ValueError(f"The state is not whole: {error!r}.") from error

    def _load_state_dict(self, state: dict[str, Any]) -> None:
        self.position = Position(state["epoch"], state["iteration"])
        self.epochs_completed = state["epochs_completed"]
        last_epoch = state["last_epoch"]
        self.last_epoch = None if last_epoch is None else EpochCompleted.from_dict(last_epoch)
        self.stop_reason = state["stop_reason"]
        self._stopwatch.seconds = state["elapsed_seconds"]
        self._learning_rate = state["learning_rate"]
        self._learner.load_state_dict(state["learner"], self.position.epoch, self.position.iteration)
        if state["sums"] is not None:
            self._sums = EpochSums(self._learner.make_metric(), self.elapsed_seconds)
            self._sums.load_state_dict(state["sums"], self.device)
        self._policies.load_state_dict(state["policies"])
        self._amendments.load_state_dict(state["amendments"])


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
