"""Parquet files of any length, read by two libraries that did not write them together."""

import io
import subprocess
import sys

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

from epochd.store import parquet

NAMES = ("attempt", "iteration", "epoch", "train_loss", "learning_rate")


def part(first, length):
    numbers = np.arange(first, first + length)
    loss = np.sin(numbers).astype(np.float32)
    loss[numbers % 100 == 7] = np.nan
    rate = np.full(length, 0.001, np.float32)
    attempt = np.full(length, 3, np.int32)
    columns = (attempt, numbers, (numbers - 1) // 10 + 1, loss, rate)
    return dict(zip(NAMES, columns, strict=True))


def parts(lengths):
    first = 1
    for length in lengths:
        yield part(first, length)
        first += length


def written(lengths):
    file = io.BytesIO()
    rows = parquet.write(file, parts(lengths), parquet.iteration_types(NAMES))
    file.seek(0)
    return rows, file


@pytest.mark.parametrize(
    "lengths",
    [[1], [5, 3, 0, 2], [65_536] * 2, [200_000, 1], [1000] * 140],
    ids=lambda found: str(sum(found)),
)
def test_any_parts_become_one_file(lengths):
    rows, file = written(lengths)
    assert rows == sum(lengths)
    expected = part(1, rows)
    frame = pl.read_parquet(file)
    for name, values in expected.items():
        series = frame[name]
        assert np.array_equal(series.is_null().to_numpy(), np.isnan(values)), name
        assert np.array_equal(series.fill_null(0).to_numpy(), np.nan_to_num(values)), name
    file.seek(0)
    table = pq.read_table(file)
    table.validate(full=True)
    assert table.equals(frame.to_arrow().cast(table.schema))


def test_a_file_is_read_by_row_groups():
    rows, file = written([50_000] * 6)
    metadata = pq.read_metadata(file)
    assert metadata.num_rows == rows
    sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    assert (sum(sizes), max(sizes)) == (rows, parquet.ROW_GROUP)
    statistics = [
        metadata.row_group(group).column(NAMES.index("iteration")).statistics for group in range(len(sizes))
    ]
    assert [one.min for one in statistics] == [1 + sum(sizes[:group]) for group in range(len(sizes))]
    file.seek(0)
    found = pq.read_table(file, filters=[("iteration", ">", rows - 3)])
    assert found["iteration"].to_pylist() == [rows - 2, rows - 1, rows]
    file.seek(0)
    assert pl.scan_parquet(file).filter(pl.col("iteration") == 123_456).collect().height == 1


@pytest.mark.parametrize("lengths", [[], [0], [0, 0]])
def test_no_rows_are_a_file_with_columns(lengths):
    rows, file = written(lengths)
    assert rows == 0
    assert pl.read_parquet(file).schema == {
        "attempt": pl.Int32,
        "iteration": pl.Int64,
        "epoch": pl.Int64,
        "train_loss": pl.Float32,
        "learning_rate": pl.Float32,
    }
    file.seek(0)
    assert pq.read_table(file).num_rows == 0


def test_lists_with_none_are_taken():
    types = parquet.epoch_types(["epoch", "train_loss", "is_best"])
    file = io.BytesIO()
    rows = [
        {"epoch": [1, 2], "train_loss": [1, 0.5], "is_best": [False, True]},
        {"epoch": [3], "train_loss": [None], "is_best": [False]},
    ]
    assert parquet.write(file, rows, types) == 3
    file.seek(0)
    frame = pl.read_parquet(file)
    assert frame.schema == {"epoch": pl.Int64, "train_loss": pl.Float64, "is_best": pl.Boolean}
    assert frame["train_loss"].to_list() == [1.0, 0.5, None]


def test_the_bytes_are_given_while_the_parts_are_read():
    taken = []

    def counted():
        for one in parts([65_536] * 3):
            taken.append(len(one["iteration"]))
            yield one

    chunks = parquet.encode(counted(), parquet.iteration_types(NAMES))
    assert taken == []
    first = next(chunks)
    assert first.startswith(b"PAR1")
    assert len(taken) == 1
    rest = list(chunks)
    assert len(rest) == 3
    assert pl.read_parquet(io.BytesIO(first + b"".join(rest))).height == 3 * 65_536


def test_an_error_of_the_parts_leaves_no_file(tmp_path):
    def failing():
        yield part(1, 70_000)
        raise KeyError("gone")

    path = tmp_path / "series.parquet"
    with pytest.raises(KeyError, match="gone"):
        parquet.write(path, failing(), parquet.iteration_types(NAMES))
    assert list(tmp_path.iterdir()) == []
    assert parquet.write(path, parts([10]), parquet.iteration_types(NAMES)) == 10
    assert pl.read_parquet(path).height == 10


def test_a_full_disk_is_an_os_error():
    with open("/dev/full", "wb", buffering=0) as full, pytest.raises(OSError, match="No space left"):  # noqa: PTH123
        parquet.write(full, parts([10]), parquet.iteration_types(NAMES))


def test_columns_that_differ_in_length_are_refused():
    with pytest.raises(pl.exceptions.ShapeError):
        parquet.write(io.BytesIO(), [part(1, 3) | {"epoch": [1]}], parquet.iteration_types(NAMES))


def test_the_api_starts_without_polars():
    code = "import epochd.api.app, epochd.cli, sys; print('polars' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert out.stdout.strip() == "False"
