"""A reduced series against a reduction of all its iterations with the same edges of buckets."""

import json

import numpy as np
import pytest
from sqlalchemy import delete, func, select, update

from epochd.errors import AttemptLostError, NotFoundError
from epochd.store import attempts, jobs, levels, metrics, reduced
from epochd.store.blocks import COLUMNS, Block
from epochd.store.levels import LevelBuilder
from epochd.store.tables import iteration_blocks, iteration_levels

PER_EPOCH = 100


def series(iterations, seed=0):
    """Columns with ties, one that is NaN for long, one that falls; beginning with iteration 1."""
    rng = np.random.default_rng(seed)
    columns = rng.integers(-500, 500, (4, iterations)).astype(np.float32)
    columns[0] = rng.lognormal(0, 1, iterations)
    columns[0, rng.random(iterations) < 0.02] = np.inf
    columns[2, iterations // 4 : iterations // 2] = np.nan
    columns[3] = np.linspace(1, 0, iterations)
    return columns


@pytest.fixture
def record(database):
    """Record iterations ``first …`` of columns that begin with iteration 1, with their levels unless told."""

    def record_(attempt_id, columns, first=1, *, with_levels=True):
        builder = LevelBuilder(first - 1)
        builder.add(columns[:, first - 1 :])
        blocks = []
        for number in range((first - 1) // 1024, (columns.shape[1] - 1) // 1024 + 1):
            begin, end = max(first - 1, number * 1024), (number + 1) * 1024
            blocks.append(Block(number, *columns[:, begin:end], first_iteration=begin + 1))
        rows = builder.rows if with_levels else ()
        with database.write() as tx:
            metrics.record_iterations(tx, attempt_id, PER_EPOCH, blocks, rows)

    return record_


@pytest.fixture
def read(database):
    def read_(claim, points, **options):
        with database.read() as tx:
            body = json.loads(metrics.reduced(tx, claim.job, points, **options))
        assert body["next"] is None
        return body["columns"]

    return read_


def plain(columns):
    """Columns as they are answered, with None for what is not finite."""
    return {
        name: values.tolist() if values.dtype == np.int64 else [None if np.isnan(x) else x for x in values]
        for name, values in columns.items()
    }


def picked(columns, numbers, names, first=1):
    """Answer these iterations of columns that begin with iteration ``first``."""
    numbers = np.array(numbers, np.int64)
    known = np.where(np.isfinite(columns), columns, np.nan)[:, numbers - first]
    found = {
        "iteration": numbers,
        "epoch": (numbers - 1) // PER_EPOCH + 1,
        **dict(zip(COLUMNS, known, strict=True)),
    }
    return plain({name: found[name] for name in ("iteration", *names)})


def in_order(columns, chosen, width, first=1):
    """List the iterations to keep, the most important first: newest, first, then by column each bucket's extremes."""
    numbers = np.arange(first, first + columns.shape[1])
    inside = np.split(np.arange(len(numbers)), np.flatnonzero(np.diff((numbers - 1) // width)) + 1)
    kept = [numbers[-1], numbers[0]]
    for name in chosen:
        for sign in (1, -1):
            for bucket in inside:
                values = sign * columns[COLUMNS.index(name), bucket]
                finite = np.isfinite(values)
                least = np.flatnonzero(values == values[finite].min()) if finite.any() else [0]
                kept.append(numbers[bucket[least[0]]])
    return list(dict.fromkeys(int(number) for number in kept))


def expected(columns, points, names=("epoch", *COLUMNS), first=1):
    """Reduce by looking at every iteration."""
    if columns.shape[1] <= points:
        return picked(columns, range(first, first + columns.shape[1]), names, first)
    chosen = [name for name in COLUMNS if name in names] or ["train_loss"]
    last = first + columns.shape[1] - 1
    width, _ = levels.grid(first, last, max(1, (points - 2) // (2 * len(chosen))))
    kept = in_order(columns, chosen, width, first)[:points]
    return picked(columns, sorted(kept), names, first)


def rows_of(database, table):
    with database.read() as tx:
        return tx.execute(select(func.count()).select_from(table)).scalar_one()


SIZES = [1, 10, 11, 255, 256, 257, 1025, 4095, 4096, 4097, 16_384, 16_385, 40_000]


FIELDS = [["train_loss"], ["epoch", "gradient_norm"], ["train_loss", "learning_rate"], ["epoch"], []]


def test_a_reduced_series_is_what_a_reduction_of_all_gives(running, record, read):
    columns = series(SIZES[-1])
    for iterations in SIZES:
        record(running.attempt_id, columns[:, :iterations])
        for points in (10, 300, 1000):
            found = read(running, points)
            assert len(found["iteration"]) <= points
            assert found == expected(columns[:, :iterations], points), (iterations, points)
            for names in FIELDS:
                known = expected(columns[:, :iterations], points, names)
                assert read(running, points, fields=names) == known, (iterations, points, names)


@pytest.mark.parametrize(
    ("after", "up_to"),
    [(0, 40_000), (1, 30_001), (4095, 4097), (5000, 5010), (12_345, 39_999), (39_000, 50_000)],
)
def test_a_part_is_reduced_as_if_it_were_all_there_is(running, record, read, after, up_to):
    columns = series(SIZES[-1])
    record(running.attempt_id, columns)
    part, first = columns[:, after:up_to], after + 1
    for points in (10, 300, 1000):
        found = read(running, points, after=after, up_to=up_to)
        assert found == expected(part, points, first=first), points
        found = read(running, points, after=after, up_to=up_to, fields=["train_loss"])
        assert found == expected(part, points, ["train_loss"], first), points
    assert len(read(running, 7, after=after, up_to=up_to, reduction="mean")["iteration"]) <= 7


def test_a_part_that_holds_nothing(running, record, read):
    record(running.attempt_id, series(100))
    for after, up_to in ((100, None), (5, 5), (50, 20), (200, 300), (0, 0)):
        assert read(running, 10, after=after, up_to=up_to)["iteration"] == []


@pytest.mark.parametrize("iterations", [11, 5000])
def test_when_there_is_no_room_for_all_the_newest_goes_first(running, record, read, iterations):
    columns = series(iterations)
    record(running.attempt_id, columns)
    assert read(running, 1)["iteration"] == [iterations]
    assert read(running, 2)["iteration"] == [1, iterations]
    lowest, highest = (
        np.argmin(columns[0]) + 1,
        np.nanargmax(np.where(np.isinf(columns[0]), np.nan, columns[0])) + 1,
    )
    assert read(running, 3)["iteration"] == sorted({1, iterations, lowest})
    assert read(running, 4)["iteration"] == sorted({1, iterations, lowest, highest})
    for points in range(1, 11):
        assert read(running, points) == expected(columns, points)
        assert len(read(running, points)["iteration"]) <= points


def test_extremes_of_every_chosen_column_are_there(running, record, read):
    columns = series(30_000)
    columns[0, 2345], columns[1, 17_000], columns[2, 29_000], columns[3, 100] = 1e9, -1e9, 1e8, -7
    record(running.attempt_id, columns)
    assert {2346, 17_001, 29_001, 101} <= set(read(running, 50)["iteration"])
    assert 2346 in read(running, 4, fields=["train_loss"])["iteration"]
    assert 17_001 not in read(running, 50, fields=["train_loss"])["iteration"]


def test_what_is_not_finite_is_null(running, record, read):
    columns = np.full((4, 9000), np.nan, np.float32)
    columns[1], columns[2, ::2] = np.inf, -np.inf
    record(running.attempt_id, columns)
    found = read(running, 100)
    assert found == expected(columns, 100)
    assert all(set(found[name]) == {None} for name in COLUMNS)
    means = read(running, 100, reduction="mean")
    assert all(set(means[name]) == {None} for name in COLUMNS)


def test_rows_of_levels_spare_the_blocks(database, running, record, read):
    columns = series(70_000)
    record(running.attempt_id, columns)
    before = [read(running, points) for points in (50, 1000)]
    means = read(running, 50, reduction="mean")
    with database.write() as tx:  # all but what the first and the newest iterations are read from
        c = iteration_blocks.c
        tx.execute(delete(iteration_blocks).where(c.block > 0, c.block < 69_632 // 1024))
    assert [read(running, points) for points in (50, 1000)] == before
    assert read(running, 50, reduction="mean") == means


@pytest.mark.parametrize("seed", range(4))
def test_missing_and_unreadable_rows_make_no_difference(database, running, record, read, seed, monkeypatch):
    if seed % 2:  # as if there were many more of them
        monkeypatch.setattr(reduced, "_RANGES_AT_ONCE", 2)
        monkeypatch.setattr(reduced, "_PARTS_AT_ONCE", 3)
    columns = series(100_000)
    record(running.attempt_id, columns)
    before = [expected(columns, points) for points in (20, 100, 1000)]
    assert [read(running, points) for points in (20, 100, 1000)] == before
    means = read(running, 100, reduction="mean")
    rng, c = np.random.default_rng(seed), iteration_levels.c
    with database.write() as tx:
        for level, part in tx.execute(select(c.level, c.part)).all():
            row = (c.level == level, c.part == part)
            if seed == 0 or rng.random() < 0.4:
                tx.execute(delete(iteration_levels).where(*row))
            elif rng.random() < 0.3:
                tx.execute(update(iteration_levels).where(*row).values(data=b"\x02 of another version"))
    assert [read(running, points) for points in (20, 100, 1000)] == before
    after = read(running, 100, reduction="mean")
    assert after["iteration"] == means["iteration"]
    for name in COLUMNS:
        np.testing.assert_allclose(np.float64(after[name]), np.float64(means[name]), rtol=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_a_curve_of_several_attempts(running, record, read, next_attempt, seed):
    """Each begins anywhere, and what it replaces lies within rows and buckets of those before it."""
    rng = np.random.default_rng(seed)
    claim, first, columns, recorded = running, 1, np.empty((4, 0), np.float32), []
    for number in range(4):
        last = first + int(rng.integers(1, 30_000))
        own = np.concatenate([columns[:, : first - 1], series(last, seed=number)[:, first - 1 :]], axis=1)
        own[0, -1] = 1e6 + number  # a spike in what the next one replaces
        record(claim.attempt_id, own, first, with_levels=number != 2)
        recorded.append((own, first))
        columns, first = own, int(rng.integers(max(1, last - 9000), last + 2))
        claim = claim if number == 3 else next_attempt(claim)
    for points in (5, 100, 1000):
        assert read(claim, points) == expected(columns, points)
        assert read(claim, points, fields=["train_loss"]) == expected(columns, points, ["train_loss"])
        for number, (own, begun) in enumerate(recorded, start=1):
            assert read(claim, points, attempt=number) == expected(own[:, begun - 1 :], points, first=begun)


def test_a_bucket_that_reaches_beyond_what_is_shown_is_not_used(running, record, read, next_attempt):
    first = series(16_384)
    first[0, 16_000] = 1e9
    record(running.attempt_id, first)
    second = next_attempt(running)
    curve = np.concatenate([first[:, :15_999], series(16_383, seed=1)[:, 15_999:]], axis=1)
    record(second.attempt_id, curve, 16_000)
    for points in (10, 50, 200):
        assert max(x for x in read(second, points)["train_loss"] if x is not None) < 1e9
        assert read(second, points) == expected(curve, points)
    assert 1e9 in read(second, 50, attempt=1)["train_loss"]


def means_of(columns, width):
    """Reduce every iteration to means; the iterations, and the values."""
    numbers = np.arange(1, columns.shape[1] + 1)
    buckets = (numbers - 1) // width
    known = np.where(np.isfinite(columns), columns, np.nan).astype(np.float64)
    ends, means = [], []
    for bucket in np.unique(buckets):
        inside = known[:, buckets == bucket]
        ends.append(int(numbers[buckets == bucket][-1]))
        means.append([row[~np.isnan(row)].mean() if (~np.isnan(row)).any() else np.nan for row in inside])
    return ends, np.array(means).T


def test_means(running, record, read):
    columns = series(70_000)
    for iterations in (1, 11, 257, 4097, 70_000):
        record(running.attempt_id, columns[:, :iterations])
        for points in (1, 2, 10, 1000):
            found = read(running, points, reduction="mean")
            width, _ = levels.grid(1, iterations, points, single=64)
            ends, means = means_of(columns[:, :iterations], width)
            assert found["iteration"] == ends
            assert len(ends) <= points
            assert ends[-1] == iterations
            assert found["epoch"] == [(n - 1) // PER_EPOCH + 1 for n in ends]
            for name, values in zip(COLUMNS, means, strict=True):
                np.testing.assert_allclose(np.array(found[name], np.float64), values, rtol=1e-6, atol=1e-6)


def test_means_of_one_column_and_of_none(running, record, read):
    columns = series(70_000)
    record(running.attempt_id, columns)
    found = read(running, 1000, fields=["train_loss"], reduction="mean")
    ends, means = means_of(columns, levels.grid(1, 70_000, 1000)[0])
    assert list(found) == ["iteration", "train_loss"]
    assert found["iteration"] == ends
    np.testing.assert_allclose(np.float64(found["train_loss"]), means[0], rtol=1e-6)
    assert read(running, 1000, fields=[], reduction="mean") == {"iteration": ends}


def test_full_buckets_stay_as_they_are_while_the_series_grows(running, record, read):
    columns = series(60_000)
    seen = None
    for iterations in (50_000, 50_001, 52_000, 55_000):
        record(running.attempt_id, columns[:, :iterations])
        found = read(running, 100)["iteration"]
        assert found[-1] == iterations
        width, _ = levels.grid(1, iterations, 12)
        full = [n for n in found if n <= 50_000 // width * width]
        assert seen in (None, full)
        seen = full


def test_rows_recorded_again_are_there_once(database, running, record, read):
    columns = series(40_000)
    record(running.attempt_id, columns[:, :20_000])
    assert rows_of(database, iteration_levels) == 4 + 1
    for _ in range(2):
        record(running.attempt_id, columns)
        assert rows_of(database, iteration_levels) == 9 + 2
    assert read(running, 100) == expected(columns, 100)


def test_a_lost_attempt_stores_no_rows_and_a_deleted_job_leaves_none(database, running, record):
    columns = series(5000)
    record(running.attempt_id, columns)
    with database.write() as tx:
        attempts.finish(tx, running.attempt_id, outcome="lost")
        jobs.transition(tx, running.job.number, expected=("running",), status="cancelled")
    with pytest.raises(AttemptLostError):
        record(running.attempt_id, series(9000))
    assert rows_of(database, iteration_levels) == 1
    with database.write() as tx:
        jobs.delete(tx, running.job.id)
    assert rows_of(database, iteration_levels) == 0


def test_nothing_recorded_and_an_attempt_that_never_was(database, running, read):
    for reduction in ("extremes", "mean"):
        assert read(running, 10, fields=["train_loss"], reduction=reduction) == {
            "iteration": [],
            "train_loss": [],
        }
    with database.read() as tx, pytest.raises(NotFoundError):
        metrics.reduced(tx, running.job, 10, attempt=2)
