"""Replays early stopping over the recorded epochs of a job: the decisions are ``EarlyStopping``'s, as in training."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from epochd.contract.spec import EarlyStopping as Policy
from epochd.contract.what_if import MAX_POLICIES, Actual, Replayed, WhatIf, WhatIfRequest
from epochd.errors import InvalidRequestError, ParamError
from epochd.jobs.lifecycle import is_done
from epochd.store import jobs
from epochd.store.database import Database
from epochd.store.jobs import JobRow
from epochd.store.metrics import EpochRow
from epochd.store.series import EpochSeries, epoch_parts, open_epochs
from epochd.training.config import EarlyStoppingConfig
from epochd.training.early_stopping import BestEpoch, EarlyStopping
from epochd.training.metric_names import better

MAX_LOOKS: Final = 10_000_000
"""Epochs that all policies together may look at: some ten seconds of work, as long as to read a million epochs."""
LOOKS_OF_AUTO: Final = 10
"""An epoch of a policy that measures the noise may take so many times longer."""


def what_if(db: Database, job_id: str, asked: WhatIfRequest) -> WhatIf:
    """Replay policies over what a job has recorded so far, in any status.

    The epochs are read in parts, once for all policies; a policy that has stopped costs nothing more.

    Raises:
        NotFoundError: code ``job_not_found``.
        InvalidRequestError: what is asked for contradicts the job, or is too much.

    """
    with db.read() as tx:
        row = jobs.get(tx, job_id)
        series = open_epochs(tx, row)
    policies = _policies(row, asked)
    replay = Replay(row, policies)
    replay.over(db, series)
    return WhatIf(
        job=row.id,
        status=row.status,
        epochs=replay.passed.epoch,
        actual=replay.actual(),
        data=[replay.outcome(policy) for policy in replay.policies],
    )


def _policies(row: JobRow, asked: WhatIfRequest) -> list[Policy]:
    base = _base(row, asked)
    patiences, min_deltas = _several(base["patience"]), _several(base["min_delta"])
    count = len(patiences) * len(min_deltas)
    errors = []
    if count > MAX_POLICIES:
        message = (
            f"{len(patiences)} times {len(min_deltas)} min_delta are {count} policies; at most {MAX_POLICIES} are "
            "replayed at once: send a part of them."
        )
        errors.append(ParamError("patience", message, "too_many_policies"))
    if base["start_epoch"] > row.spec["epochs"]:
        message = (
            f"start_epoch {base['start_epoch']} comes after the job's last epoch, {row.spec['epochs']}: no epoch "
            "would be looked at."
        )
        errors.append(ParamError("start_epoch", message, "start_epoch_after_last_epoch"))
    if errors:
        raise InvalidRequestError.of(*errors)
    return [
        Policy.model_validate({**base, "patience": patience, "min_delta": min_delta})
        for patience in patiences
        for min_delta in min_deltas
    ]


def _several(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _base(row: JobRow, asked: WhatIfRequest) -> dict[str, Any]:
    """The policy that is asked for, with lists where several are."""
    sent = asked.model_dump(exclude_unset=True)
    target = {"target": sent.pop("target")} if "target" in sent else {}
    sent = {name: value for name, value in sent.items() if value is not None}
    base = {
        **Policy(monitor="validation_loss", mode="min").model_dump(),
        **(row.spec["early_stopping"] or {}),
    }
    if (
        sent.get("monitor", base["monitor"]) != base["monitor"]
    ):  # the job's mode and target are about another metric
        base |= {"mode": better(sent["monitor"]), "target": None}
    return {**base, **sent, **target}


@dataclass(frozen=True, slots=True)
class Passed:
    """How far training was after an epoch: epochs, iterations and seconds since it began; the metric, if measured."""

    epoch: int = 0
    iteration: int = 0
    seconds: float = 0.0
    value: float | None = None


class ReplayedPolicy:
    """One policy on its way through the epochs; ``ended`` is where it stopped."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.stopping = EarlyStopping(EarlyStoppingConfig(**policy.model_dump()))
        self.looks = LOOKS_OF_AUTO if policy.min_delta == "auto" else 1
        self.ended: Passed | None = None

    def stops(self, passed: Passed) -> bool:
        """Look at an epoch; not to be called again once it is True."""
        if self.stopping.decide(passed.epoch, passed.value) is None:
            return False
        self.ended = passed
        return True

    def kept(self, end: Passed) -> tuple[int | None, float | None]:
        """The epoch whose weights come out when training ends there, and the metric at it."""
        best = self.stopping.best
        if self.policy.restore_best and best.epoch is not None:
            return best.epoch, best.value
        return end.epoch or None, end.value


