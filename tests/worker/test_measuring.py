"""Batch sizes measured by real workers, in processes that may die."""

import time
from pathlib import Path

import psutil
import pytest

from epochd.contract.batch_size import BatchSizeRequest
from epochd.jobs import batch_size
from epochd.store import measurements
from epochd.worker.measuring import Measuring, MeasuringOrder

DIGITS = {"dataset": "digits", "model": {"name": "mlp", "hidden_sizes": [16]}, "seconds": 1}
LONG = {**DIGITS, "seconds": 300}


@pytest.fixture
def ask(database):
    def make(**changes):
        return batch_size.ask(database, BatchSizeRequest.model_validate({**DIGITS, **changes}))

    return make


@pytest.fixture
def read(database):
    def get(row):
        with database.read() as tx:
            return measurements.get(tx, row.id), batch_size.show(measurements.get(tx, row.id), tx)

    return get


@pytest.fixture
def wait(read):
    def until(row, reached=lambda row: row.is_done):
        deadline = time.monotonic() + 120
        while not reached(read(row)[0]):
            assert time.monotonic() < deadline, read(row)[0]
            time.sleep(0.02)
        return read(row)

    return until


def children():
    """The processes that measure now: those that go first when memory is short."""
    return [one for one in psutil.Process().children(recursive=True) if oom_score(one) == 1000]


def oom_score(process):
    try:
        return int(Path(f"/proc/{process.pid}/oom_score_adj").read_text(encoding="ascii"))
    except OSError:
        return None


def test_every_size_the_noise_and_a_choice(ask, wait, start_worker):
    start_worker()
    row, shown = wait(ask(seconds=2))
    assert row.status == "succeeded", row.error
    sizes = [one.batch_size for one in shown.sizes]
    assert sizes == [2**power for power in range(len(sizes))]
    assert all(one.fits and one.samples_per_second > 0 and one.peak_memory_bytes > 0 for one in shown.sizes)
    assert shown.fits == sizes[-1]
    assert shown.fastest in sizes
    assert shown.recommended in sizes
    assert str(shown.recommended) in shown.reasons.recommended
    assert (row.device, row.train_samples, row.taken) == ("cpu", 1438, 1)
    assert children() == []


def test_sizes_of_models_with_batch_statistics_begin_at_two(ask, wait, start_worker):
    start_worker()
    model = {"name": "mlp", "hidden_sizes": [8], "batch_norm": True}
    _, shown = wait(ask(dataset="iris", model=model))
    assert shown.sizes[0].batch_size == 2


def test_what_cannot_be_trained_fails_and_says_why(ask, wait, start_worker):
    start_worker()
    row, shown = wait(ask(device="cuda"))
    assert (row.status, shown.error.code) == ("failed", "device_not_available")
    assert (shown.recommended, shown.reasons) == (None, None)


def test_a_process_that_is_killed_takes_nothing_with_it(ask, wait, start_worker):
    """As Linux does when memory is short: what was measured stands, and the size that was tried does not fit."""
    start_worker()
    row = ask(**LONG)
    wait(row, lambda row: len(row.sizes) >= 2)
    (process,) = children()
    process.kill()
    row, shown = wait(row)
    *measured, last = shown.sizes
    assert row.status == "succeeded"
    assert all(one.fits for one in measured)
    assert (last.fits, last.batch_size) == (False, 2 * measured[-1].batch_size)
    assert "killed by signal 9" in last.reason
    assert shown.fits == measured[-1].batch_size
    assert wait(ask())[0].status == "succeeded"  # the worker goes on


def test_a_process_that_is_killed_before_it_measured_anything_fails(executor, database_url, folders):
    order = MeasuringOrder(
        spec=BatchSizeRequest.model_validate(DIGITS).as_spec().model_dump(mode="json"),
        seconds=1,
        device="cpu",
        database_url=database_url,
        datasets=folders.datasets,
        artifacts=folders.artifacts,
        threads=1,
        data_memory_bytes=2**40,
        log_level="info",
    )
    executor.start()
    executor.wait_until_ready()
    with Measuring(executor._context, order) as measuring:
        measuring._process.kill()
        *_, (kind, error) = measuring.messages()
    assert (kind, error["category"]) == ("error", "out_of_memory")


def test_a_worker_that_stops_gives_it_back_to_another(ask, wait, read, start_worker):
    first = start_worker()
    row = ask(**LONG)
    wait(row, lambda row: row.sizes)
    first.stop()
    given_back, _ = wait(row, lambda row: row.status == "queued")
    assert given_back.sizes == []
    assert given_back.started_at is None
    start_worker()
    again, _ = wait(row, lambda row: row.sizes)
    assert (again.status, again.taken) == ("running", 2)


def test_what_a_worker_that_is_gone_held_is_measured_by_another(ask, wait, database, start_worker):
    row = ask()
    taken = batch_size.claim(database, worker="gone", device="cpu", lease_seconds=-1)
    assert taken.id == row.id
    start_worker()
    done, _ = wait(row)
    assert (done.status, done.taken) == ("succeeded", 2)
    with database.write() as tx:  # the first comes back, late
        assert not measurements.record(tx, taken, lease_seconds=10, sizes=[])
        assert not measurements.finish(tx, taken)


def test_it_is_not_tried_for_ever(ask, read, database):
    row = ask()
    for _ in range(batch_size.MAX_TAKEN):
        assert batch_size.claim(database, worker="gone", device="cpu", lease_seconds=-1) is not None
    assert batch_size.claim(database, worker="last", device="cpu", lease_seconds=10) is None
    failed, shown = read(row)
    assert (failed.status, shown.error.code, shown.error.retryable) == ("failed", "worker_lost", True)


def test_a_model_of_the_operators_waits_for_a_worker_that_has_it(ask, database):
    row = ask()
    with database.write() as tx:
        tx.execute(measurements.measurements.update().values(requires="theirs"))
    assert batch_size.claim(database, worker="w", device="cpu", lease_seconds=10) is None
    taken = batch_size.claim(database, worker="w", device="cpu", lease_seconds=10, models=["theirs"])
    assert taken.id == row.id
