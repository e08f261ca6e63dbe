"""The rows of the reduced levels, and what is made of them, against a reduction bucket by bucket."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epochd.store import levels
from epochd.store.blocks import COLUMNS
from epochd.store.levels import LevelBuilder, grid, size_of, span_of

SPAN = 4096


def series(iterations, seed=0):
    """Four columns with ties, values that are not finite, and stretches of nothing else."""
    rng = np.random.default_rng(seed)
    columns = rng.integers(-50, 50, (4, iterations)).astype(np.float32)
    columns[:, rng.random(iterations) < 0.05] = np.nan
    columns[0, rng.random(iterations) < 0.02] = np.inf
    columns[1, rng.random(iterations) < 0.02] = -np.inf
    columns[2, iterations // 4 : iterations // 2] = np.nan
    columns[3] = np.linspace(1, 0, iterations)
    return columns


def build(columns, after=0, portions=()):
    """Build the rows of iterations after ``after``, ``portions`` at a time, then the rest."""
    builder, done = LevelBuilder(after), after
    for portion in portions:
        builder.add(columns[:, done : done + portion])
        done = min(done + portion, columns.shape[1])
    builder.add(columns[:, done:])
    return {(row.level, row.part): row.as_row(100)["data"] for row in builder.rows}


def position_of(values, largest):
    """Find the first of the largest or smallest finite values; the first of all when there is none."""
    finite = np.flatnonzero(np.isfinite(values))
    if not len(finite):
        return 0
    best = values[finite].max() if largest else values[finite].min()
    return int(finite[np.flatnonzero(values[finite] == best)[0]])


def known(columns):
    return np.where(np.isfinite(columns), columns, np.nan)


def assert_reduced(found, columns, first, width):
    """Compare buckets with those of the columns of iterations ``first`` …, one after another."""
    numbers = np.arange(first, first + columns.shape[1])
    edges = np.unique((numbers - 1) // width)
    assert len(found.last) == len(edges)
    for n, bucket in enumerate(edges):
        inside = (numbers - 1) // width == bucket
        start, values = numbers[inside][0], columns[:, inside]
        assert found.last[n] == numbers[inside][-1]
        assert found.iterations_per_epoch[n] == 100
        for c in range(len(columns)):
            finite = values[c][np.isfinite(values[c])]
            assert found.counts[n, c] == len(finite)
            assert found.sums[n, c] == pytest.approx(finite.sum(dtype=np.float64), rel=1e-12, abs=1e-9)
            for entry, largest in ((2 * c, False), (2 * c + 1, True)):
                place = position_of(values[c], largest)
                assert found.iterations[n, entry] == start + place
                np.testing.assert_array_equal(found.values[n, entry], known(values[:, place]))


@pytest.mark.parametrize("iterations", [0, 1, 255, 256, 257, 1024, 4095, 4096, 4097, 16383, 16384, 16385])
def test_there_is_a_row_for_each_span_that_is_full(iterations):
    expected = {(level, part) for level in range(3) for part in range(iterations // span_of(level))}
    assert set(build(series(iterations))) == expected


def test_each_level_is_what_a_reduction_of_its_iterations_gives():
    columns = series(70_000)
    rows = build(columns)
    assert {level for level, _ in rows} == {0, 1, 2}
    for (level, part), data in rows.items():
        begin, end = part * span_of(level), (part + 1) * span_of(level)
        found = levels.read(level, [(part, data)], COLUMNS)
        assert_reduced(found, columns[:, begin:end], begin + 1, size_of(level))


def test_chosen_columns_are_read_of_several_rows():
    columns = series(3 * SPAN)
    rows = build(columns)
    found = levels.read(0, [(part, rows[0, part]) for part in (0, 2)], COLUMNS[:1])
    assert found.values.shape == (32, 2, 1)
    assert found.last.tolist() == [*range(256, 4097, 256), *range(8448, 12289, 256)]
    place = position_of(columns[0, 8192:8448], largest=True)
    assert found.iterations[16, 1] == 8193 + place
    chosen = levels.read(0, [(1, rows[0, 1])], [COLUMNS[1], COLUMNS[3]])
    assert_reduced(chosen, columns[[1, 3], 4096:8192], 4097, 256)


SERIES = series(5 * SPAN + 100, seed=1)


@given(st.integers(0, 2 * SPAN), st.lists(st.integers(0, 9000), max_size=8))
def test_portions_make_no_difference(after, portions):
    assert build(SERIES, after, portions) == build(SERIES, after)


@pytest.mark.parametrize("after", [1, 255, 256, 4095, 4096, 4097, 8192, 16383, 16384, 16385, 20_000])
def test_who_begins_within_a_span_makes_no_row_of_it(after):
    columns = series(70_000)
    every, resumed = build(columns), build(columns, after)
    assert resumed == {
        (level, part): data for (level, part), data in every.items() if part * span_of(level) >= after
    }


@pytest.mark.parametrize("width", [1, 2, 3, 255, 256, 1000, 100_000])
@pytest.mark.parametrize("first", [1, 77])
def test_iterations_themselves_are_reduced_to_any_width(first, width):
    columns = known(series(1500)).astype(np.float32)
    numbers = np.arange(first, first + 1500)
    found = levels.reduce_iterations(numbers, columns.T, np.full(1500, 100), width)
    assert_reduced(found, columns, first, width)


@pytest.mark.parametrize("width", [1024, 3072, 15 * 1024])
def test_buckets_of_all_kinds_are_combined_in_any_order(width):
    columns = known(series(23_000)).astype(np.float32)
    rows = build(columns)
    numbers = np.arange(1, 23_001)
    per_epoch = np.full(23_000, 100)
    found = [
        levels.reduce_iterations(numbers[20_480:], columns.T[20_480:], per_epoch[20_480:], width),
        levels.read(0, [(4, rows[0, 4]), (0, rows[0, 0])], COLUMNS),
        levels.reduce_iterations(numbers[4096:9000], columns.T[4096:9000], per_epoch[4096:9000], width),
        levels.reduce_iterations(numbers[9000:12_288], columns.T[9000:12_288], per_epoch[9000:12_288], width),
        levels.read(0, [(3, rows[0, 3])], COLUMNS),
    ]
    assert_reduced(levels.combine(found, width), columns, 1, width)


def test_iterations_with_others_between_them_are_combined_in_their_order():
    columns = np.ones((4, 3 * SPAN), np.float32)
    rows, numbers = build(columns), np.arange(1, 3 * SPAN + 1)
    outside = (numbers <= SPAN) | (numbers > 2 * SPAN)
    per_epoch = np.full(2 * SPAN, 100)
    around = levels.reduce_iterations(numbers[outside], columns.T[outside], per_epoch, 100_000)
    assert around.last.tolist() == [SPAN, 3 * SPAN]
    found = levels.combine([levels.read(0, [(1, rows[0, 1])], COLUMNS), around], 100_000)
    assert_reduced(found, columns, 1, 100_000)


def test_what_another_version_wrote_is_not_read():
    data = build(series(SPAN))[0, 0]
    assert levels.is_readable(data)
    assert not levels.is_readable(b"\x02" + data[1:])
    assert not levels.is_readable(data[:-1])
    assert not levels.is_readable(b"")


def test_values_of_any_size_are_kept():
    columns = np.zeros((4, SPAN), np.float32)
    columns[0, 300], columns[0, 301] = np.finfo(np.float32).max, np.finfo(np.float32).min
    columns[1, 5] = np.finfo(np.float32).smallest_subnormal
    columns[2] = np.finfo(np.float32).max  # a sum that no float32 holds
    found = levels.read(0, [(0, build(columns)[0, 0])], COLUMNS)
    assert found.iterations[1, :2].tolist() == [302, 301]
    assert found.values[0, 3, 1] == np.finfo(np.float32).smallest_subnormal
    assert found.sums[0, 2] == 256 * float(np.finfo(np.float32).max)


@given(st.integers(1, 10**12), st.integers(1, 10**12), st.integers(1, 10**5), st.sampled_from([64, 256]))
def test_a_grid_holds_the_range_in_no_more_buckets_than_asked_for(first, iterations, buckets, single):
    last = first + iterations - 1
    width, level = grid(first, last, buckets, single=single)
    assert (last - 1) // width - (first - 1) // width + 1 <= buckets
    assert width % size_of(level) == 0 if level >= 0 else width < single
    assert -1 <= level <= levels.MAX_LEVEL


@given(st.integers(1, 10**12), st.integers(1, 10**5))
def test_a_grid_is_as_fine_as_it_may_be_and_no_finer_level_is_read_than_needed(last, buckets):
    width, level = grid(1, last, buckets)
    least = -(-last // buckets)
    if level < 0:
        assert width == least
    elif level == 0:
        assert width < least + 256
    else:
        assert width < least * 1.25
    if 0 <= level < levels.MAX_LEVEL:
        assert width < 16 * size_of(level)


def test_a_series_that_grows_keeps_its_buckets_for_a_while():
    widths = [grid(1, last, 124)[0] for last in range(100_000, 10_000_000, 5000)]
    assert widths == sorted(widths)
    assert len(set(widths)) < 60
