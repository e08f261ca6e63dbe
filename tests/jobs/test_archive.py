"""The move of a job's iterations into a file: all or nothing, whoever comes between and whoever is killed."""

import errno
import hashlib
import resource
import signal
import subprocess
import sys
import textwrap
from functools import partial

import numpy as np
import polars as pl
import pytest
from sqlalchemy import func, select, true

from epochd.errors import ArchiveUnreadableError, ConfigurationError
from epochd.jobs import archive
from epochd.jobs.archive import RefusedError, StoppedError, archive_job, clear, clear_blocks
from epochd.jobs.complete import Outcome, complete, lose
from epochd.jobs.delete import delete
from epochd.jobs.retry import retry
from epochd.store import artifacts, attempts, jobs, metrics, retention, series
from epochd.store.database import Database
from epochd.store.metrics import Block
from epochd.store.tables import attempts as attempts_table
from epochd.store.tables import iteration_blocks, iteration_levels
from epochd.training.events import IterationsCompleted
from epochd.worker.blocks import BlockBuffer

FAILED = Outcome(
    "failed",
    "failed",
    error={"category": "data", "code": "bad_data", "message": "bad", "param": None, "retryable": False},
)
DONE = Outcome("succeeded", "completed")
PER_EPOCH = 700
ALL = ["succeeded", "failed", "cancelled"]


@pytest.fixture
def files(data_dir):
    return data_dir / "artifacts"


@pytest.fixture
def db(database_url, files):
    opened = Database(database_url, archives=files)
    yield opened
    opened.close()


