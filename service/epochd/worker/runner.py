"""What a runner process does: load the data, train, record, and keep the weights."""

import logging
import platform
import secrets
from contextlib import closing
from typing import Any

import torch

import epochd
from epochd.contract.spec import JobSpec
from epochd.errors import AttemptLostError, InfrastructureError, TrainingError
from epochd.jobs.complete import Outcome, error_dict
from epochd.store.artifacts import NewArtifact
from epochd.store.database import Database
from epochd.training import device as devices
from epochd.training import weights
from epochd.training.events import Selection, Stopped
from epochd.training.trainer import Trainer
from epochd.worker.memory import require_memory
from epochd.worker.order import AttemptOrder
from epochd.worker.prepare import PreparedData, device_of, prepare_data, training_config
from epochd.worker.recorder import Recorder

log = logging.getLogger("epochd.runner")


def run_attempt(order: AttemptOrder) -> Outcome | None:
    """Run one attempt to its end. None means that it was lost to somebody else: there is nothing to report."""
    try:
        with closing(Database(order.database_url)) as db:
            return Attempt(order, db).run()
    except AttemptLostError:
        log.warning("%s: attempt %s was lost; its results are dropped", order.job_id, order.attempt)
        return None
    except TrainingError as error:
        return _failed(error)
    except Exception as error:  # noqa: BLE001 - whatever happens, the job must end, and say so
        return _failed(_unexpected(order, error))


class Attempt:
    """One execution of a job."""

    def __init__(self, order: AttemptOrder, db: Database) -> None:
        self._order = order
        self._db = db
        self._spec = JobSpec.model_validate(order.spec)

    def run(self) -> Outcome:
        """Train, and keep the weights that the spec, or the caller who cancelled, asked for."""
        devices.configure(self._order.threads)
        # Around everything: it renews the lease, and reading data or writing weights may outlast one, too.
        with Recorder(self._db, self._order, device_of(self._spec, self._order.device)) as recorder:
            return self._run(recorder)

    def _run(self, recorder: Recorder) -> Outcome:
        data = prepare_data(self._spec)
        config = training_config(self._spec, data.info, self._order.device)
        require_memory(config)
        trainer = Trainer(config, data.training)
        try:
            stop_reason, keep = self._train(trainer, recorder)
        except TrainingError as error:
            return self._fail(error, trainer, data)
        return self._finish(stop_reason, keep, trainer, data)

    def _train(self, trainer: Trainer, recorder: Recorder) -> tuple[str, str | None]:
        stop_reason = "cancelled"
        recorder.start_clock()
        with closing(trainer.run()) as events:
            for event in events:
                recorder.record(event)
                if isinstance(event, Stopped):
                    stop_reason = event.reason
                if recorder.control.stop:
                    break
        if recorder.control.lost:
            raise AttemptLostError("The attempt was ended by somebody else.")
        return stop_reason, recorder.control.cancel_keep

    def _finish(self, stop_reason: str, keep: str | None, trainer: Trainer, data: PreparedData) -> Outcome:
        if stop_reason != "cancelled":
            return self._keep("succeeded", stop_reason, trainer.final_selection(), trainer, data)
        if keep == "nothing" or not trainer.position.iteration:
            return Outcome("cancelled", "cancelled")
        selection = trainer.select("last" if keep == "last" else "best")
        return self._keep("cancelled", "cancelled", selection, trainer, data)

    def _fail(self, error: TrainingError, trainer: Trainer, data: PreparedData) -> Outcome:
        """Fail, but keep the best weights from before the failure: they are good, and cost somebody hours."""
        selection = trainer.select("best")
        if selection.metric is None:  # no epoch was validated before: these would be the weights that failed
            return _failed(error)
        kept = self._keep("failed", "failed", selection, trainer, data)
        return Outcome("failed", "failed", kept.selected_checkpoint, error_dict(error), kept.artifacts)

    def _keep(
        self, status: Any, stop_reason: str, selection: Selection, trainer: Trainer, data: PreparedData
    ) -> Outcome:
        folder = self._order.artifacts_dir / self._order.job_id / f"attempt-{self._order.attempt}"
        saved = weights.save(
            folder,
            trainer.model,
            architecture=trainer.layers,
            preprocessing=data.preprocessing.as_dict(),
            classes=list(data.info.classes) if data.info.classes else None,
            task=data.info.task,
            input_shape=data.info.shape,
            selection=selection.as_dict(),
            extra=self._provenance(data),
        )
        files = tuple(
            NewArtifact(
                name=file.name,
                path=str(file.path.relative_to(self._order.artifacts_dir)),
                media_type=file.media_type,
                bytes=file.bytes,
                sha256=file.sha256,
            )
            for file in saved
        )
        return Outcome(status, stop_reason, selection.as_dict(), artifacts=files)

    def _provenance(self, data: PreparedData) -> dict[str, Any]:
        return {
            "job": self._order.job_id,
            "attempt": self._order.attempt,
            "dataset": {"name": data.info.name, "digest": data.digest},
            "versions": {
                "epochd": epochd.__version__,
                "torch": torch.__version__,
                "python": platform.python_version(),
            },
        }


def _failed(error: TrainingError) -> Outcome:
    return Outcome("failed", "failed", error=error_dict(error))


def _unexpected(order: AttemptOrder, error: Exception) -> TrainingError:
    """Log an exception that nobody foresaw; callers get a reference, not its text."""
    reference = secrets.token_hex(4)
    log.error("%s: unexpected error, reference %s", order.job_id, reference, exc_info=error)
    message = f"Unexpected error in the worker; its log has the details under reference {reference}."
    return InfrastructureError(message, code="internal_error")
