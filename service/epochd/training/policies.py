"""What decides over a training: its schedule, early stopping, the choice of the best weights, the diagnosis."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from epochd.training.amendments import Amendment, amended
from epochd.training.config import EarlyStoppingConfig, TrainingConfig
from epochd.training.diagnosis import Diagnosis, diagnose
from epochd.training.early_stopping import EarlyStopping, EarlyStoppingState
from epochd.training.events import StopReason
from epochd.training.loss_curve import EpochPoint, LossCurve
from epochd.training.plan import Plan
from epochd.training.schedules import Schedule, make_schedule
from epochd.training.selection import Position, WeightSelection


class Policies:
    """The policies of one training, which amendments change while it goes on.

    ``config`` and ``plan`` are those in force. ``baseline_loss`` is what the trivial predictor loses.
    """

    def __init__(
        self, config: TrainingConfig, plan: Plan, selection: WeightSelection, baseline_loss: float
    ) -> None:
        self.config = config
        self.plan = plan
        self.selection = selection
        self.schedule = self._make_schedule()
        stopping = config.early_stopping
        self._early_stopping = None if stopping is None else EarlyStopping(stopping)
        self._curve = LossCurve()
        self._baseline_loss = baseline_loss

    def _make_schedule(self) -> Schedule:
        return make_schedule(
            self.config.schedule,
            self.config.optimizer.learning_rate,
            iterations_per_epoch=self.plan.iterations_per_epoch,
            total_iterations=self.plan.total_iterations,
        )

    def amend(self, amendment: Amendment, next_epoch: int) -> None:
        """Put an amendment into force; ``next_epoch`` is the first that will be judged under it."""
        self._put_in_force(amended(self.config, amendment))
        match amendment.field:
            case "learning_rate":
                self._continue_schedule(learning_rate=self.config.optimizer.learning_rate)
            case "epochs":
                self._continue_schedule()
            case "early_stopping":
                self._amend_early_stopping(self.config.early_stopping, next_epoch)

    def _put_in_force(self, config: TrainingConfig) -> None:
        self.config = config
        total = config.epochs * self.plan.iterations_per_epoch
        self.plan = replace(self.plan, total_iterations=total)

    def _continue_schedule(self, **state: float) -> None:
        """Make the schedule of the configuration in force, and have it go on where the one before was.

        ``state`` replaces parts of that: reduce_on_plateau alone has any, among it the current learning rate.
        """
        before = self.schedule.state_dict()
        self.schedule = self._make_schedule()
        self.schedule.load_state_dict({**before, **state})

    def _amend_early_stopping(self, config: EarlyStoppingConfig | None, next_epoch: int) -> None:
        before = self._early_stopping
        if config is None:
            self._early_stopping = None  # the best weights go on being chosen as before
            return
        self._early_stopping = (
            EarlyStopping(config, next_epoch) if before is None else before.amended(config, next_epoch)
        )
        self.selection.watch(config)

    @property
    def early_stopping(self) -> EarlyStoppingState | None:
        """What early stopping has seen and decided."""
        return None if self._early_stopping is None else self._early_stopping.state

    def stops_early(self, epoch: int, metrics: Mapping[str, float]) -> StopReason | None:
        """Why early stopping ends training after ``epoch``, if it does."""
        if self._early_stopping is None:
            return None
        self._early_stopping.update(epoch, metrics.get(self._early_stopping.config.monitor))
        return self._early_stopping.stop_reason

    def epoch_completed(
        self, position: Position, metrics: Mapping[str, float], mini_batch_noise: float | None
    ) -> bool:
        """Hear an epoch's metrics, and how far its mini-batches' losses vary; True when it is the best so far."""
        is_best = self.selection.epoch_completed(position, metrics)
        monitor = self.config.schedule.monitor
        if monitor in metrics:
            self.schedule.epoch_completed(metrics[monitor])
        losses = metrics["train_loss"], metrics.get("validation_loss")
        self._curve.append(EpochPoint(position.epoch, *losses, mini_batch_noise))
        return is_best

    def diagnose(self, *, finished: bool) -> Diagnosis:
        """What the loss curves say; ``finished``: no epoch will follow."""
        return diagnose(
            self._curve, baseline_loss=self._baseline_loss, epochs=self.config.epochs, finished=finished
        )

    def state_dict(self) -> dict[str, Any]:
        """What ``load_state_dict`` continues from."""
        stopping = self._early_stopping
        return {
            "in_force": _amendable(self.config),
            "schedule": self.schedule.state_dict(),
            "early_stopping": None if stopping is None else stopping.state_dict(),
            "curve": self._curve.state_dict(),
            "selection": self.selection.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what ``state_dict`` gave."""
        self._put_in_force(_with_amendable(self.config, state["in_force"]))
        self.schedule = self._make_schedule()
        self.schedule.load_state_dict(state["schedule"])
        stopping = self.config.early_stopping
        self._early_stopping = None if stopping is None else EarlyStopping(stopping)
        if self._early_stopping is not None:
            self._early_stopping.load_state_dict(state["early_stopping"])
        self._curve.load_state_dict(state["curve"])
        self.selection.load_state_dict(state["selection"])


def _amendable(config: TrainingConfig) -> dict[str, Any]:
    stopping = config.early_stopping
    return {
        "learning_rate": config.optimizer.learning_rate,
        "epochs": config.epochs,
        "early_stopping": None if stopping is None else asdict(stopping),
    }


def _with_amendable(config: TrainingConfig, values: Mapping[str, Any]) -> TrainingConfig:
    stopping = values["early_stopping"]
    return replace(
        config,
        optimizer=replace(config.optimizer, learning_rate=values["learning_rate"]),
        epochs=values["epochs"],
        early_stopping=None if stopping is None else EarlyStoppingConfig(**stopping),
    )
