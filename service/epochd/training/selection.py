"""Which weights are kept: those of the best epoch, or the last."""

from dataclasses import dataclass
from typing import Literal

from torch import nn

from epochd.training.config import TrainingConfig
from epochd.training.early_stopping import BestEpoch
from epochd.training.events import Selection
from epochd.training.parameters import FlatParameters, Snapshot

Keep = Literal["best", "last"]


@dataclass(frozen=True, slots=True)
class Position:
    """How far training has come: the last iteration, and its epoch; 0 and 0 before the first."""

    epoch: int
    iteration: int


class WeightSelection:
    """Keeps a copy of the best weights on the device, and puts the chosen ones into the model.

    ``monitored`` is None when no metric chooses.
    """

    def __init__(self, model: nn.Module, flat: FlatParameters, monitored: BestEpoch | None) -> None:
        self._model = model
        self._flat = flat
        self._monitored = monitored
        self._best: tuple[Position, Snapshot] | None = None
        self._last: Snapshot | None = None

    def epoch_completed(self, position: Position, value: float | None) -> bool:
        """Look at the monitored value after an epoch; when it is the best so far, copy the weights: True."""
        if self._monitored is None or not self._monitored.update(position.epoch, value):
            return False
        self._best = position, Snapshot.of(self._flat, self._model)
        return True

    def select(self, keep: Keep, last: Position) -> Selection:
        """Load the best or the last weights into the model; without a best epoch, the last."""
        if self._last is None:
            # The model is about to lose them, and the caller may ask again.
            self._last = Snapshot.of(self._flat, self._model)
        if keep == "best" and self._best is not None and self._monitored is not None:
            position, snapshot = self._best
            snapshot.load(self._flat, self._model)
            return _best_selection(position, self._monitored)
        self._last.load(self._flat, self._model)
        reason = "the last weights were asked for" if keep == "last" else self._why_no_best()
        return Selection(last.epoch, last.iteration, None, None, reason)

    def _why_no_best(self) -> str:
        if self._monitored is None:
            return "there is no validation split to choose by, so the last weights are kept"
        return f"no completed epoch has a value of {self._monitored.monitor}, so the last weights are kept"


def _best_selection(position: Position, monitored: BestEpoch) -> Selection:
    extreme = "lowest" if monitored.mode == "min" else "highest"
    since = f" from epoch {monitored.start_epoch} on" if monitored.start_epoch > 1 else ""
    reason = f"{extreme} {monitored.monitor}{since}"
    return Selection(position.epoch, position.iteration, monitored.monitor, monitored.value, reason)


def monitored_epoch(config: TrainingConfig, *, has_validation: bool) -> BestEpoch | None:
    """What chooses the best epoch: early stopping's metric, else the validation loss, else nothing."""
    if config.early_stopping is not None:
        watched = config.early_stopping
        return BestEpoch(watched.monitor, watched.mode, watched.start_epoch)
    return BestEpoch("validation_loss", "min") if has_validation else None
