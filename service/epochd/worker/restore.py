"""Where an attempt begins: the newest checkpoint that may be resumed from, or the first iteration."""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from epochd.errors import CorruptCheckpointError, TrainingError
from epochd.store.curve import Recorded
from epochd.training import device as devices
from epochd.training.checkpoint import CheckpointFolder, CheckpointHeader, FoundCheckpoint
from epochd.training.trainer import Trainer

log = logging.getLogger("epochd.runner")

WITHOUT_EFFECT = frozenset(
    {"name", "tags", "priority", "webhook", "max_attempts", "checkpoint", "max_runtime_seconds", "export"}
)
"""What a spec says that changes no number of the training."""

MakeTrainer = Callable[[], Trainer]
"""Makes a trainer at iteration 0; called again when a checkpoint was refused halfway."""


def fingerprint(spec: Mapping[str, Any], data_digest: str) -> str:
    """Digest what determines a training: the spec that the job began with, and its data. SHA-256 in hex."""
    determining = {name: value for name, value in spec.items() if name not in WITHOUT_EFFECT}
    text = json.dumps([determining, data_digest], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Wanted:
    """What ``attempt`` may resume from, and the CPU threads for one that resumes from nothing.

    ``recorded`` is the job's curve when the attempt was claimed; attempts up to ``restarted_after`` are forgotten.
    """

    attempt: int
    recorded: Recorded
    fingerprint: str
    threads: int
    restarted_after: int = 0

    def holds(self, header: CheckpointHeader) -> bool:
        """Whether all that led to this checkpoint is recorded, and nothing replaced it since."""
        return self.recorded.holds(attempt=header.trained_by, iteration=header.iteration, epoch=header.epoch)


@dataclass(frozen=True, slots=True)
class Restored:
    """Where the attempt begins: after ``iteration``, with ``epoch`` completed epochs; 0 and 0 at the beginning.

    ``attempt`` saved that checkpoint at ``saved_at``, and ``trained_by`` trained that iteration; both None at the
    beginning. ``skipped`` lists newer checkpoints that were not used: ``{"file": …, "reason": …}``.
    """

    epoch: int = 0
    iteration: int = 0
    attempt: int | None = None
    trained_by: int | None = None
    saved_at: str | None = None
    skipped: tuple[dict[str, str], ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The same as JSON-ready values, as ``GET …/attempts`` and ``checkpoint.restored`` show it."""
        return {
            "epoch": self.epoch,
            "iteration": self.iteration,
            "attempt": self.attempt,
            "saved_at": self.saved_at,
            "skipped": [dict(one) for one in self.skipped],
        }


@dataclass(frozen=True, slots=True)
class Restoration:
    """A trainer that is ready to run, and the CPU threads that this process is now configured with.

    ``restored`` is None when there was no checkpoint at all, so that nothing needs to be told.
    """

    trainer: Trainer
    threads: int
    restored: Restored | None


def restore(folder: CheckpointFolder, wanted: Wanted, make_trainer: MakeTrainer) -> Restoration:
    """Make a trainer and load into it the newest checkpoint of earlier attempts that may be resumed from.

    That is one whose iteration and epochs are recorded, so that nothing uncommitted is skipped, with the same
    fingerprint and the right digest, and which the trainer accepts. Its number of CPU threads is configured before
    the trainer is made, for equality bit for bit. Without one the trainer is at iteration 0. Checkpoints beyond the
    recorded curve are deleted: nobody may ever resume from them.

    Raises what ``make_trainer`` raises, and OutOfMemoryError.
    """
    folder.discard_unfinished(before_attempt=wanted.attempt)
    found = folder.found(before_attempt=wanted.attempt)
    forgotten = [one for one in found if one.attempt <= wanted.restarted_after]
    remembered = [one for one in found if one.attempt > wanted.restarted_after]
    restoration = _Search(folder, wanted, make_trainer).run(remembered)
    folder.delete(forgotten)
    folder.delete(one for one in remembered if one.header is not None and not wanted.holds(one.header))
    return restoration


class _Search:
    """One pass over the checkpoints, and the trainer that a checkpoint is tried on."""

    def __init__(self, folder: CheckpointFolder, wanted: Wanted, make_trainer: MakeTrainer) -> None:
        self._folder = folder
        self._wanted = wanted
        self._make_trainer = make_trainer
        self._skipped: list[dict[str, str]] = []

    def run(self, newest_first: list[FoundCheckpoint]) -> Restoration:
        for found in newest_first:
            try:
                return self._restored(found)
            except _UnusableError as error:
                log.warning("the checkpoint %s is not used: %s", found.path, error)
                self._skipped.append({"file": found.name, "reason": str(error)})
        devices.configure(self._wanted.threads)
        restored = Restored(skipped=tuple(self._skipped)) if self._skipped else None
        return Restoration(self._make_trainer(), self._wanted.threads, restored)

    def _restored(self, found: FoundCheckpoint) -> Restoration:
        header = self._usable_header(found)
        state = self._state(found)
        devices.configure(header.threads)
        trainer = self._loaded(state)
        restored = Restored(
            epoch=header.epoch,
            iteration=header.iteration,
            attempt=header.attempt,
            trained_by=header.trained_by,
            saved_at=header.saved_at,
            skipped=tuple(self._skipped),
        )
        return Restoration(trainer, header.threads, restored)

    def _usable_header(self, found: FoundCheckpoint) -> CheckpointHeader:
        header = found.header
        if header is None:
            raise _UnusableError(found.problem)
        if header.fingerprint != self._wanted.fingerprint:
            raise _UnusableError("it was trained by another spec, or on other data")
        if not self._wanted.holds(header):
            raise _UnusableError(
                f"iteration {header.iteration} of attempt {header.trained_by} with {header.epoch} completed "
                "epochs is not on the recorded curve"
            )
        return header

    def _state(self, found: FoundCheckpoint) -> dict[str, Any]:
        try:
            return self._folder.load(found)
        except CorruptCheckpointError as error:
            raise _UnusableError(error.message) from error

    def _loaded(self, state: dict[str, Any]) -> Trainer:
        # Made for this checkpoint alone: one that refuses a state halfway is dropped.
        trainer = self._make_trainer()
        try:
            trainer.load_state_dict(state)
        except TrainingError:
            raise
        except ValueError as error:
            raise _UnusableError(str(error)) from error
        except Exception as error:
            # Better to train again than to end a job because of what an older version has written.
            log.exception("the trainer cannot take a checkpoint")
            raise _UnusableError("its state is not one that this version continues from") from error
        return trainer


class _UnusableError(Exception):
    """Why a checkpoint is passed over, in words for people."""
