"""This engine: alone, and as a job runs it."""

import tempfile
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from epochd.contract.spec import JobSpec
from epochd.jobs.claim import claim
from epochd.jobs.submit import submit
from epochd.store import jobs, metrics
from epochd.store.database import Database
from epochd.store.migrate import upgrade
from epochd.training.checkpoint import CheckpointFolder
from epochd.training.events import IterationsCompleted
from epochd.training.trainer import Trainer
from epochd.worker.checkpointer import Checkpointer, HeaderFacts
from epochd.worker.order import AttemptOrder, Folders
from epochd.worker.recorder import Recorder
from peers.workload import Run, Workload, clock


def engine(workload: Workload, iterations: int) -> Run:
    """``Trainer.run()`` alone: each loss, learning rate, gradient norm and rate, train accuracy, diagnosis."""
    trainer = workload.trainer(iterations)
    blocks: list[np.ndarray[tuple[int], np.dtype[np.float32]]] = []
    started = clock()
    with closing(trainer.run()) as events:
        for event in events:
            if isinstance(event, IterationsCompleted):
                blocks.append(event.train_loss)
                if event.last_iteration >= iterations:
                    break
    seconds = clock() - started
    return Run(trainer.position.iteration, seconds, np.concatenate(blocks).tolist())


def job(workload: Workload, iterations: int) -> Run:
    """What a runner does: all of that is recorded in SQLite, and checkpoints are written."""
    trainer = workload.trainer(iterations)
    with tempfile.TemporaryDirectory() as folder, closing(_database(folder)) as db:
        order = _order(db, trainer, Path(folder))
        started = clock()
        _train(trainer, order, db, iterations)
        seconds = clock() - started
        return Run(trainer.position.iteration, seconds, _recorded_losses(db, order, trainer))


def _train(trainer: Trainer, order: AttemptOrder, db: Database, iterations: int) -> None:
    with Recorder(db, order, "cpu") as recorder:
        recorder.begin(trainer, None)
        with _checkpointer(order, recorder) as checkpointer, closing(trainer.run()) as events:
            for event in events:
                recorder.record(event)
                checkpointer.look(event, trainer)
                if isinstance(event, IterationsCompleted) and event.last_iteration >= iterations:
                    break


def _checkpointer(order: AttemptOrder, recorder: Recorder) -> Checkpointer:
    return Checkpointer(
        CheckpointFolder(order.folders.checkpoints / order.job_id),
        JobSpec.model_validate(order.spec).checkpoint,
        HeaderFacts(order.job_id, order.attempt, "bench", torch.get_num_threads()),
        recorded=lambda: recorder.recorded,
        report=recorder.record,
    )


def _database(folder: str) -> Database:
    url = f"sqlite:///{folder}/bench.db"
    upgrade(url)
    return Database(url)


def _order(db: Database, trainer: Trainer, folder: Path) -> AttemptOrder:
    """Queue and claim a job, as a caller and a worker would; its plan is that of the workload."""
    body = {"dataset": "digits", "epochs": trainer.config.epochs, "batch_size": trainer.config.batch_size}
    submit(db, JobSpec.model_validate(body))
    taken = claim(db, worker="bench", device="cpu", lease_seconds=60)
    assert taken is not None
    folders = Folders(folder / "artifacts", folder / "checkpoints", folder / "spool", folder / "datasets")
    order = AttemptOrder.of(taken, database_url=db.url, folders=folders, lease_seconds=60)
    return replace(order, plan=order.plan | asdict(trainer.plan))


def _recorded_losses(db: Database, order: AttemptOrder, trainer: Trainer) -> list[float]:
    """The losses that were committed; all of them must be there."""
    with db.read() as tx:
        found = jobs.get(tx, order.job_id)
        losses: list[float] = metrics.iteration_columns(tx, found, fields=["train_loss"])[
            "train_loss"
        ].tolist()
    assert len(losses) == trainer.position.iteration == found.iteration
    return losses