@pytest.fixture
def record(db):
    """Record iterations of an attempt, with values that tell the attempt, and some that are not finite."""

    def make(taken, first, last):
        blocks = []
        for number in range((first - 1) // 1024, (last - 1) // 1024 + 1):
            begin, end = max(first, number * 1024 + 1), min(last, (number + 1) * 1024)
            loss = np.arange(begin, end + 1).astype(np.float32) / np.float32(3) + taken.attempt * 1000
            loss[::500] = np.nan
            rate = np.where(loss > 2000, np.float32(np.inf), loss)
            blocks.append(Block(number, loss, loss / 7, -loss, rate, first_iteration=begin))
        with db.write() as tx:
            attempts.begin(tx, taken.attempt_id, first)
            metrics.record_iterations(tx, taken.attempt_id, PER_EPOCH, blocks)

    return make


@pytest.fixture
def end(db):
    def make(taken, outcome=DONE):
        assert complete(db, taken.attempt_id, outcome, retry_delay_seconds=0)

    return make


@pytest.fixture
def job(db, queue, take, record, end):
    """A job that is done, after one attempt that was lost and two that were resumed."""
    queued = queue()
    for first, last in [(1, 3000), (2049, 2500), (2300, 6000)]:
        taken = take()
        record(taken, first, last)
        if last < 6000:
            lose(db, taken.attempt_id, "The process died.", retry_delay_seconds=0)
    end(taken, FAILED)
    return queued


@pytest.fixture
def answers(db):
    """What can be asked of a job's iterations, as bytes: some of it, or, when ``thorough``, all."""

    def read(job, *, thorough=False):
        with db.read() as tx:
            row = jobs.get(tx, job.id)
            every = [one.number for one in attempts.of_job(tx, job.number)]
            numbers = [None, *(every if thorough else every[:1])]
            found = []
            for attempt in numbers:
                slice_ = partial(metrics.iterations_json, tx, row, attempt=attempt)
                found += [
                    slice_(limit=100_000),
                    slice_(after=2000, limit=700),
                    slice_(after=1024, limit=1024, fields=["train_loss"]),
                    slice_(fields=["epoch"]),
                ]
                found += [
                    metrics.reduced(tx, row, points, attempt=attempt, fields=fields, reduction=reduction)
                    for points in ((1, 100) if thorough else (100,))
                    for fields in ((None, ["gradient_norm"]) if thorough else (None,))
                    for reduction in ("extremes", "mean")
                ]
        for attempt in numbers:
            for part in series.iteration_parts(db, row, attempt=attempt):
                found += [values.tobytes() for values in part.values()]
        return found

    return read


@pytest.fixture
def blocks_left(db):
    def count():
        with db.read() as tx:
            return tx.execute(select(func.count()).select_from(iteration_blocks)).scalar_one()

    return count


def move(db, job, files, **more):
    """Archive a job and remove its blocks."""
    moved = archive_job(db, job.number, files, **more)
    clear_blocks(db, lambda _: False)
    return moved


def listed(files):
    return sorted(str(path.relative_to(files)) for path in files.glob("**/*") if path.is_file())


def test_every_answer_is_the_same(db, job, files, answers, blocks_left):
    before = answers(job, thorough=True)
    assert move(db, job, files)
    assert blocks_left() == 0
    assert answers(job, thorough=True) == before


def test_the_file_is_an_artifact(db, job, files):
    move(db, job, files)
    with db.read() as tx:
        (one,) = artifacts.of_job(tx, job.number)
    content = (files / one.path).read_bytes()
    assert (one.name, one.media_type) == ("metrics.parquet", "application/vnd.apache.parquet")
    assert (one.bytes, one.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert listed(files) == [one.path]
    frame = pl.read_parquet(files / one.path)
    assert frame.group_by("attempt", maintain_order=True).len().rows() == [(1, 3000), (2, 452), (3, 3701)]
    assert frame["epoch"].max() == (6000 - 1) // PER_EPOCH + 1


def test_nothing_else_of_the_job_changes(db, job, files, row):
    before = row(job)
    move(db, job, files)
    assert row(job) == before


def test_it_goes_on_being_readable_while_blocks_go(db, job, files, answers, blocks_left, monkeypatch):
    monkeypatch.setattr(archive, "BLOCKS_AT_ONCE", 1)
    before = answers(job)
    archive_job(db, job.number, files)
    rests = iter([False, True])
    clear_blocks(db, lambda _: next(rests))
    assert answers(job) == before
    clear_blocks(db, lambda _: False)
    assert blocks_left() == 0
    assert answers(job) == before


def test_a_series_that_is_being_read_meanwhile(db, job, files, answers, row, monkeypatch):
    monkeypatch.setattr(series, "ITERATIONS_A_PART", 1024)
    before = [part["train_loss"].tolist() for part in series.iteration_parts(db, row(job))]
    parts = series.iteration_parts(db, row(job))
    found = [next(parts)["train_loss"].tolist()]
    move(db, job, files)
    found += [part["train_loss"].tolist() for part in parts]
    assert str(found) == str(before)


def test_due_is_what_is_done_and_old(db, job, queue, take, record, end, files):
    running, empty = queue(), queue()
    short = take()
    record(short, 1, 10)
    end(short)
    end(take())
    with db.read() as tx:
        find = partial(retention.due, tx, ALL)
        assert find(seconds=0) == [job.number, running.number]
        assert find(seconds=0, limit=1) == [job.number]
        assert find(seconds=0, after=job.number) == [running.number]
        assert find(seconds=3600) == []
        assert retention.due(tx, ["cancelled"], seconds=0) == []
        asked = [retention.is_due(tx, one.number, ALL, seconds=0) for one in (job, running, empty)]
        assert asked == [True, True, False]
        assert not retention.is_due(tx, job.number, ALL, seconds=3600)
    move(db, job, files)
    with db.read() as tx:
        assert retention.due(tx, ALL, seconds=0) == [running.number]
    assert not archive_job(db, empty.number + 100, files)


def test_one_that_was_retried_is_due_though_another_has_its_file(db, job, queue, take, record, end, files):
    other = queue()
    taken = take()
    record(taken, 1, 10)
    end(taken)
    for one in (job, other):
        move(db, one, files)
    retry(db, job.id, "checkpoint")
    end(take(), FAILED)
    with db.read() as tx:
        assert retention.due(tx, ALL, seconds=0) == [job.number]


def test_nobody_waits_for_the_disk(db, database_url, job, files, row, monkeypatch):
    """What is slow there happens while nothing in the database is locked."""
    put_in_place, impatient = archive._put_in_place, Database(database_url, busy_seconds=0.1)

    def slow(*paths):
        with impatient.write() as tx:
            assert jobs.get(tx, job.id, lock=True)
        put_in_place(*paths)

    monkeypatch.setattr(archive, "_put_in_place", slow)
    assert archive_job(db, job.number, files)
    impatient.close()


def test_a_file_that_is_cleared_away_before_it_counts(db, job, files, answers, monkeypatch):
    before, put_in_place = answers(job), archive._put_in_place

    def cleared(unfinished, path):
        put_in_place(unfinished, path)
        monkeypatch.setattr(archive, "SUPERSEDED_SECONDS", -1)
        clear(db, files)

    monkeypatch.setattr(archive, "_put_in_place", cleared)
    assert not archive_job(db, job.number, files)
    assert (answers(job), listed(files)) == (before, [])


@pytest.mark.parametrize("source", ["checkpoint", "scratch"])
def test_a_retry_after_it(db, job, files, take, record, end, answers, blocks_left, source, monkeypatch):
    move(db, job, files)
    (old,) = listed(files)
    retry(db, job.id, source)
    taken = take()
    assert taken.recorded.iteration == (6000 if source == "checkpoint" else 0)
    first = 5000 if source == "checkpoint" else 1
    record(taken, first, 8000)
    with db.read() as tx:
        loss = metrics.iteration_columns(tx, taken.job, fields=["train_loss"])["train_loss"]
    assert len(loss) == 8000
    assert loss[3] == np.float32(4) / np.float32(3) + (1000 if source == "checkpoint" else 4000)
    assert loss[5500] == np.float32(5501) / np.float32(3) + 4000
    assert not archive_job(db, job.number, files)
    end(taken)
    before = answers(job)
    with db.read() as tx:
        assert retention.due(tx, ["succeeded"], seconds=0) == [job.number]
    assert move(db, job, files)
    assert (answers(job), blocks_left()) == (before, 0)
    clear(db, files)
    assert old in listed(files)  # somebody may still read it
    monkeypatch.setattr(archive, "SUPERSEDED_SECONDS", -1)
    clear(db, files)
    assert old not in listed(files)
    assert len(listed(files)) == 1
    assert answers(job) == before


def test_a_retry_that_records_nothing(db, job, files, take, end, answers):
    move(db, job, files)
    before = answers(job)
    retry(db, job.id, "checkpoint")
    end(take(), FAILED)
    with db.read() as tx:
        assert retention.due(tx, ["failed"], seconds=0) == [job.number]
    assert move(db, job, files)
    assert answers(job) == before
    with db.read() as tx:
        assert [one.name for one in artifacts.of_job(tx, job.number)] == ["metrics.parquet"]


@pytest.mark.parametrize("lost", ["all", "the finest"])
def test_levels_that_an_earlier_version_did_not_record_are_made(db, queue, take, end, files, answers, lost):
    queued = queue()
    taken = take()
    buffer = BlockBuffer(100)
    values = np.random.default_rng(1).standard_normal((4, 40_000)).astype(np.float32)
    values[:, ::333], values[:, 5000:6000] = np.inf, np.nan
    buffer.add(IterationsCompleted(1, 101, *values))
    with db.write() as tx:
        attempts.begin(tx, taken.attempt_id, 101)
        levels = buffer.unwritten_levels()
        metrics.record_iterations(tx, taken.attempt_id, PER_EPOCH, buffer.unwritten(), levels)
    end(taken)
    every = select(iteration_levels).order_by(*iteration_levels.primary_key)
    with db.write() as tx:
        recorded = [tuple(row) for row in tx.execute(every)]
        assert {row.level for row in levels} == {0, 1}
        some = iteration_levels.c.level == 0 if lost == "the finest" else true()
        tx.execute(iteration_levels.delete().where(some))
    before = answers(queued)
    assert move(db, queued, files)
    with db.read() as tx:
        assert [tuple(row) for row in tx.execute(every)] == recorded
    assert answers(queued) == before


class During:
    """Something that happens once, when the file has been written."""

    def __init__(self, files, act):
        self._files = files
        self._act = act

    def __call__(self):
        if self._act is not None and self._is_written():
            act, self._act = self._act, None
            act()
        return False

    def _is_written(self):
        return any(path.read_bytes()[-4:] == b"PAR1" for path in self._files.glob(".archiving/*/*.parquet"))


def test_two_at_once(db, job, files, answers, blocks_left):
    before = answers(job)
    assert not archive_job(db, job.number, files, During(files, lambda: move(db, job, files)))
    assert len(listed(files)) == 1
    assert (answers(job), blocks_left()) == (before, 0)


def test_another_is_through_while_it_is_read(db, job, files, answers, monkeypatch):
    monkeypatch.setattr(archive, "BLOCKS_AT_ONCE", 1)
    before = answers(job)
    others = iter([lambda: move(db, job, files)])

    def during():
        for act in others:
            act()
        return False

    assert not archive_job(db, job.number, files, during)
    assert len(listed(files)) == 1
    assert answers(job) == before


def test_it_is_deleted_meanwhile(db, job, files, data_dir):
    away = During(files, lambda: delete(db, job.id, files, data_dir / "checkpoints"))
    assert not archive_job(db, job.number, files, away)
    assert [path.name for path in files.iterdir()] == [".archiving"]
    assert listed(files) == []


def test_it_is_retried_meanwhile(db, job, files, answers, take):
    before = answers(job)
    assert not archive_job(db, job.number, files, During(files, lambda: retry(db, job.id, "checkpoint")))
    assert (answers(job), listed(files)) == (before, [])


def test_it_is_retried_and_done_meanwhile(db, job, files, answers, take, record, end):
    def again():
        retry(db, job.id, "checkpoint")
        taken = take()
        record(taken, 6001, 6100)
        end(taken)

    assert not archive_job(db, job.number, files, During(files, again))
    before = answers(job)
    assert move(db, job, files)
    assert answers(job) == before


def test_it_is_to_stop(db, job, files, answers, blocks_left):
    before = answers(job), blocks_left()
    with pytest.raises(StoppedError):
        archive_job(db, job.number, files, lambda: True)
    assert (answers(job), blocks_left()) == before[0:2]
    assert listed(files) == []


def test_deleting_it_removes_the_file(db, job, files, data_dir):
    move(db, job, files)
    delete(db, job.id, files, data_dir / "checkpoints")
    assert listed(files) == []


@pytest.fixture
def limit_files():
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)  # what is shown is the disk's part
@pytest.mark.parametrize("size", [0, 1000, 50_000])
def test_a_disk_that_takes_no_more(db, job, files, answers, blocks_left, limit_files, size):
    before = answers(job), blocks_left()
    limit_files(size)
    with pytest.raises(OSError, match="File too large") as caught:
        archive_job(db, job.number, files)
    assert caught.value.errno == errno.EFBIG
    limit_files(resource.RLIM_INFINITY)
    assert (answers(job), blocks_left(), listed(files)) == (*before, [])
    assert move(db, job, files)
    assert answers(job) == before[0]


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)  # what is shown is the disk's part
def test_a_disk_that_would_be_full(db, job, files, answers, monkeypatch):
    before = answers(job)
    monkeypatch.setattr(archive, "SPARE_BYTES", 2**60)
    with pytest.raises(OSError, match="too little space for 7153 iterations"):
        archive_job(db, job.number, files)
    assert (answers(job), listed(files)) == (before, [])


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)  # what is shown is the disk's part
def test_a_place_that_cannot_be_written_to(db, job, files, answers):
    before = answers(job)
    files.mkdir()
    (files / job.id).touch()
    with pytest.raises(OSError, match=job.id):
        archive_job(db, job.number, files)
    assert (answers(job), listed(files)) == (before, [job.id])


