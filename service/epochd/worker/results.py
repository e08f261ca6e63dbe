"""What an attempt ends with: an outcome, and the weights that it keeps."""

import platform
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal

import torch

from epochd.errors import InfrastructureError, TrainingError
from epochd.jobs.complete import Outcome, error_dict
from epochd.store.artifacts import NewArtifact
from epochd.training import weights
from epochd.training.events import Selection
from epochd.training.trainer import Trainer
from epochd.training.weights import SavedFile
from epochd.version import __version__
from epochd.worker import receipt
from epochd.worker.exporting import Exported, Exporter, export_all
from epochd.worker.order import AttemptOrder
from epochd.worker.prepare import PreparedData
from epochd.worker.receipt import Background, Ending

_NO_CHECKPOINT: Final[dict[str, Any]] = {
    "category": "infrastructure",
    "code": "no_usable_checkpoint",
    "message": "No weights could be kept: the process that had them is gone, and it left no usable checkpoint. "
    "A retry trains the job again.",
    "param": None,
    "retryable": False,
}


class Results:
    """Turns a training that has ended, or was left, into an outcome.

    ``tell`` hears how each export went; ``must_end`` says that the process has no time for one any more. The receipt
    tells the ``background``, too.
    """

    def __init__(  # noqa: PLR0913 - three by position, the rest by name
        self,
        order: AttemptOrder,
        data: PreparedData,
        trainer: Trainer,
        *,
        tell: Callable[[Exported], None] = lambda _: None,
        must_end: Callable[[], bool] = lambda: False,
        background: Background | None = None,
    ) -> None:
        self._order = order
        self._data = data
        self._trainer = trainer
        self._tell = tell
        self._must_end = must_end
        self._background = background or Background(amendments=order.amendments)

    def finished(self) -> Outcome:
        """Keep the weights that the spec asks for: training came to its own end."""
        reason = self._trainer.stop_reason
        assert reason is not None, "the training has stopped by itself"
        return self._keep("succeeded", reason, self._trainer.final_selection())

    def cancelled(self, keep: str | None) -> Outcome:
        """Keep the weights that the caller who cancelled asked for, if anything was trained."""
        iteration, recorded = self._trainer.position.iteration, self._order.recorded.iteration
        if keep == "nothing" or not (iteration or recorded):
            return Outcome("cancelled", "cancelled")
        if not iteration:
            return Outcome("cancelled", "cancelled", error=_NO_CHECKPOINT)
        selection = self._trainer.select("last" if keep == "last" else "best")
        if iteration < recorded:
            lost = f"of iterations up to {iteration}: the weights of later ones were lost with their process"
            selection = replace(selection, reason=f"{selection.reason}, {lost}")
        return self._keep("cancelled", "cancelled", selection)

    def failed(self, error: TrainingError) -> Outcome:
        """Fail, but keep the best weights from before the failure: they are good, and cost somebody hours."""
        selection = self._trainer.select("best")
        if selection.metric is None:  # no epoch was validated before: these would be the weights that failed
            return failed(error)
        try:
            kept = self._keep("failed", "failed", selection)
        except (
            InfrastructureError
        ):  # logged where it was raised; what ended the training is what must be told
            return failed(error)
        return Outcome("failed", "failed", kept.selected_checkpoint, error_dict(error), kept.artifacts)

    def _keep(
        self, status: Literal["succeeded", "cancelled", "failed"], stop_reason: str, selection: Selection
    ) -> Outcome:
        artifacts_dir = self._order.folders.artifacts
        folder = artifacts_dir / self._order.job_id / f"attempt-{self._order.attempt}"
        if status != "failed":
            self._save_last(folder, selection)
        saved = self._save(folder, selection)
        exported = self._export(folder) if status == "succeeded" else []
        saved += [one.file for one in exported if one.file is not None]
        ending = Ending(status, stop_reason, selection, tuple(saved), [one.as_dict() for one in exported])
        saved.append(self._save_receipt(folder, ending))
        files = tuple(
            NewArtifact(
                name=file.name,
                path=str(file.path.relative_to(artifacts_dir)),
                media_type=file.media_type,
                bytes=file.bytes,
                sha256=file.sha256,
            )
            for file in saved
        )
        return Outcome(status, stop_reason, selection.as_dict(), artifacts=files)

    def _save_last(self, folder: Path, selection: Selection) -> None:
        """Keep the last weights too where they are others than the selected: another job may start from them."""
        if selection.iteration < self._trainer.position.iteration:
            self._trainer.select("last")
            weights.save_last(folder, self._trainer.model)
            self._trainer.select("best")

    def _save(self, folder: Path, selection: Selection) -> list[SavedFile]:
        info = self._data.info
        return weights.save(
            folder,
            self._trainer.model,
            architecture=self._trainer.layers,
            preprocessing=self._data.preprocessing.as_dict(),
            classes=list(info.classes) if info.classes else None,
            task=info.task,
            input_shape=self._data.encoded.input_shape,
            selection=selection.as_dict(),
            extra=self._provenance(),
        )

    def _save_receipt(self, folder: Path, ending: Ending) -> SavedFile:
        return receipt.save(
            folder, self._order, self._data, self._trainer, background=self._background, ending=ending
        )

    def _export(self, folder: Path) -> list[Exported]:
        exporter = Exporter(self._trainer.model, self._data, self._provenance())
        kinds = self._order.spec.get("export") or ()
        return export_all(exporter, kinds, folder, tell=self._tell, must_end=self._must_end)

    def _provenance(self) -> dict[str, Any]:
        return {
            "job": self._order.job_id,
            "attempt": self._order.attempt,
            "dataset": {"name": self._data.info.name, "digest": self._data.digest},
            "versions": {
                "epochd": __version__,
                "torch": torch.__version__,
                "python": platform.python_version(),
            },
        }


def failed(error: TrainingError) -> Outcome:
    """Fail without any weights."""
    return Outcome("failed", "failed", error=error_dict(error))
