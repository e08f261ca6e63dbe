"""The reduced levels of what a recorder records, on real databases."""

import numpy as np
import orjson
import pytest
from sqlalchemy import select

from epochd.contract.spec import JobSpec
from epochd.errors import DatabaseUnavailableError
from epochd.jobs.claim import claim
from epochd.jobs.submit import submit
from epochd.store import jobs, metrics
from epochd.store.tables import iteration_blocks, iteration_levels
from epochd.training.events import IterationsCompleted
from epochd.worker.batch import Batch, Began
from epochd.worker.order import AttemptOrder
from epochd.worker.recorder import Recorder
from epochd.worker.spool import Note

PER_EPOCH = 8


@pytest.fixture
def order(database, database_url, folders):
    submit(database, JobSpec.model_validate({"dataset": "iris", "epochs": 5000, "batch_size": 16}))
    taken = claim(database, worker="worker-1", device="cpu", lease_seconds=30)
    return AttemptOrder.of(taken, database_url=database_url, folders=folders, lease_seconds=30)


def began(iteration=0):
    return Began(
        epoch=iteration // PER_EPOCH, iteration=iteration, last_epoch=None, elapsed_seconds=0.0, restored=None
    )


def iterations(first, count):
    values = np.arange(first, first + count, dtype=np.float32)
    return IterationsCompleted((first - 1) // PER_EPOCH + 1, first, values, -values, values, values)


def rows(database):
    with database.read() as tx:
        found = tx.execute(select(iteration_levels.c.level, iteration_levels.c.part, iteration_levels.c.data))
        return {(level, part): bytes(data) for level, part, data in found}


@pytest.mark.parametrize("after", [0, 5000])
def test_a_recorder_writes_the_levels_of_what_it_records(database, order, after):
    with Recorder(database, order, "cpu") as recorder:
        recorder.record(began(after))
        for first in range(after + 1, after + 30_000, 500):
            recorder.record(iterations(first, 500))
    found = rows(database)
    assert {part for level, part in found if level == 0} == set(
        range(-(-after // 4096), (after + 30_000) // 4096)
    )
    assert {part for level, part in found if level == 1} == set(
        range(-(-after // 16_384), (after + 30_000) // 16_384)
    )
    with database.read() as tx:
        job = jobs.by_number(tx, order.job_number)
        reduced = orjson.loads(metrics.reduced(tx, job, 10))["columns"]
    assert reduced["iteration"] == [after + 1, after + 30_000]
    assert reduced["epoch"] == [after // PER_EPOCH + 1, (after + 29_999) // PER_EPOCH + 1]


def test_levels_and_blocks_are_committed_together_or_not_at_all(database, order):
    """A write that fails in its last moment leaves neither; the next one brings both, once."""
    batch = Batch(order, "cpu")
    batch.take([Note(0.0, began()), Note(0.0, iterations(1, 9000))])
    with pytest.raises(DatabaseUnavailableError), database.write() as tx:
        batch.write(tx)
        raise DatabaseUnavailableError("it went away before the commit")
    assert rows(database) == {}
    batch.take([Note(0.0, iterations(9001, 8000))])
    for _ in range(2):  # the answer to the first commit was lost
        with database.write() as tx:
            batch.write(tx)
    batch.written()
    known = rows(database)
    assert set(known) == {(0, 0), (0, 1), (0, 2), (0, 3), (1, 0)}
    batch.take([Note(0.0, iterations(17_001, 100))])
    with database.write() as tx:
        batch.write(tx)
    assert rows(database) == known
    with database.read() as tx:
        assert len(tx.execute(select(iteration_blocks.c.block)).all()) == 17