@pytest.mark.parametrize("change", ["a gap", "another form"])
def test_what_it_cannot_keep_stays(db, job, files, blocks_left, change):
    c = iteration_blocks.c
    with db.write() as tx:
        mine = (c.attempt_id == select(func.min(attempts_table.c.id)).scalar_subquery(), c.block == 1)
        if change == "a gap":
            tx.execute(iteration_blocks.delete().where(*mine))
        else:
            spread = func.replace(c.learning_rate, ",", ", ")
            tx.execute(iteration_blocks.update().where(*mine).values(learning_rate=spread))
    before = blocks_left()
    with pytest.raises(RefusedError):
        archive_job(db, job.number, files)
    assert (blocks_left(), listed(files)) == (before, [])


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)  # what is shown is the disk's part
@pytest.mark.parametrize("damage", ["missing", "cut off", "another's"])
def test_a_file_that_was_tampered_with(db, job, files, answers, take, record, end, damage):
    move(db, job, files)
    (path,) = files.glob("job_*/*.parquet")
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(content[:-100] if damage == "cut off" else bytes(len(content)))
    with pytest.raises(ArchiveUnreadableError):
        answers(job)
    retry(db, job.id, "checkpoint")
    taken = take()
    record(taken, 6001, 6100)
    end(taken)
    with pytest.raises(ArchiveUnreadableError):
        archive_job(db, job.number, files)
    path.write_bytes(content)
    assert move(db, job, files)
    assert len(answers(job)) > 1


