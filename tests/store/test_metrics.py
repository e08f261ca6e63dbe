import json

import numpy as np
import pytest
from sqlalchemy import select, text

from epochd.errors import AttemptLostError, NotFoundError
from epochd.store import attempts, metrics
from epochd.store.blocks import load
from epochd.store.metrics import Block, NewEpoch
from epochd.store.tables import iteration_blocks

PER_EPOCH = 100


def read(database, claim, **options):
    with database.read() as tx:
        return json.loads(metrics.iterations_json(tx, claim.job, **options))


def losses(database, claim, **options):
    columns = read(database, claim, limit=100_000, **options)["columns"]
    return list(zip(columns["iteration"], columns["train_loss"], strict=True))


def expected(first, last, offset=0.0):
    return [(n, n + offset) for n in range(first, last + 1)]


def test_what_was_recorded_is_read_in_columns(database, running, record):
    record(running.attempt_id, 1, 250)
    answer = read(database, running)
    assert list(answer["columns"]) == [
        "iteration", "epoch", "train_loss", "learning_rate", "gradient_norm", "samples_per_second"
    ]  # fmt: skip
    assert answer["next"] is None
    columns = answer["columns"]
    assert columns["iteration"] == list(range(1, 251))
    assert columns["epoch"] == [1] * 100 + [2] * 100 + [3] * 50
    assert columns["train_loss"] == [float(n) for n in range(1, 251)]
    assert columns["learning_rate"] == [n / 2 for n in range(1, 251)]
    assert columns["gradient_norm"] == [n / 4 for n in range(1, 251)]
    assert columns["samples_per_second"] == [n * 2.0 for n in range(1, 251)]


def test_nothing_recorded_is_empty_columns(database, running):
    answer = read(database, running, fields=["train_loss"])
    assert answer == {"columns": {"iteration": [], "train_loss": []}, "next": None}
    with database.read() as tx:
        assert json.loads(metrics.reduced(tx, running.job, 10))["columns"]["iteration"] == []
        assert metrics.iteration_columns(tx, running.job)["train_loss"].shape == (0,)
        assert metrics.last_iteration(tx, running.job) == 0
        assert metrics.epochs(tx, running.job) == ([], None)


def test_blocks_grow_by_being_written_again(database, running, record):
    for last in (3, 1000, 1024, 1030, 3000):
        record(running.attempt_id, 1, last)
        assert losses(database, running) == expected(1, last)
    with database.read() as tx:
        rows = tx.execute(select(iteration_blocks.c.block, iteration_blocks.c.iterations)).all()
        attempt = attempts.get(tx, running.attempt_id)
    assert sorted(rows) == [(0, 1024), (1, 1024), (2, 952)]
    assert (attempt.first_iteration, attempt.last_iteration) == (1, 3000)


def test_nothing_is_computed_for_a_column_that_nobody_reads(database, running, record):
    record(running.attempt_id, 1, 4)
    with database.read() as tx:
        assert tx.execute(select(iteration_blocks.c.summary)).scalars().all() == [{}]


