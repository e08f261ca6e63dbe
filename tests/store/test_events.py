import threading

import pytest

from epochd.errors import NotFoundError
from epochd.store import events, jobs
from epochd.store.events import NewEvent
from epochd.training.early_stopping import EarlyStoppingState


def test_events_are_numbered_from_one_for_each_job(database, make_job):
    first, second = make_job(), make_job()
    with database.write() as tx:
        assert events.append(tx, first.number, "job.queued", {"a": 1}) == 1
        assert events.append(tx, second.number, "job.queued", {}) == 1
        assert events.append(tx, first.number, "job.started", {"b": [1.5, None, "ü"]}) == 2
    with database.read() as tx:
        [queued, started] = events.after(tx, first.number, 0, 10)
        job = jobs.get(tx, first.id)
    assert (queued.seq, queued.type, queued.data) == (1, "job.queued", {"a": 1})
    assert (started.seq, started.type, started.data) == (2, "job.started", {"b": [1.5, None, "ü"]})
    assert queued.created_at <= started.created_at
    assert (job.last_event, job.version) == (2, first.version + 2)


def test_an_event_carries_where_the_job_was(database, running):
    number = running.job.number
    with database.write() as tx:
        events.append(tx, number, "job.started", {})
        jobs.record_progress(tx, number, attempt=1, iteration=46, epoch=2)
        events.append(tx, number, "epoch.completed", {})
    with database.read() as tx:
        assert [(row.attempt, row.iteration) for row in events.after(tx, number, 0, 10)] == [(1, 0), (1, 46)]


def test_many_events_at_once_carry_their_own_iterations(database, running):
    number = running.job.number
    with database.write() as tx:
        events.append(tx, number, "job.started", {})
        events.append_many(tx, number, [])
        events.append_many(tx, number, [NewEvent("epoch.completed", {"epoch": n}, n * 10) for n in (1, 2, 3)])
        assert events.append(tx, number, "job.succeeded", {}) == 5
    with database.read() as tx:
        rows = events.after(tx, number, 0, 10)
    assert [(row.seq, row.iteration, row.attempt) for row in rows[1:4]] == [
        (2, 10, 1),
        (3, 20, 1),
        (4, 30, 1),
    ]
    assert [row.data for row in rows[1:4]] == [{"epoch": 1}, {"epoch": 2}, {"epoch": 3}]
    assert rows == sorted(rows, key=lambda row: row.created_at)


def test_a_dataclass_is_data_as_its_dict_is(database, make_job):
    number = make_job().number
    state = EarlyStoppingState("validation_loss", "min", 5, best_value=float("nan"), best_epoch=3)
    with database.write() as tx:
        events.append_many(tx, number, [NewEvent("early_stopping.updated", state, 1)])
    with database.read() as tx:
        [row] = events.after(tx, number, 0, 2)
    assert row.data == {**state.as_dict(), "best_value": None}


def test_pages_of_events(database, make_job):
    number = make_job().number
    with database.write() as tx:
        for _ in range(5):
            events.append(tx, number, "epoch.completed", {})
    with database.read() as tx:
        assert [row.seq for row in events.after(tx, number, 1, 2)] == [2, 3]
        assert [row.seq for row in events.after(tx, number, 3, 10)] == [4, 5]
        assert events.after(tx, number, 5, 10) == []
        assert events.after(tx, number, 10**30, 10) == []


def test_a_transaction_that_fails_leaves_no_gap(database, make_job):
    number = make_job().number

    def append(*, fail):
        with database.write() as tx:
            events.append(tx, number, "epoch.completed", {})
            if fail:
                raise LookupError

    append(fail=False)
    with pytest.raises(LookupError):
        append(fail=True)
    append(fail=False)
    with database.read() as tx:
        assert [row.seq for row in events.after(tx, number, 0, 10)] == [1, 2]


def test_writers_at_once_leave_neither_gap_nor_repeat_and_times_follow_numbers(database, make_job):
    number = make_job().number

    def append():
        for _ in range(20):
            with database.write() as tx:
                events.append(tx, number, "epoch.completed", {})

    threads = [threading.Thread(target=append) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database.read() as tx:
        rows = events.after(tx, number, 0, 200)
    assert [row.seq for row in rows] == list(range(1, 101))
    times = [row.created_at for row in rows]
    assert times == sorted(times)


def test_a_number_that_does_not_fit_json_is_null(database, make_job):
    number = make_job().number
    with database.write() as tx:
        events.append(tx, number, "epoch.completed", {"train_loss": float("nan"), "x": [float("inf")]})
    with database.read() as tx:
        assert events.after(tx, number, 0, 1)[0].data == {"train_loss": None, "x": [None]}


def test_a_deleted_job_has_no_events(database, make_job):
    job = make_job()
    with database.write() as tx:
        jobs.delete(tx, job.id)
        with pytest.raises(NotFoundError):
            events.append(tx, job.number, "job.queued", {})