KILLED = """
    import os, signal, sys
    from pathlib import Path
    from epochd.jobs import archive
    from epochd.store import artifacts, retention
    from epochd.store.database import Database

    url, files, number, when, where = sys.argv[1:]
    owner, name = {
        "write": (archive.archive, "write"),
        "prove": (archive._Writing, "_prove"),
        "commit": (archive, "_commit"),
        "rename": (archive, "_put_in_place"),
        "mark": (retention, "archive"),
        "insert": (artifacts, "insert_many"),
        "clear": (archive, "clear_blocks"),
        "remove": (retention, "remove_blocks"),
    }[where]
    step = getattr(owner, name)

    def killed(*arguments, **named):
        result = step(*arguments, **named) if when == "after" else None
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(owner, name, killed)
    files = Path(files)
    db = Database(url, archives=files)
    archive.BLOCKS_AT_ONCE = 1
    archive.archive_job(db, int(number), files)
    archive.clear_blocks(db, lambda _: False)
"""


STEPS = [
    "before write",
    "after write",
    "after prove",
    "after rename",
    "after insert",
    "before clear",
    "after remove",
]


USUALLY = {
    *(("sqlite", step) for step in ("after write", "after rename", "after insert", "after remove")),
    # What is particular to Postgres is a transaction that its server has to end.
    ("postgres", "after insert"),
}
"""Each leaves something else behind; the others are for the long proofs."""


