"""``epochd export``: what comes out, and what is said when nothing can."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from tests.e2e.conftest import QUIET
from tests.mirror.conftest import catch_up, free_port, scalars

from epochd.errors import ConfigurationError, DatabaseNotMigratedError, MirrorAwayError, NotFoundError
from epochd.mirror import reading
from epochd.mirror.export import Order, export
from epochd.mirror.tensorboard import TensorBoard
from epochd.settings import Settings
from epochd.store import metrics, mirrors, series


@pytest.fixture
def settings(database_url, data_dir):
    return Settings(database_url=database_url, data_dir=data_dir)


@pytest.fixture
def job(queue, claim, record, end):
    """A job of 1500 iterations, one of which has no numbers."""
    queue(epochs=200)
    claimed = claim()
    record(claimed, 1, 1500, holes=[7])
    end(claimed)
    return claimed.job


@pytest.fixture
def run(settings):
    def run_(job_id, to, **options):
        seen = []
        exported = export(settings, job_id, Order(to, **options), lambda *progress: seen.append(progress))
        assert seen[-1] == (exported.iterations, exported.iterations)
        assert [done for done, _ in seen] == sorted(done for done, _ in seen)
        return exported

    return run_


def stored(database, job):
    with database.read() as tx:
        return (
            json.loads(metrics.iterations_json(tx, job, limit=10_000))["columns"],
            metrics.epochs(tx, job, limit=10_000)[0],
        )


def test_csv(database, run, job, tmp_path):
    exported = run(job.id, "csv", output=tmp_path / "new" / "folder")
    iterations, epochs = (Path(place) for place in exported.places)
    assert iterations.name == f"{job.id}-iterations.csv"
    assert epochs.name == f"{job.id}-epochs.csv"
    columns, rows = stored(database, job)
    with iterations.open(newline="") as file:
        found = list(csv.DictReader(file))
    assert list(found[0]) == list(columns)
    assert [[float(row[name]) if row[name] else None for name in columns] for row in found] == [
        list(values) for values in zip(*columns.values(), strict=True)
    ]
    assert found[6]["train_loss"] == ""
    with epochs.open(newline="") as file:
        found = list(csv.DictReader(file))
    assert list(found[0]) == ["epoch", "train_loss", "validation_loss", "learning_rate", "seconds", "is_best"]
    assert [int(row["epoch"]) for row in found] == [row.epoch for row in rows]
    assert [float(row["train_loss"]) for row in found] == [row.metrics["train_loss"] for row in rows]
    assert found[1]["validation_loss"] == ""
    assert [row["is_best"] for row in found] == ["false"] * (len(rows) - 1) + ["true"]
    assert sorted(path.name for path in iterations.parent.iterdir()) == [epochs.name, iterations.name]


def test_parquet(database, run, job, tmp_path):
    exported = run(job.id, "parquet", output=tmp_path)
    iterations, epochs = (pl.read_parquet(place) for place in exported.places)
    columns, rows = stored(database, job)
    assert iterations.columns == list(columns)
    assert iterations["iteration"].to_list() == columns["iteration"]
    assert np.array_equal(
        iterations["train_loss"].to_numpy(), np.array(columns["train_loss"], np.float32), equal_nan=True
    )
    assert iterations["train_loss"][6] is None
    assert epochs["epoch"].to_list() == [row.epoch for row in rows]
    assert epochs["validation_loss"].to_list() == [row.metrics["validation_loss"] for row in rows]
    assert epochs["is_best"].to_list()[-1] is True


def test_tensorboard(run, job, tmp_path):
    exported = run(job.id, "tensorboard", output=tmp_path)
    [place] = exported.places
    found = scalars(Path(place))
    assert [step for step, _ in found["iteration/train_loss"]] == [n for n in range(1, 1501) if n != 7]
    assert [step for step, _ in found["train_loss"]] == list(
        range(1, 1500 // job.plan["iterations_per_epoch"] + 1)
    )
    with pytest.raises(ConfigurationError, match="--force"):
        run(job.id, "tensorboard", output=tmp_path)
    run(job.id, "tensorboard", output=tmp_path, points=100, force=True)
    found = scalars(Path(place))
    every = -(-job.plan["total_iterations"] // 100)
    assert [step for step, _ in found["iteration/train_loss"]] == list(range(1, 1501, every))


def test_mlflow(run, job, mlflow_server):
    for _ in range(2):  # a run of its own each time
        exported = run(job.id, "mlflow", mlflow_uri=mlflow_server.url)
    assert exported.places[0].startswith(f"{mlflow_server.url}/#/experiments/")
    runs = mlflow_server.runs(job.id)
    assert len(runs) == 2
    for one in runs:
        assert one["info"]["status"] == "FINISHED"
        history = mlflow_server.history(one["info"]["run_id"], "iteration/train_loss")
        assert history == [(n, float(n)) for n in range(1, 1501) if n != 7]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_nothing_is_overwritten_unless_it_is_meant(run, job, tmp_path, kind):
    other = tmp_path / f"{job.id}-epochs.{kind}"
    other.write_text("mine")
    with pytest.raises(ConfigurationError, match="--force"):
        run(job.id, kind, output=tmp_path)
    assert list(tmp_path.glob(f"*{job.id}*")) == [other]
    assert other.read_text() == "mine"
    run(job.id, kind, output=tmp_path, force=True)
    assert other.read_bytes() != b"mine"


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_both_files_or_none(run, job, tmp_path):
    iterations, epochs = (tmp_path / f"{job.id}-{name}.csv" for name in ("iterations", "epochs"))
    iterations.write_text("mine")
    epochs.mkdir()
    with pytest.raises(ConfigurationError, match="is a directory"):
        run(job.id, "csv", output=tmp_path, force=True)
    assert iterations.read_text() == "mine"
    assert sorted(tmp_path.glob(f"*{job.id}*")) == [epochs, iterations]


def test_what_is_there_goes_when_there_is_something_better(database, run, job, tmp_path, follow, monkeypatch):
    board = tmp_path / "board"
    board.mkdir()
    follower = follow(TensorBoard(board))
    catch_up(follower)
    [path] = board.iterdir()
    before = {file.name: file.read_bytes() for file in path.iterdir()}

    def fails(*_arguments, **_options):
        raise MirrorAwayError("the disk is full")

    with monkeypatch.context() as broken:
        broken.setattr(reading, "read", fails)
        with pytest.raises(MirrorAwayError):
            run(job.id, "tensorboard", output=board, force=True)
    assert {file.name: file.read_bytes() for file in path.iterdir()} == before
    assert list(board.iterdir()) == [path]
    with database.write() as tx:
        assert mirrors.take(tx, job.number, "tensorboard", "mirror", 60) is not None
    with pytest.raises(ConfigurationError, match="written by the mirror"):
        run(job.id, "tensorboard", output=board, force=True)
    run(job.id, "tensorboard", output=tmp_path / "elsewhere")


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_job_that_is_deleted_meanwhile_leaves_no_file(database, settings, job, tmp_path, monkeypatch, kind):
    from epochd.jobs.delete import delete

    monkeypatch.setattr(series, "TEXT_ITERATIONS_A_PART", 1024)
    monkeypatch.setattr(series, "ITERATIONS_A_PART", 1024)
    seen = []

    def progress(done, _total):
        seen.append(done)
        delete(database, job.id, tmp_path / "a", tmp_path / "b")

    directory = tmp_path / "out"
    with pytest.raises(NotFoundError, match="deleted"):
        export(settings, job.id, Order(kind, directory), progress)
    assert seen == [1024]
    assert list(directory.iterdir()) == []


def test_what_cannot_be_exported(database_url, data_dir, run, job, queue, tmp_path, mlflow_server):
    waiting = queue()
    for to, options, error, words in [
        ("csv", {"mlflow_uri": "http://x"}, ConfigurationError, "--mlflow-uri"),
        ("csv", {"points": 5}, ConfigurationError, "--points"),
        ("mlflow", {"output": tmp_path}, ConfigurationError, "--output"),
        ("mlflow", {"force": True, "mlflow_uri": "http://x"}, ConfigurationError, "--force"),
        ("mlflow", {}, ConfigurationError, "--mlflow-uri"),
        ("mlflow", {"mlflow_uri": "mlflow:5000"}, ConfigurationError, "--mlflow-uri"),
        ("mlflow", {"mlflow_uri": f"http://127.0.0.1:{free_port()}"}, MirrorAwayError, "does not answer"),
        ("csv", {"output": Path("/proc/nothing")}, ConfigurationError, "cannot make"),
        ("tensorboard", {"output": Path("/proc/nothing")}, ConfigurationError, "cannot make"),
        ("csv", {"output": Path("/proc")}, ConfigurationError, "cannot write"),
        ("tensorboard", {"output": Path("/proc")}, MirrorAwayError, "cannot write"),
    ]:
        with pytest.raises(error, match=words):
            run(job.id, to, **options)
    with pytest.raises(NotFoundError, match="no iterations yet; it is queued"):
        run(waiting.id, "csv", output=tmp_path)
    with pytest.raises(NotFoundError, match="there is no job 'job_x'"):
        run("job_x", "csv", output=tmp_path)
    assert mlflow_server.runs(job.id) == []


def test_a_database_that_is_not_there_is_not_made(tmp_path):
    settings = Settings(data_dir=tmp_path / "nowhere")
    with pytest.raises(ConfigurationError, match="there is no database"):
        export(settings, "job_x", Order("csv"), print)
    assert not (tmp_path / "nowhere").exists()


def test_a_database_that_is_too_old(empty_database_url, tmp_path):
    if empty_database_url.startswith("sqlite"):
        Path(empty_database_url.removeprefix("sqlite:///")).touch()
    settings = Settings(data_dir=tmp_path, database_url=empty_database_url)
    with pytest.raises(DatabaseNotMigratedError, match="db upgrade"):
        export(settings, "job_x", Order("csv"), print)


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_the_command(database_url, job, tmp_path):
    def epochd(*arguments):
        command = [sys.executable, "-m", "epochd", "export", *arguments, "--database-url", database_url]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False, env=QUIET)
        return done.returncode, done.stdout, done.stderr

    assert epochd(job.id, "--to", "csv") == (
        0, f"1,500 iterations\n  {job.id}-iterations.csv\n  {job.id}-epochs.csv\n", ""
    )  # fmt: skip
    code, output, errors = epochd(job.id, "--to", "csv")
    assert (code, output, len(errors.splitlines())) == (2, "", 1)
    assert errors.startswith("epochd: ")
    assert "--force" in errors
    code, output, errors = epochd("job_unknown", "--to", "tensorboard")
    assert (code, output, errors) == (1, "", "epochd: there is no job 'job_unknown'\n")
    assert not (tmp_path / "runs").exists()