class Replay:
    """Policies that watch the same metric in the same mode, at least one, over the epochs of a job."""

    def __init__(self, row: JobRow, policies: Sequence[Policy]) -> None:
        self.policies = [ReplayedPolicy(policy) for policy in policies]
        self.passed = Passed()
        self._row = row
        self._monitor = str(policies[0].monitor)
        self._best = BestEpoch(self._monitor, policies[0].mode or "min", policies[0].start_epoch)
        self._validated_every = int((row.spec["validation"] or {}).get("every_epochs", 1))
        self._kept_epoch: int | None = (row.selected_checkpoint or {}).get("epoch")
        self._kept_value: float | None = None
        self._looks = 0

    def over(self, db: Database, series: EpochSeries) -> None:
        """Replay the whole series.

        Raises InvalidRequestError: the job does not record the metric, or the policies look at too many epochs.
        """
        going_on = self.policies
        known: set[str] = set()
        for rows in epoch_parts(db, series):
            for passed in self._pass(rows):
                going_on = [policy for policy in going_on if not policy.stops(passed)]
                self._looks += sum(policy.looks for policy in going_on)
                self._limit_work()
            known.update(*(row.metrics for row in rows))
        if known and self._monitor not in known:
            message = f"The job records no metric {self._monitor!r}, but {', '.join(sorted(known))}."
            raise InvalidRequestError.of(ParamError("monitor", message, "unknown_metric"))

    def _pass(self, rows: Sequence[EpochRow]) -> Iterator[Passed]:
        for row in rows:
            value = self._measured(row)
            self.passed = Passed(row.epoch, row.iteration, self.passed.seconds + row.seconds, value)
            self._best.update(row.epoch, value)
            if row.epoch == self._kept_epoch:
                self._kept_value = value
            yield self.passed

    def _measured(self, row: EpochRow) -> float | None:
        """The metric as training saw it: null is NaN in an epoch that was validated, else not measured."""
        value = row.metrics.get(self._monitor)
        if value is not None:
            return value
        was_validated = (
            self._monitor.startswith("train_")
            or row.epoch % self._validated_every == 0
            or row.epoch == self._row.spec["epochs"]
            or any(name.startswith("validation_") and one is not None for name, one in row.metrics.items())
        )
        return math.nan if was_validated else None

    def _limit_work(self) -> None:
        if self._looks > MAX_LOOKS:
            message = (
                f"These {len(self.policies)} policies look at more than {MAX_LOOKS:,} epochs together before they "
                f"stop (min_delta auto counts {LOOKS_OF_AUTO}-fold): send fewer of them, or a smaller patience."
            )
            raise InvalidRequestError.of(ParamError("patience", message, "too_much_to_replay"))

    def actual(self) -> Actual:
        """What the job did."""
        row, passed = self._row, self.passed
        return Actual(
            policy=None
            if row.spec["early_stopping"] is None
            else Policy.model_validate(row.spec["early_stopping"]),
            stop_reason=row.stop_reason,
            epochs=passed.epoch,
            iterations=passed.iteration,
            seconds=_rounded(passed.seconds),
            best_epoch=self._best.epoch,
            best_value=self._best.value,
            kept_epoch=self._kept_epoch,
            kept_value=_finite(self._kept_value),
        )

    def outcome(self, replayed: ReplayedPolicy) -> Replayed:
        """What a policy would have done."""
        now = self.passed
        goes_on = replayed.ended is None and now.epoch < self._row.spec["epochs"]
        reached = replayed.ended or now
        end = self._earliest_end(replayed) if goes_on and is_done(self._row.status) else reached
        kept_epoch, kept_value = replayed.kept(reached)
        return Replayed(
            policy=replayed.policy,
            stopped=replayed.ended is not None,
            stopped_epoch=replayed.ended and replayed.ended.epoch,
            stop_reason=replayed.stopping.stop_reason,
            would_go_on=goes_on,
            best_epoch=replayed.stopping.best.epoch,
            best_value=replayed.stopping.best.value,
            kept_epoch=kept_epoch,
            kept_value=_finite(kept_value),
            value_lost=self._lost(kept_value),
            epochs=end.epoch,
            iterations=end.iteration,
            seconds=_rounded(end.seconds),
            epochs_saved=now.epoch - end.epoch,
            iterations_saved=now.iteration - end.iteration,
            seconds_saved=_rounded(now.seconds - end.seconds),
        )

    def _earliest_end(self, replayed: ReplayedPolicy) -> Passed:
        """Where training would end at the earliest, beyond the record; its seconds at the mean of those recorded."""
        now, last = self.passed, self._row.spec["epochs"]
        every = 1 if self._monitor.startswith("train_") else self._validated_every
        epoch = min(-(-replayed.stopping.earliest_stop(now.epoch) // every) * every, last)
        more = epoch - now.epoch
        seconds = now.seconds + more * now.seconds / max(now.epoch, 1)
        return Passed(epoch, now.iteration + more * int(self._row.plan["iterations_per_epoch"]), seconds)

    def _lost(self, kept: float | None) -> float | None:
        best = self._best.value
        if kept is None or best is None or not math.isfinite(kept):
            return None
        return kept - best if self._best.mode == "min" else best - kept


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _rounded(seconds: float) -> float:
    return round(seconds, 6)
