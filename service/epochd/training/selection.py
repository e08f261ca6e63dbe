"""Which weights are kept: those of the best epoch, or the last."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from epochd.training.config import EarlyStoppingConfig, TrainingConfig
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

    def watch(self, stopping: EarlyStoppingConfig) -> None:
        """Choose as early stopping does from now on.

        The best so far is forgotten if another metric chose it, or if it came before ``start_epoch``.
        """
        before = self._monitored
        if before is not None and (before.monitor, before.mode) == (stopping.monitor, stopping.mode):
            self._monitored = before.starting(stopping.start_epoch)
        else:
            self._monitored = BestEpoch(stopping.monitor, stopping.mode, stopping.start_epoch)
        if self._monitored.epoch is None:
            self._best = None

    def epoch_completed(self, position: Position, metrics: Mapping[str, float]) -> bool:
        """Look at an epoch's metrics; when it is the best so far, copy the weights and say True."""
        if self._monitored is None:
            return False
        if not self._monitored.update(position.epoch, metrics.get(self._monitored.monitor)):
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

    def unselect(self) -> None:
        """Put the last weights back into the model, if ``select`` took them out."""
        if self._last is not None:
            self._last.load(self._flat, self._model)
            self._last = None

    def last(self) -> Snapshot:
        """The last weights, whatever is in the model: the tensors in use, or those that ``select`` kept."""
        return self._last or Snapshot(self._flat.values, list(self._model.buffers()))

    def state_dict(self) -> dict[str, Any]:
        """What ``load_state_dict`` continues from: by which metric the best is chosen, and the best so far."""
        chosen = self._monitored
        monitored = None if chosen is None else [chosen.monitor, chosen.mode, chosen.start_epoch]
        state: dict[str, Any] = {"monitored": monitored, "best_epoch": None, "best": None}
        if chosen is not None and self._best is not None:
            position, snapshot = self._best
            state["best_epoch"] = chosen.state_dict()
            state["best"] = {"iteration": position.iteration, **snapshot.as_dict()}
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what ``state_dict`` gave."""
        self._monitored = None if state["monitored"] is None else BestEpoch(*state["monitored"])
        self._best = None
        if self._monitored is not None and state["best"] is not None:
            self._monitored.load_state_dict(state["best_epoch"])
            position = Position(state["best_epoch"]["epoch"], state["best"]["iteration"])
            self._best = position, Snapshot.from_dict(state["best"], self._flat.values.device)

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
