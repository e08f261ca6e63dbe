"""What a runner process does: load the data, resume or begin, train, record, and keep the weights."""

import logging
import secrets
from contextlib import closing
from typing import Literal

from epochd.contract.spec import JobSpec
from epochd.errors import AttemptLostError, InfrastructureError, TrainingError
from epochd.jobs.complete import Outcome
from epochd.store.database import Database
from epochd.training import device as devices
from epochd.training.checkpoint import CheckpointFolder
from epochd.training.trainer import Trainer
from epochd.worker.checkpointer import Checkpointer, HeaderFacts
from epochd.worker.dataset_files import opener
from epochd.worker.drain import Drain
from epochd.worker.memory import require_memory
from epochd.worker.order import AttemptOrder
from epochd.worker.prepare import PreparedData, amendment, device_of, prepare_data, training_config
from epochd.worker.receipt import Background
from epochd.worker.recorder import Recorder
from epochd.worker.restore import Restoration, Wanted, fingerprint, restore
from epochd.worker.results import Results, failed
from epochd.worker.warm_start import WarmStart, warm_start

log = logging.getLogger("epochd.runner")

Leave = Literal["cancel", "pause", "shutdown"]


def run_attempt(order: AttemptOrder, drain: Drain | None = None) -> Outcome | None:
    """Run one attempt to its end, or until somebody asks it to leave.

    None means that it was lost to somebody else: there is nothing to report.
    """
    try:
        with closing(Database(order.database_url, archives=order.folders.artifacts)) as db:
            return Attempt(order, db, drain or Drain()).run()
    except AttemptLostError:
        log.warning("%s: attempt %s was lost; its results are dropped", order.job_id, order.attempt)
        return None
    except TrainingError as error:
        return failed(error)
    except Exception as error:  # noqa: BLE001 - whatever happens, the job must end, and say so
        return failed(_unexpected(order, error))


class Attempt:
    """One execution of a job."""

    def __init__(self, order: AttemptOrder, db: Database, drain: Drain) -> None:
        self._order = order
        self._db = db
        self._drain = drain
        self._amendments = list(order.amendments)
        self._spec = JobSpec.model_validate(order.spec)
        self._folder = CheckpointFolder(order.folders.checkpoints / order.job_id)

    def run(self) -> Outcome:
        """Train, and keep the weights that the spec, or the caller who cancelled, asked for."""
        devices.configure(self._order.threads)
        # Around everything: it renews the lease, and reading data or writing weights may outlast one, too.
        with Recorder(self._db, self._order, device_of(self._spec, self._order.device)) as recorder:
            return self._run(recorder)

    def _run(self, recorder: Recorder) -> Outcome:
        order = self._order
        open_dataset = opener(self._db, order.folders.datasets)
        start = warm_start(self._spec, self._db)
        data = prepare_data(
            self._spec,
            open_dataset,
            memory_bytes=order.data_memory_bytes,
            fitted=start.preprocessing if start is not None else None,
        )
        wanted = self._wanted(data, start)
        restoration = self._restore(data, wanted, start)
        trainer = restoration.trainer
        recorder.begin(trainer, restoration.restored.as_dict() if restoration.restored else None)
        results = Results(
            order,
            data,
            trainer,
            tell=recorder.record,
            must_end=lambda: self._must_end(recorder),
            background=self._background(restoration, start),
        )
        try:
            with self._checkpointer(restoration, wanted, recorder) as checkpointer:
                leave = self._train(trainer, recorder, checkpointer)
        except TrainingError as error:
            return results.failed(error)
        return self._outcome(leave, results, recorder)

    def _background(self, restoration: Restoration, start: WarmStart | None) -> Background:
        restored, wanted = restoration.restored, self._spec.start_from
        starts_from = (
            None
            if start is None or wanted is None
            else {**wanted.model_dump(), "digest": f"sha256:{start.digest}"}
        )
        return Background(restored.as_dict() if restored else None, starts_from, self._amendments)

    def _wanted(self, data: PreparedData, start: WarmStart | None) -> Wanted:
        order = self._order
        origin = f" {start.digest}" if start is not None else ""
        identity = fingerprint(order.spec, f"{data.identity}{origin}")
        return Wanted(order.attempt, order.recorded, identity, order.threads, order.restarted_after)

    def _restore(self, data: PreparedData, wanted: Wanted, start: WarmStart | None) -> Restoration:
        order = self._order
        config = training_config(self._spec, data.info, order.device)
        require_memory(config)

        def make_trainer() -> Trainer:
            trainer = Trainer(config, data.training)
            if start is not None:
                start.put_into(trainer.model)
            for row in order.amendments:
                trainer.amend(amendment(row))
            return trainer

        return restore(self._folder, wanted, make_trainer)

    def _checkpointer(self, restoration: Restoration, wanted: Wanted, recorder: Recorder) -> Checkpointer:
        facts = HeaderFacts(
            job_id=self._order.job_id,
            attempt=self._order.attempt,
            fingerprint=wanted.fingerprint,
            threads=restoration.threads,
            restored=restoration.restored,
        )
        return Checkpointer(
            self._folder,
            self._spec.checkpoint,
            facts,
            recorded=lambda: recorder.recorded,
            report=recorder.record,
        )

    def _train(self, trainer: Trainer, recorder: Recorder, checkpointer: Checkpointer) -> Leave | None:
        """Train to the end, then return None; or until somebody wants it to stop, then save, and return why."""
        leave = self._leave(trainer, recorder)
        if leave is None:
            with closing(trainer.run()) as events:
                for event in events:
                    recorder.record(event)
                    checkpointer.look(event, trainer)
                    for row in recorder.control.new_amendments():
                        trainer.amend(amendment(row))
                        self._amendments.append(row)
                    if leave := self._leave(trainer, recorder):
                        break
        if leave is not None and recorder.control.cancel_keep != "nothing":
            checkpointer.save_now(leave, trainer)
        return leave

    def _leave(self, trainer: Trainer, recorder: Recorder) -> Leave | None:
        """Why to leave the loop. What has come to its own end is finished, whatever else was asked."""
        if recorder.control.lost:
            raise AttemptLostError("The attempt was ended by somebody else.")
        if trainer.stop_reason is not None:
            return None
        return recorder.control.leave or ("shutdown" if self._drain.asked else None)

    def _must_end(self, recorder: Recorder) -> bool:
        """Whether there is no time for what can be done later: the process may be killed any moment."""
        control = recorder.control
        return control.lost or control.leave == "cancel" or self._drain.asked

    def _outcome(self, leave: Leave | None, results: Results, recorder: Recorder) -> Outcome:
        match leave:
            case None:
                return results.finished()
            case "cancel":
                return results.cancelled(recorder.control.cancel_keep)
            case "pause":
                return Outcome("paused")
            case "shutdown":
                return Outcome("released")


def _unexpected(order: AttemptOrder, error: Exception) -> TrainingError:
    """Log an exception that nobody foresaw; callers get a reference, not its text."""
    reference = secrets.token_hex(4)
    log.error("%s: unexpected error, reference %s", order.job_id, reference, exc_info=error)
    message = f"Unexpected error in the worker; its log has the details under reference {reference}."
    return InfrastructureError(message, code="internal_error")