@pytest.mark.parametrize(
    ("database_kind", "step"),
    [
        pytest.param(kind, step, marks=() if (kind, step) in USUALLY else pytest.mark.torture)
        for kind in ("sqlite", "postgres")
        for step in STEPS
    ],
    indirect=["database_kind"],
)
def test_whoever_is_killed_loses_nothing(
    db, database_url, job, files, answers, blocks_left, monkeypatch, step
):
    before = answers(job)
    command = [sys.executable, "-c", textwrap.dedent(KILLED), database_url, str(files), str(job.number)]
    assert subprocess.run([*command, *step.split()], check=False).returncode == -signal.SIGKILL
    assert answers(job) == before
    monkeypatch.setattr(archive, "UNFINISHED_SECONDS", -1)
    monkeypatch.setattr(archive, "SUPERSEDED_SECONDS", -1)
    clear(db, files)
    clear_blocks(db, lambda _: False)
    assert answers(job) == before
    with db.read() as tx:
        due = retention.due(tx, ["failed"], seconds=0)
        kept = retention.referenced(tx)
    assert sorted(kept) == listed(files)
    assert (due == []) == (step in {"before clear", "after remove"}) == bool(kept)
    if due:
        assert move(db, job, files)
    assert (answers(job), blocks_left(), len(listed(files))) == (before, 0, 1)


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)  # what is shown is the disk's part
def test_what_others_write_just_now_stays(db, job, files):
    for name in (
        ".archiving/job_9/metrics-1.parquet",
        f"{job.id}/metrics-2.parquet",
        "job_9/metrics-3.parquet",
    ):
        (files / name).parent.mkdir(parents=True, exist_ok=True)
        (files / name).touch()
    clear(db, files)
    assert len(listed(files)) == 3


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)  # what is shown is the disk's part
def test_files_of_jobs_of_another_database_stay(db, job, files, monkeypatch):
    monkeypatch.setattr(archive, "SUPERSEDED_SECONDS", -1)
    for name in ("job_9", job.id):
        (files / name).mkdir(parents=True)
        (files / name / "metrics-1.parquet").touch()
    clear(db, files)
    assert listed(files) == ["job_9/metrics-1.parquet"]


def test_a_database_without_a_directory_for_archives(database, db, job, files):
    move(db, job, files)
    with database.read() as tx, pytest.raises(ConfigurationError):
        metrics.iterations_json(tx, jobs.get(tx, job.id))
