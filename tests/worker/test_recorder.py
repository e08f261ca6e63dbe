import threading
from pathlib import Path

import numpy as np
import orjson
import pytest

from epochd.contract.spec import JobSpec
from epochd.errors import AttemptLostError
from epochd.jobs.cancel import cancel
from epochd.jobs.claim import claim
from epochd.jobs.complete import lose
from epochd.jobs.submit import submit
from epochd.store import attempts, events, jobs, metrics
from epochd.store.database import Database
from epochd.training.diagnosis import Diagnosis
from epochd.training.events import EpochCompleted, IterationsCompleted
from epochd.worker.order import AttemptOrder
from epochd.worker.recorder import Recorder

PER_EPOCH = 8


@pytest.fixture
def order(database, database_url):
    """A claimed job of 8 iterations an epoch."""
    submit(database, JobSpec.model_validate({"dataset": "iris", "epochs": 500, "batch_size": 16}))
    taken = claim(database, worker="worker-1", device="cpu", lease_seconds=30)
    return AttemptOrder.of(taken, database_url=database_url, artifacts_dir=Path(), lease_seconds=30)


def epoch_of(number):
    """What the engine yields for an epoch: its iterations, then the epoch."""
    first = (number - 1) * PER_EPOCH + 1
    values = np.arange(first, first + PER_EPOCH, dtype=np.float32)
    nothing = Diagnosis("undetermined", None, "Too early to say.")
    return [
        IterationsCompleted(number, first, values, values, values, values),
        EpochCompleted(
            epoch=number,
            iteration=number * PER_EPOCH,
            metrics={"train_loss": 1.0 / number},
            learning_rate=0.001,
            seconds=0.1,
            is_best=True,
            early_stopping=None,
            diagnosis=nothing,
        ),
    ]


def recorded(database, order):
    with database.read() as tx:
        job = jobs.get(tx, order.job_id)
        columns = orjson.loads(metrics.iterations_json(tx, job, limit=100_000))["columns"]
        epochs, _ = metrics.epochs(tx, job, limit=100_000)
        announced = [
            event for event in events.after(tx, job.number, 0, 10_000) if event.type == "epoch.completed"
        ]
    return job, columns, epochs, announced


def check_complete(database, order, epochs_trained):
    job, columns, epochs, announced = recorded(database, order)
    numbers = list(range(1, epochs_trained * PER_EPOCH + 1))
    assert columns["iteration"] == numbers
    assert columns["train_loss"] == numbers
    assert [one.epoch for one in epochs] == list(range(1, epochs_trained + 1))
    assert [one.is_best for one in epochs] == [False] * (epochs_trained - 1) + [True]
    assert [event.data["epoch"] for event in announced] == list(range(1, epochs_trained + 1))
    assert [event.iteration for event in announced] == [PER_EPOCH * (n + 1) for n in range(epochs_trained)]
    assert (job.epoch, job.iteration) == (epochs_trained, epochs_trained * PER_EPOCH)


def test_everything_is_written_once_when_the_recorder_is_left(database, order):
    with Recorder(database, order, "cpu") as recorder:
        for number in range(1, 301):
            for event in epoch_of(number):
                recorder.record(event)
    check_complete(database, order, 300)


def test_what_was_recorded_while_the_database_was_away_comes_after_it_is_back(database, database_url, order):
    impatient = Database(database_url, busy_seconds=0.2)
    failed = threading.Event()

    class Watched(Recorder):
        def _write(self):
            try:
                super()._write()
            except Exception:
                failed.set()
                raise

    with Watched(impatient, order, "cpu") as recorder:
        for event in epoch_of(1):
            recorder.record(event)
        with database.write() as tx:
            # Whoever holds the attempt's row, or SQLite's write lock, keeps the recorder out.
            attempts.renew(tx, order.attempt_id, 30)
            failed.clear()
            for number in range(2, 101):
                for event in epoch_of(number):
                    recorder.record(event)
            assert failed.wait(60), "the recorder was not kept out"
            assert not recorder.control.stop, "training goes on"
    impatient.close()
    check_complete(database, order, 100)


def test_a_recorder_whose_attempt_was_given_away_writes_nothing_more(database, order):
    with pytest.raises(AttemptLostError), Recorder(database, order, "cpu") as recorder:
        lose(database, order.attempt_id, "It was silent.", retry_delay_seconds=0)
        for event in epoch_of(1):
            recorder.record(event)
    assert recorder.control.stop
    job, columns, epochs, _ = recorded(database, order)
    assert (job.status, job.iteration, columns["iteration"], epochs) == ("queued", 0, [], [])


def test_the_recorder_hears_of_a_cancellation(database, order):
    cancel(database, order.job_id, keep="last", grace_seconds=30)
    with Recorder(database, order, "cpu") as recorder:
        for event in epoch_of(1):
            recorder.record(event)
    assert (recorder.control.stop, recorder.control.cancel_keep) == (True, "last")
