"""The file that iterations are moved to: written in row groups, read in blocks, believed in nothing."""

import os
import random
import resource

import numpy as np
import polars as pl
import pytest

from epochd.errors import ArchiveUnreadableError, ServiceUnavailableError
from epochd.store import archive, parquet
from epochd.store.archive import Archived, Run
from epochd.store.blocks import COLUMNS, dump, epochs_of

JOB = "job_1"
STRANGE = [np.nan, np.inf, -np.inf, -0.0, 1e-45, 3.4028235e38, 0.1, 16777216.0]


def values_of(iterations, attempt=1):
    """Random values, and all strange ones."""
    rng = np.random.default_rng(attempt)
    found = {name: rng.standard_normal(iterations).astype(np.float32) for name in COLUMNS}
    found["gradient_norm"][: len(STRANGE)] = STRANGE[:iterations]
    return found


@pytest.fixture
def write(tmp_path):
    """Write attempts, given as (number, first, last), in runs of some length; give their values by number."""

    def make(*attempts, per_epoch=10, run=1000, name="metrics-1.parquet"):
        archived, row, values = [], 0, {}
        for number, first, last in attempts:
            archived.append(Archived(100 + number, number, first, last, per_epoch, row))
            values[number] = values_of(last - first + 1, number)
            row += last - first + 1

        def runs():
            for number, first, last in attempts:
                for begin in range(first, last + 1, run):
                    inside = slice(begin - first, begin - first + run)
                    columns = {column: found[inside] for column, found in values[number].items()}
                    yield Run(number, begin, per_epoch, columns)

        path = tmp_path / JOB / name
        path.parent.mkdir(exist_ok=True)
        with path.open("w+b") as file:
            archive.write(file, JOB, archived, runs())
        return path, values

    return make


@pytest.fixture
def blocks(tmp_path):
    def read(attempt_id=101, numbers=range(1000), columns=COLUMNS, name="metrics-1.parquet"):
        return list(archive.blocks(tmp_path, f"{JOB}/{name}", attempt_id, numbers, columns))

    return read


def text(values, begin, end):
    finite = np.where(np.isfinite(values[begin:end]), values[begin:end], np.float32(np.nan))
    return dump(finite).decode()


def test_blocks_come_back_as_they_were(write, blocks):
    _, values = write((1, 1, 70_000), (2, 1500, 3000), (3, 2049, 2049))
    first = blocks(101)
    assert [(row[0], row[1], row[2]) for row in first[:2]] == [(1, 1024, 10), (1025, 1024, 10)]
    assert (first[-1][0], first[-1][1]) == (69_633, 368)
    for row in first:
        assert row[3:] == tuple(text(values[1][name], row[0] - 1, row[0] - 1 + row[1]) for name in COLUMNS)
    second = blocks(102)
    assert [row[:2] for row in second] == [(1500, 549), (2049, 952)]
    assert second[1][4] == text(values[2]["learning_rate"], 549, 1501)
    assert blocks(103) == [
        (2049, 1, 10, *(text(values[3][name], 0, 1) for name in COLUMNS)),
    ]


@pytest.mark.parametrize("run", [1, 7, 65_536, 100_000])
def test_runs_of_any_length(write, blocks, run):
    iterations = 50 if run == 1 else 66_000
    _, values = write((1, 1, iterations), run=run)
    texts = [row[3] for row in blocks()]
    assert ",".join(one[1:-1] for one in texts) == text(values[1]["train_loss"], 0, iterations)[1:-1]


def test_some_blocks_and_columns(write, blocks):
    _, values = write((1, 1, 5000))
    assert blocks(numbers=range(2, 3), columns=["samples_per_second", "train_loss"]) == [
        (
            2049,
            1024,
            10,
            text(values[1]["samples_per_second"], 2048, 3072),
            text(values[1]["train_loss"], 2048, 3072),
        )
    ]
    assert blocks(numbers=range(4, 6), columns=[]) == [(4097, 904, 10)]
    assert blocks(numbers=range(5, 9)) == []


