"""Changes to a training under way, each of which takes effect at a definite iteration. No torch."""

import math
from collections.abc import Container, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

from epochd.training.config import EarlyStoppingConfig, TrainingConfig
from epochd.training.events import AmendmentApplied

AmendableField = Literal["learning_rate", "epochs", "early_stopping"]
EVERY_FIELD: frozenset[AmendableField] = frozenset(get_args(AmendableField))
AT_EPOCH_END = EVERY_FIELD - {"learning_rate"}


@dataclass(frozen=True, slots=True)
class Amendment:
    """A new value for one field of a training's configuration.

    ``number`` orders amendments and tells them apart: 1, 2, …. ``iteration`` None: it takes effect as soon as
    its field allows. Otherwise it took effect after that iteration before, and does so again.
    """

    number: int
    field: AmendableField
    value: float | int | EarlyStoppingConfig | None
    iteration: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """The same as JSON-ready values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Amendment":
        """Make it again from what ``as_dict`` gave."""
        value = values["value"]
        if isinstance(value, dict):
            value = EarlyStoppingConfig(**value)
        return cls(values["number"], values["field"], value, values["iteration"])


def amended(config: TrainingConfig, amendment: Amendment) -> TrainingConfig:
    """The configuration with the new value. Raises ValueError when the field cannot have it."""
    value = amendment.value
    match amendment.field, value:
        case "learning_rate", int() | float() if math.isfinite(value) and value > 0:
            return replace(config, optimizer=replace(config.optimizer, learning_rate=float(value)))
        case "epochs", int() if value >= 1 and not isinstance(value, bool):
            return replace(config, epochs=value)
        case "early_stopping", None | EarlyStoppingConfig():
            return replace(config, early_stopping=value)
        case _:
            raise ValueError(f"{amendment.field} cannot become {value!r}.")


class Amendments:
    """Amendments that were asked for, until each takes effect, and where those before them did.

    Those of one field take effect in the order of their numbers, so that the newest value is the one that
    stays.
    """

    def __init__(self) -> None:
        self.pending: dict[int, Amendment] = {}
        self._applied: dict[int, tuple[int, int]] = {}

    def ask(self, amendment: Amendment) -> None:
        """Take one in; the same number again replaces it while it waits.

        One that took effect already does so no more. It is only announced again if the caller does not know:
        it names no iteration.
        """
        if amendment.number not in self._applied or amendment.iteration is None:
            self.pending[amendment.number] = amendment

    @property
    def applied_at(self) -> Mapping[int, tuple[int, int]]:
        """After which epoch and iteration each took effect, by its number."""
        return dict(self._applied)

    def is_in_force(self, amendment: Amendment) -> bool:
        """Whether it took effect already."""
        return amendment.number in self._applied

    def due(self, iteration: int, fields: Container[AmendableField]) -> Amendment | None:
        """The first that takes effect after ``iteration``, or is to be announced; of ``fields`` alone."""
        waiting: set[AmendableField] = set()
        for _, amendment in sorted(self.pending.items()):
            if self.is_in_force(amendment):
                return amendment
            if amendment.field in fields and amendment.field not in waiting and _is_due(amendment, iteration):
                return amendment
            waiting.add(amendment.field)
        return None

    def next_iteration(self, after: int, field: AmendableField) -> int | None:
        """The first iteration beyond ``after`` at which one of ``field`` is known to take effect."""
        known = (one.iteration for one in self.pending.values() if one.field == field)
        return min(
            (iteration for iteration in known if iteration is not None and iteration > after), default=None
        )

    def applied(self, amendment: Amendment, epoch: int, iteration: int) -> AmendmentApplied:
        """Note that it took effect, there or, if it is in force already, where it did; gives the event."""
        del self.pending[amendment.number]
        where = self._applied.setdefault(amendment.number, (epoch, iteration))
        return AmendmentApplied(amendment.number, *where)

    def state_dict(self) -> dict[str, Any]:
        """What ``load_state_dict`` continues from, as JSON-ready values."""
        return {
            "pending": [amendment.as_dict() for amendment in self.pending.values()],
            "applied": [[number, *where] for number, where in self._applied.items()],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what ``state_dict`` gave; what was asked for here before is asked for again."""
        asked = list(self.pending.values())
        pending = [Amendment.from_dict(values) for values in state["pending"]]
        self.pending = {amendment.number: amendment for amendment in pending}
        self._applied = {number: (epoch, iteration) for number, epoch, iteration in state["applied"]}
        for amendment in asked:
            self.ask(amendment)


def _is_due(amendment: Amendment, iteration: int) -> bool:
    return amendment.iteration is None or amendment.iteration <= iteration
