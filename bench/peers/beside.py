"""The same job with and without everything that is recorded of it."""

import statistics
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from epochd.contract.spec import JobSpec
from epochd.jobs.claim import claim
from epochd.jobs.complete import complete
from epochd.jobs.submit import submit
from epochd.store.database import Database
from epochd.store.jobs import Claim
from epochd.training.trainer import Trainer
from epochd.worker.checkpointer import Checkpointer
from epochd.worker.drain import Drain
from epochd.worker.order import AttemptOrder, Folders
from epochd.worker.prepare import PreparedData, prepare_data, training_config
from epochd.worker.recorder import Recorder
from epochd.worker.runner import Attempt, Leave

NO_CHECKPOINT = {"every_epochs": 1_000_000, "every_seconds": 86_400}
JOBS: dict[str, dict[str, Any]] = {
    "digits, MLP 64-128-10, batch 64": {
        "dataset": "digits",
        "model": {"name": "mlp", "hidden_sizes": [128]},
        "batch_size": 64,
        "early_stopping": {"patience": 1_000_000},
    },
    "table 200 000x32, MLP 32-256-256-2, batch 512": {
        "dataset": {"name": "synthetic", "task": "classification", "samples": 200_000, "features": 32},
        "model": {"name": "mlp", "hidden_sizes": [256, 256]},
        "batch_size": 512,
    },
    "digits as images, CNN, batch 64": {
        "dataset": "digits",
        "model": {"name": "cnn", "channels": [16, 32]},
        "batch_size": 64,
    },
}
"""Three trainings, by name: the first has an epoch a millisecond, on a fast core."""


@dataclass(frozen=True)
class Cost:
    """What a training took, in microseconds an iteration: the wall's, and CPU time of the process."""

    wall: float
    cpu: float
    recorder_cpu: float = 0.0
    """Of the recorder's thread."""


class Subject:
    """A job and the same training alone, for so many epochs at a time."""

    def __init__(self, body: dict[str, Any], db: Database, folder: Path, threads: int) -> None:
        self._body = {**body, "checkpoint": NO_CHECKPOINT}
        self._db = db
        self._folders = Folders(
            folder / "artifacts", folder / "checkpoints", folder / "spool", folder / "datasets"
        )
        self._threads = threads
        self.epochs = 3
        self._results: set[tuple[tuple[str, float | None], ...]] = set()

    def fill(self, seconds: float) -> None:
        """Warm up, and find out how many epochs last so long."""
        self.alone()
        begin = time.perf_counter()
        self.alone()
        self.epochs = max(3, round(3 * seconds / (time.perf_counter() - begin)))
        self._results.clear()

    @cached_property
    def _resolved(self) -> JobSpec:
        return JobSpec.model_validate(self._claimed().job.spec)

    @cached_property
    def _data(self) -> PreparedData:
        return prepare_data(self._resolved)

    def alone(self) -> Cost:
        """Train in a loop around the engine, which drops what that yields."""
        config = replace(training_config(self._resolved, self._data.info, "cpu"), epochs=self.epochs)
        trainer = Trainer(config, self._data.training)
        with _measured(trainer) as found, closing(trainer.run()) as events:
            for _ in events:
                pass
        self._compare(trainer)
        return found[0]

    def recorded(self) -> Cost:
        """Train as a runner does. Not measured: what comes before and after the training."""
        taken = self._claimed()
        order = AttemptOrder.of(
            taken, database_url=self._db.url, folders=self._folders, lease_seconds=60, threads=self._threads
        )
        attempt = _Measured(order, self._db, Drain())
        outcome = attempt.run()
        complete(self._db, taken.attempt_id, outcome, retry_delay_seconds=0)
        self._compare(attempt.trainer)
        return attempt.cost

    def _claimed(self) -> Claim:
        submit(self._db, JobSpec.model_validate({**self._body, "epochs": self.epochs}))
        taken = claim(self._db, worker="bench", device="cpu", lease_seconds=60)
        assert taken is not None, "it was just submitted"
        return taken

    def _compare(self, trainer: Trainer) -> None:
        """All train the same, to the last bit."""
        assert trainer.last_epoch is not None, "it has trained"
        self._results.add(tuple(trainer.last_epoch.metrics.items()))
        assert len(self._results) == 1, self._results


class _Measured(Attempt):
    cost: Cost
    trainer: Trainer

    def _train(self, trainer: Trainer, recorder: Recorder, checkpointer: Checkpointer) -> Leave | None:
        self.trainer = trainer
        [thread] = (one for one in threading.enumerate() if one.name == "recorder")
        assert thread.ident is not None, "it has been started"
        with _measured(trainer, time.pthread_getcpuclockid(thread.ident)) as found:
            leave = super()._train(trainer, recorder, checkpointer)
        self.cost = found[0]
        return leave


@contextmanager
def _measured(trainer: Trainer, recorder_clock: int | None = None) -> Iterator[list[Cost]]:
    found: list[Cost] = []
    recorder = 0.0 if recorder_clock is None else time.clock_gettime(recorder_clock)
    wall, cpu = time.perf_counter(), time.process_time()
    yield found
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    recorder = 0.0 if recorder_clock is None else time.clock_gettime(recorder_clock) - recorder
    iterations = trainer.position.iteration
    found.append(Cost(*(seconds / iterations * 1e6 for seconds in (wall, cpu, recorder))))


def medians(costs: list[Cost]) -> Cost:
    """Each figure's median."""
    return Cost(*(statistics.median(getattr(c, name) for c in costs) for name in Cost.__dataclass_fields__))


def slow_down(pairs: list[tuple[Cost, Cost]]) -> Mapping[str, float]:
    """How much longer the recorded training took, as a part of the other's time: the median of the rounds."""
    return {
        name: statistics.median(
            getattr(recorded, name) / getattr(alone, name) - 1 for alone, recorded in pairs
        )
        for name in ("wall", "cpu")
    }