def test_anybody_reads_the_file(write):
    path, values = write((1, 1, 70_000), (2, 31, 60), per_epoch=7)
    frame = pl.read_parquet(path)
    assert frame.columns == ["attempt", "iteration", "epoch", *COLUMNS]
    assert frame["attempt"].to_list() == [1] * 70_000 + [2] * 30
    assert frame["iteration"].to_list() == [*range(1, 70_001), *range(31, 61)]
    assert frame["epoch"].to_list() == epochs_of(frame["iteration"].to_numpy(), 7).tolist()
    assert frame["train_loss"][70_000:].to_list() == values[2]["train_loss"].tolist()
    assert frame["gradient_norm"][0] is None
    assert pl.scan_parquet(path).select(pl.len()).collect().item() == 70_030


def test_it_says_what_it_holds(write):
    path, _ = write((1, 1, 70_000), (4, 11, 20))
    said = archive.contents(path)
    assert (said.job, said.rows) == (JOB, 70_010)
    assert said.attempts[1] == Archived(104, 4, 11, 20, 10, 70_000)
    assert [len(found) for found in said.digests.values()] == [2, 2, 2, 2]


def test_another_attempt(write, blocks):
    write((1, 1, 10))
    with pytest.raises(ArchiveUnreadableError):
        blocks(102)


def test_a_missing_file(blocks):
    with pytest.raises(ArchiveUnreadableError) as caught:
        blocks()
    assert caught.value.code == "archive_unreadable"
    assert "/" not in caught.value.message


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" * 100, bytes(10_000)])
def test_no_such_file(write, blocks, content):
    path, _ = write((1, 1, 10))
    path.write_bytes(content)
    with pytest.raises(ArchiveUnreadableError):
        blocks()


def test_a_parquet_file_of_somebody_else(write, blocks):
    path, _ = write((1, 1, 10))
    columns = {name: [1.0] * 10 for name in COLUMNS}
    parquet.write(path, [columns], parquet.iteration_types(COLUMNS))
    with pytest.raises(ArchiveUnreadableError):
        blocks()


def test_the_file_of_another_job(write, blocks, tmp_path):
    path, _ = write((1, 1, 10))
    (tmp_path / "job_2").mkdir()
    path.rename(tmp_path / "job_2" / path.name)
    with pytest.raises(ArchiveUnreadableError):
        list(archive.blocks(tmp_path, f"job_2/{path.name}", 101, range(1), COLUMNS))


@pytest.mark.parametrize("shortage", ["files", "memory"])
def test_what_the_process_is_short_of_is_not_the_fault_of_the_file(write, blocks, monkeypatch, shortage):
    write((1, 1, 10))
    if shortage == "memory":
        monkeypatch.setattr(pl, "read_parquet_metadata", lambda _: bytearray(2**62))
        with pytest.raises(MemoryError):
            blocks()
        monkeypatch.undo()
    else:
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
        try:
            with pytest.raises(ServiceUnavailableError) as caught:
                blocks()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        assert not isinstance(caught.value, ArchiveUnreadableError)
    assert len(blocks()) == 1


def test_a_file_put_in_its_place_is_noticed(write, blocks):
    path, values = write((1, 1, 10))
    kept = path.read_bytes()
    assert blocks()[0][3] == text(values[1]["train_loss"], 0, 10)
    path.write_bytes(kept[:-20])
    with pytest.raises(ArchiveUnreadableError):
        blocks()
    path.write_bytes(kept)
    assert blocks()[0][3] == text(values[1]["train_loss"], 0, 10)


@pytest.mark.parametrize("seed", range(4))
def test_damage_never_makes_other_numbers(write, blocks, seed):
    path, _ = write((1, 1, 3000), (2, 1000, 2000))
    kept, right = path.read_bytes(), [blocks(101), blocks(102)]
    chosen = random.Random(seed)
    refused = 0
    for turn in range(50):
        damaged = bytearray(kept)
        for _ in range(chosen.choice([1, 1, 3])):
            damaged[chosen.randrange(len(kept))] ^= 1 << chosen.randrange(8)
        path.write_bytes(damaged[: chosen.choice([len(kept), len(kept), chosen.randrange(len(kept))])])
        os.utime(path, ns=(turn, turn))
        try:
            assert [blocks(101), blocks(102)] == right
        except ArchiveUnreadableError:
            refused += 1
    assert refused > 5
