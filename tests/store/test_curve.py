"""What bounds resumption: the job's recorded curve, by attempts."""

import pytest

from epochd.store import attempts, curve, jobs, metrics
from epochd.store.curve import Recorded
from epochd.store.metrics import NewEpoch

PER_EPOCH = 100


@pytest.fixture
def record_epochs(database):
    """Record epochs of an attempt; ``best`` are those than which none was better so far."""

    def record(attempt_id, *epochs, best=()):
        with database.write() as tx:
            new = [NewEpoch(n, n * PER_EPOCH, {"train_loss": 1.0}, 0.1, 0.5, n in best) for n in epochs]
            metrics.record_epochs(tx, attempt_id, new)

    return record


@pytest.fixture
def begin(database):
    def begin_(claim, first_iteration):
        with database.write() as tx:
            attempts.begin(tx, claim.attempt_id, first_iteration)

    return begin_


def recorded(database, claim):
    with database.read() as tx:
        return curve.recorded(tx, claim.job.number)


def visible(database, claim):
    with database.read() as tx:
        iterations = metrics.iteration_columns(tx, claim.job)["iteration"].tolist()
        epochs, _ = metrics.epochs(tx, claim.job)
    return len(iterations), [row.epoch for row in epochs]


def test_nothing_is_recorded_of_a_job_that_nobody_has_claimed(database, make_job):
    job = make_job()
    with database.read() as tx:
        assert curve.recorded(tx, job.number) == Recorded()
    assert not Recorded().holds(attempt=1, iteration=0, epoch=0)
    assert Recorded().iteration == 0


def test_an_attempt_is_recorded_by_its_number_with_its_newest_epoch(
    database, running, record, record_epochs, next_attempt
):
    record(running.attempt_id, 1, 250)
    record_epochs(running.attempt_id, 1, 2)
    claim = next_attempt(running)
    assert claim.recorded == recorded(database, claim) == Recorded(((1, 1, 250),), 2)
    assert claim.recorded.iteration == 250


def test_what_may_be_resumed_from(database, running, record, record_epochs):
    record(running.attempt_id, 1, 250)
    record_epochs(running.attempt_id, 1, 2)
    found = recorded(database, running)
    assert found.holds(attempt=1, iteration=250, epoch=2)
    assert found.holds(attempt=1, iteration=1, epoch=0)
    assert not found.holds(attempt=1, iteration=251, epoch=2)  # an iteration that was not committed
    assert not found.holds(attempt=1, iteration=250, epoch=3)  # an epoch that was not committed
    assert not found.holds(attempt=2, iteration=250, epoch=2)  # another attempt's
    assert not found.holds(attempt=1, iteration=0, epoch=0)


def test_a_resumed_attempt_owns_the_curve_from_its_first_recorded_iteration_on(
    database, running, record, record_epochs, next_attempt, begin
):
    record(running.attempt_id, 1, 450)
    record_epochs(running.attempt_id, 1, 2, 3, 4)
    second = next_attempt(running)
    begin(second, 251)
    # It has begun, and recorded nothing: the curve is still the old one, for readers, and for the next attempt.
    assert recorded(database, second) == Recorded(((1, 1, 450),), 4)
    assert visible(database, second) == (450, [1, 2, 3, 4])
    record(second.attempt_id, 251, 260)
    assert recorded(database, second) == Recorded(((1, 1, 250), (2, 251, 260)), 2)
    assert visible(database, second) == (260, [1, 2])
    assert not recorded(database, second).holds(attempt=1, iteration=255, epoch=2)
    record(second.attempt_id, 251, 300)
    record_epochs(second.attempt_id, 3)
    third = next_attempt(second)
    assert third.recorded == Recorded(((1, 1, 250), (2, 251, 300)), 3)
    begin(third, 1)
    assert recorded(database, third) == third.recorded
    record(third.attempt_id, 1, 1)
    assert recorded(database, third) == Recorded(((3, 1, 1),), 0)


def test_an_epoch_that_a_resumed_attempt_validated_counts_before_its_first_iteration(
    database, running, record, record_epochs, next_attempt, begin
):
    record(running.attempt_id, 1, 200)
    record_epochs(running.attempt_id, 1)  # killed while it validated epoch 2
    second = next_attempt(running)
    assert not second.recorded.holds(attempt=1, iteration=200, epoch=2)
    begin(second, 201)
    record_epochs(second.attempt_id, 2)
    assert recorded(database, second) == Recorded(((1, 1, 200),), 2)


def test_a_job_retried_from_scratch_has_no_curve_until_it_records_again(
    database, running, record, record_epochs, next_attempt
):
    record(running.attempt_id, 1, 250)
    record_epochs(running.attempt_id, 1, 2)
    with database.write() as tx:
        jobs.amend(tx, running.job.number, restarted_after=1)
    assert recorded(database, running) == Recorded()
    assert visible(database, running) == (0, [])
    second = next_attempt(running)
    assert second.recorded == Recorded()
    assert visible(database, second) == (0, [])
    with database.read() as tx:  # what the attempt recorded is still there
        assert metrics.last_iteration(tx, second.job, attempt=1) == 250
        assert len(metrics.epochs(tx, second.job, attempt=1)[0]) == 2
    record(second.attempt_id, 1, 30)
    assert recorded(database, second) == Recorded(((2, 1, 30),), 0)
    assert visible(database, second) == (30, [])


def test_one_epoch_of_the_curve_is_the_best_whoever_trained_it(
    database, running, record, record_epochs, next_attempt
):
    def best(claim, **options):
        with database.read() as tx:
            return [row.epoch for row in metrics.epochs(tx, claim.job, **options)[0] if row.is_best]

    record(running.attempt_id, 1, 450)
    record_epochs(running.attempt_id, 1, 2, 3, 4, best=(1, 2, 4))
    second = next_attempt(running)
    record(second.attempt_id, 301, 310)  # epoch 4 is trained again
    assert best(second) == [2]
    assert best(second, attempt=1) == [4]
    record(second.attempt_id, 301, 600)
    record_epochs(second.attempt_id, 4, 5, 6, best=(5,))
    assert best(second) == [5]
    assert best(second, limit=3) == []