@pytest.mark.parametrize("limit", [1, 100, 1023, 1024, 1025, 5000])
def test_slices_follow_each_other_without_gap_or_repeat(database, running, record, limit):
    record(running.attempt_id, 1, 2600)
    after = 0 if limit >= 100 else 2590
    seen = list(range(1, after + 1))
    while after is not None:
        answer = read(database, running, after=after, limit=limit)
        columns = answer["columns"]
        assert len(columns["iteration"]) <= limit
        assert {len(values) for values in columns.values()} == {len(columns["iteration"])}
        assert columns["train_loss"] == [float(n) for n in columns["iteration"]]
        assert columns["epoch"] == [(n - 1) // PER_EPOCH + 1 for n in columns["iteration"]]
        seen += columns["iteration"]
        after = answer["next"]
        assert after in (None, seen[-1])
    assert seen == list(range(1, 2601))


def test_beyond_the_newest_there_is_nothing_for_now(database, running, record):
    record(running.attempt_id, 1, 10)
    for after in (10, 11, 10**15):
        assert read(database, running, after=after, fields=[]) == {"columns": {"iteration": []}, "next": None}


def test_only_the_chosen_fields_are_there(database, running, record):
    record(running.attempt_id, 1, 3)
    assert read(database, running, fields=["gradient_norm", "epoch"])["columns"] == {
        "iteration": [1, 2, 3], "epoch": [1, 1, 1], "gradient_norm": [0.25, 0.5, 0.75]
    }  # fmt: skip


def test_what_is_not_finite_is_null_and_nan(database, running):
    loss = np.array([0.5, np.nan, np.inf, -np.inf, 0.001], dtype=np.float32)
    with database.write() as tx:
        metrics.record_iterations(tx, running.attempt_id, PER_EPOCH, [Block(0, loss, loss, loss, loss)])
    with database.read() as tx:
        body = metrics.iterations_json(tx, running.job, after=1, fields=["train_loss"])
        arrays = metrics.iteration_columns(tx, running.job)
    assert body == b'{"columns":{"iteration":[2,3,4,5],"train_loss":[null,null,null,0.001]},"next":null}'
    np.testing.assert_array_equal(arrays["train_loss"], np.float32([0.5, np.nan, np.nan, np.nan, 0.001]))


def test_columns_as_arrays_hold_the_same(database, running, record):
    record(running.attempt_id, 1, 2100)
    with database.read() as tx:
        arrays = metrics.iteration_columns(
            tx, running.job, after=1000, limit=50, fields=["epoch", "train_loss"]
        )
        everything = metrics.iteration_columns(tx, running.job)
    assert {name: array.dtype for name, array in arrays.items()} == {
        "iteration": np.int64, "epoch": np.int64, "train_loss": np.float32
    }  # fmt: skip
    assert arrays["iteration"].tolist() == list(range(1001, 1051))
    assert arrays["epoch"].tolist() == [11] * 50
    assert arrays["train_loss"].tolist() == list(range(1001, 1051))
    assert everything["iteration"].tolist() == list(range(1, 2101))


def test_a_lost_attempt_records_nothing_more(database, running, record, next_attempt):
    record(running.attempt_id, 1, 10)
    second = next_attempt(running)
    with pytest.raises(AttemptLostError):
        record(running.attempt_id, 1, 20)
    with pytest.raises(AttemptLostError), database.write() as tx:
        metrics.record_epochs(tx, running.attempt_id, [NewEpoch(1, 100, {}, 0.1, 1.0, True)])
    with pytest.raises(AttemptLostError):
        record(10**6, 1, 20)
    assert losses(database, second) == expected(1, 10)
    with database.read() as tx:
        assert metrics.epochs(tx, second.job) == ([], None)


def test_an_attempt_from_scratch_replaces_everything_once_it_records(database, running, record, next_attempt):
    record(running.attempt_id, 1, 1500)
    second = next_attempt(running)
    assert losses(database, second) == expected(1, 1500)
    record(second.attempt_id, 1, 3, offset=0.5)
    assert losses(database, second) == expected(1, 3, 0.5)
    assert losses(database, second, attempt=1) == expected(1, 1500)


@pytest.mark.parametrize("resumed", [2, 700, 1024, 1025, 1026, 1501])
def test_a_resumed_attempt_replaces_from_where_it_began(database, running, record, next_attempt, resumed):
    record(running.attempt_id, 1, 1500)
    second = next_attempt(running)
    record(second.attempt_id, resumed, resumed + 1300, offset=0.5)
    record(second.attempt_id, resumed, resumed + 1310, offset=0.5)
    curve = expected(1, resumed - 1) + expected(resumed, resumed + 1310, 0.5)
    assert losses(database, second) == curve
    assert losses(database, second, attempt=1) == expected(1, 1500)
    assert losses(database, second, attempt=2) == expected(resumed, resumed + 1310, 0.5)
    pages, after = [], 0
    while after is not None:
        answer = read(database, second, after=after, limit=333, fields=["train_loss"])
        pages += zip(answer["columns"]["iteration"], answer["columns"]["train_loss"], strict=True)
        after = answer["next"]
    assert pages == curve
    with database.read() as tx:
        assert metrics.last_iteration(tx, second.job) == resumed + 1310
        assert metrics.last_iteration(tx, second.job, attempt=1) == 1500
        body = json.loads(metrics.reduced(tx, second.job, 10**6))
        assert list(zip(body["columns"]["iteration"], body["columns"]["train_loss"], strict=True)) == curve


def test_an_older_attempt_is_hidden_where_a_newer_one_reaches_back(database, running, record, next_attempt):
    record(running.attempt_id, 1, 100)
    second = next_attempt(running)
    record(second.attempt_id, 61, 90, offset=0.25)
    third = next_attempt(second)
    record(third.attempt_id, 51, 55, offset=0.5)
    assert losses(database, third) == expected(1, 50) + expected(51, 55, 0.5)


def test_an_attempt_that_never_was(database, running, record):
    record(running.attempt_id, 1, 3)
    with database.read() as tx:
        for call in (
            metrics.iterations_json,
            metrics.epochs,
            metrics.iteration_columns,
            metrics.last_iteration,
        ):
            for attempt in (2, 2**31, 10**30):
                with pytest.raises(NotFoundError) as caught:
                    call(tx, running.job, attempt=attempt)
                assert caught.value.code == "attempt_not_found"


def epoch(number, *, best=False, loss=1.0):
    values = {"train_loss": loss, "validation_loss": None}
    return NewEpoch(number, number * PER_EPOCH, values, 0.1, 0.5, best)


def record_epochs(database, claim, *new):
    with database.write() as tx:
        metrics.record_epochs(tx, claim.attempt_id, new)


def epochs(database, claim, **options):
    with database.read() as tx:
        return metrics.epochs(tx, claim.job, **options)


def test_epochs_are_read_as_recorded(database, running):
    record_epochs(database, running, epoch(1, best=True), epoch(2))
    [first, second], following = epochs(database, running)
    assert following is None
    assert first == metrics.EpochRow(
        running.attempt_id, 1, 100, {"train_loss": 1.0, "validation_loss": None}, 0.1, 0.5, is_best=True
    )
    assert (second.epoch, second.is_best) == (2, False)


def test_there_is_one_best_epoch(database, running):
    def best():
        return [row.epoch for row in epochs(database, running)[0] if row.is_best]

    record_epochs(database, running, epoch(1, best=True))
    assert best() == [1]
    record_epochs(database, running, epoch(2), epoch(3, best=True))
    assert best() == [3]
    record_epochs(database, running, epoch(4, best=True), epoch(5, best=True), epoch(6))
    assert best() == [5]
    record_epochs(database, running, epoch(7))
    assert best() == [5]
    record_epochs(database, running, epoch(4, best=True), epoch(5, best=True), epoch(6))
    assert best() == [5]


def test_an_epoch_recorded_again_is_overwritten(database, running):
    record_epochs(database, running, epoch(1, loss=2.0))
    record_epochs(database, running, epoch(1, loss=1.5))
    assert [row.metrics["train_loss"] for row in epochs(database, running)[0]] == [1.5]


def test_pages_of_epochs(database, running):
    record_epochs(database, running, *(epoch(n) for n in range(1, 8)))
    seen, after = [], 0
    while after is not None:
        rows, after = epochs(database, running, after=after, limit=3)
        seen.append([row.epoch for row in rows])
    assert seen == [[1, 2, 3], [4, 5, 6], [7]]
    assert epochs(database, running, after=4, limit=3)[1] is None
    assert epochs(database, running, after=10**30) == ([], None)


def test_epochs_give_way_to_the_attempt_that_trained_them_again(database, running, record, next_attempt):
    record(running.attempt_id, 1, 450)
    record_epochs(database, running, *(epoch(n, loss=1.0) for n in range(1, 5)))
    second = next_attempt(running)
    assert [row.epoch for row in epochs(database, second)[0]] == [1, 2, 3, 4]
    record(second.attempt_id, 251, 260)  # within epoch 3
    assert [row.epoch for row in epochs(database, second)[0]] == [1, 2]
    record(second.attempt_id, 251, 300)
    record_epochs(database, second, epoch(3, loss=2.0))
    rows, _ = epochs(database, second)
    assert [(row.epoch, row.metrics["train_loss"]) for row in rows] == [(1, 1.0), (2, 1.0), (3, 2.0)]
    assert [row.epoch for row in epochs(database, second, attempt=1)[0]] == [1, 2, 3, 4]
    assert [row.epoch for row in epochs(database, second, attempt=2)[0]] == [3]


def test_an_epoch_validated_again_by_a_resumed_attempt_is_there_once(database, running, record, next_attempt):
    record(running.attempt_id, 1, 200)
    record_epochs(database, running, epoch(1), epoch(2, loss=1.0))
    second = next_attempt(running)
    record_epochs(database, second, epoch(2, loss=3.0))  # killed in validation: no iteration of its own yet
    record(second.attempt_id, 201, 210)
    rows, _ = epochs(database, second)
    assert [(row.epoch, row.metrics["train_loss"]) for row in rows] == [(1, 1.0), (2, 3.0)]


def test_the_view_shows_one_row_an_iteration_and_attempt(database, running, record, next_attempt):
    record(running.attempt_id, 1, 1030)
    second = next_attempt(running)
    record(second.attempt_id, 1020, 1040, offset=0.5)
    query = text("SELECT * FROM iteration_metrics WHERE job_id = :job ORDER BY attempt, iteration")
    with database.read() as tx:
        result = tx.execute(query, {"job": running.job.id})
        rows = [tuple(row) for row in result]
        assert list(result.keys()) == [
            "job_id", "attempt", "iteration", "epoch",
            "train_loss", "learning_rate", "gradient_norm", "samples_per_second",
        ]  # fmt: skip
        assert tx.execute(query, {"job": "job_other"}).all() == []
    assert rows == [
        (running.job.id, attempt, n, (n - 1) // PER_EPOCH + 1, loss, loss / 2, loss / 4, loss * 2)
        for attempt, first, last, offset in [(1, 1, 1030, 0.0), (2, 1020, 1040, 0.5)]
        for n, loss in expected(first, last, offset)
    ]


def test_the_view_shows_null_where_there_is_no_number(database, running):
    loss = np.array([np.nan, 0.25], dtype=np.float32)
    with database.write() as tx:
        metrics.record_iterations(tx, running.attempt_id, PER_EPOCH, [Block(0, loss, loss, loss, loss)])
    with database.read() as tx:
        rows = tx.execute(
            text("SELECT train_loss, samples_per_second FROM iteration_metrics ORDER BY iteration")
        )
        assert [tuple(row) for row in rows] == [(None, None), (0.25, 0.25)]


def test_stored_texts_are_json_arrays(database, running, record):
    record(running.attempt_id, 1, 3)
    with database.read() as tx:
        row = tx.execute(select(iteration_blocks)).one()
    assert load(row.train_loss).tolist() == [1, 2, 3]
    assert row.learning_rate == "[0.5,1.0,1.5]"
