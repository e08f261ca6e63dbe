"""Jobs in a directory of event files, read by TensorBoard's own reader."""

import resource
import signal
import time

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tests.mirror.conftest import catch_up, mirror_rows, scalars

from epochd.errors import MirrorAwayError
from epochd.mirror.tensorboard import TensorBoard
from epochd.store import mirrors, tables

FIELDS = ("train_loss", "learning_rate", "gradient_norm", "samples_per_second")


@pytest.fixture
def directory(tmp_path):
    path = tmp_path / "runs"
    path.mkdir()
    return path


@pytest.fixture
def board(directory):
    return TensorBoard(directory)


def only_run(directory):
    [path] = directory.iterdir()
    return path


def steps(found, tag):
    return [step for step, _ in found[tag]]


def test_a_job_is_there_with_every_iteration_and_epoch(queue, claim, record, end, follow, board, directory):
    job = queue()
    claimed = claim()
    per_epoch = job.plan["iterations_per_epoch"]
    record(claimed, 1, 2 * per_epoch + 5, holes=[3])
    end(claimed)
    catch_up(follow(board))
    path = only_run(directory)
    assert path.name == f"digits-small-{job.id}"
    found = scalars(path)
    finite = [n for n in range(1, 2 * per_epoch + 6) if n != 3]
    assert found["iteration/samples_per_second"] == [(n, 2.0 * n) for n in finite]
    assert found["iteration/train_loss"] == [(n, float(n)) for n in finite]
    assert found["train_loss"] == [(1, 1.0), (2, 0.5)]
    assert found["validation_loss"] == [(1, 2.0)]
    assert set(found) == {
        *(f"iteration/{name}" for name in FIELDS), "train_loss", "validation_loss", "learning_rate", "seconds"
    }  # fmt: skip


def test_a_live_job_goes_on_where_it_was(database, queue, claim, record, end, follow, board, directory):
    job = queue()
    claimed = claim()
    follower = follow(board)
    for last in (1, 10, 10, 700, 1024, 2100):
        record(claimed, 1, last)
        catch_up(follower)
        found = scalars(only_run(directory))
        assert steps(found, "iteration/train_loss") == list(range(1, last + 1))
        [row] = mirror_rows(database, job.number)
        assert row.iteration == last
    end(claimed, "failed", error={"code": "lost", "message": "away"})
    catch_up(follower)
    assert len(list(only_run(directory).iterdir())) == 1
    assert not follower.look()


def test_a_job_that_never_began_is_left_out(queue, follow, board, directory):
    queue()
    catch_up(follow(board))
    assert list(directory.iterdir()) == []


@pytest.mark.parametrize("points", [1, 7, 95, 96, 10_000])
def test_iterations_are_thinned(queue, claim, record, end, follow, board, directory, points):
    total = queue().plan["total_iterations"]
    claimed = claim()
    follower = follow(board, points=points)
    record(claimed, 1, total // 2)
    catch_up(follower)
    record(claimed, 1, total)
    end(claimed)
    catch_up(follower)
    found = scalars(only_run(directory))
    kept = steps(found, "iteration/train_loss")
    assert kept == list(range(1, total + 1, -(-total // points)))
    assert len(kept) <= points
    assert steps(found, "train_loss") == [1, 2, 3, 4]


def test_another_mirror_goes_on_without_gap_or_repeat(
    database, queue, claim, record, end, follow, board, directory
):
    """The first one has sent more than it could note, as one that was killed."""
    job = queue()
    claimed = claim()
    record(claimed, 1, 100)
    first = follow(board, holder="first", lease_seconds=0.0)
    catch_up(first)
    [noted] = mirror_rows(database, job.number)
    record(claimed, 1, 150)
    catch_up(first)
    with database.write() as tx:
        mirrors.store(tx, noted, "first", 0.0)
    record(claimed, 1, 180)
    second = follow(board, holder="second")
    catch_up(second)
    found = scalars(only_run(directory))
    assert steps(found, "iteration/train_loss") == list(range(1, 181))
    epochs = 180 // job.plan["iterations_per_epoch"]
    assert steps(found, "train_loss") == list(range(1, epochs + 1))
    assert len(list(only_run(directory).iterdir())) == 2
    # The first one wakes, and sees that it lost the job.
    record(claimed, 1, 190)
    first.look()
    catch_up(second)
    assert steps(scalars(only_run(directory)), "iteration/train_loss") == list(range(1, 191))


def test_two_mirrors_share_the_jobs(database, queue, claim, record, end, follow, board, directory):
    numbers = []
    for _ in range(6):
        numbers.append(queue().number)
        claimed = claim()
        record(claimed, 1, 30)
    one, other = follow(board, holder="one"), follow(board, holder="other")
    one._help(numbers[0])
    other._help(numbers[1])
    assert not one._help(numbers[1])
    catch_up(one)
    catch_up(other)
    for path in directory.iterdir():
        assert steps(scalars(path), "iteration/train_loss") == list(range(1, 31))
        assert len(list(path.iterdir())) == 1
    assert len(list(directory.iterdir())) == 6


def test_live_jobs_are_looked_at_alone_and_all_by_pages(database, queue, claim, record, end, monkeypatch):
    monkeypatch.setattr(mirrors, "RECENT_ATTEMPTS", 1)
    numbers = []
    for _ in range(3):
        numbers.append(queue().number)
        claimed = claim()
        record(claimed, 1, 5)
        if len(numbers) > 1:
            end(claimed)
    queue()  # it never began
    with database.read() as tx:
        assert mirrors.stale(tx, "tensorboard", "me") == [numbers[0], numbers[2]]
        assert mirrors.stale_after(tx, "tensorboard", "me", 0, limit=9) == numbers[1:]
        assert mirrors.stale_after(tx, "tensorboard", "me", 0, limit=1) == numbers[1:2]
        assert mirrors.stale_after(tx, "tensorboard", "me", numbers[1], limit=1) == numbers[2:]


def test_a_retry_from_scratch_is_another_run(database, queue, claim, record, end, follow, board, directory):
    from epochd.jobs.retry import retry

    job = queue()
    first = claim()
    follower = follow(board)
    record(first, 1, 50)
    end(first, "failed", error={"code": "x", "message": "y"})
    catch_up(follower)
    retry(database, job.id, "checkpoint")
    second = claim()
    record(second, 41, 60)  # trained again from a checkpoint: the same iterations
    catch_up(follower)
    assert steps(scalars(only_run(directory)), "iteration/train_loss") == list(range(1, 61))
    end(second, "failed", error={"code": "x", "message": "y"})
    retry(database, job.id, "scratch")
    third = claim()
    record(third, 1, 20)
    catch_up(follower)
    found = {path.name: scalars(path) for path in directory.iterdir()}
    assert {name: steps(one, "iteration/train_loss")[-1] for name, one in found.items()} == {
        f"digits-small-{job.id}": 60,
        f"digits-small-{job.id}-retry-2": 20,
    }


def test_a_directory_that_was_removed_stays_removed(
    queue, claim, record, end, follow, board, directory, caplog
):
    import shutil

    queue()
    claimed = claim()
    follower = follow(board)
    record(claimed, 1, 50)
    catch_up(follower)
    follower._close(claimed.job.number)
    shutil.rmtree(only_run(directory))
    queue(name="other")
    other = claim()
    record(claimed, 1, 60)
    record(other, 1, 5)
    for _ in range(3):
        follower.look()
    assert only_run(directory).name.startswith("other-")
    assert [record.message for record in caplog.records if "was removed" in record.message] != []
    assert len(caplog.records) == 1


def test_a_disk_that_is_away_is_waited_for(queue, claim, record, end, follow, board, directory, caplog):
    queue()
    claimed = claim()
    follower = follow(board)
    record(claimed, 1, 50)
    directory.rename(directory.with_name("elsewhere"))
    with pytest.raises(MirrorAwayError, match="not there"):
        follower.look()
    delays = [follower._round() for _ in range(8)]
    assert delays == [1, 2, 4, 8, 16, 30, 30, 30]
    assert len(caplog.records) == 1
    directory.with_name("elsewhere").rename(directory)
    follower._round()
    catch_up(follower)
    assert steps(scalars(only_run(directory)), "iteration/train_loss") == list(range(1, 51))


def test_a_full_disk_leaves_no_gap(queue, claim, record, end, follow, board, directory):
    """A limit on the size of files is what a test may fill."""
    job = queue(epochs=40)
    claimed = claim()
    record(claimed, 1, 900)
    follower = follow(board)
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    catch_up(follower)
    used = max(file.stat().st_size for file in only_run(directory).iterdir())
    total = int(job.plan["total_iterations"])
    record(claimed, 1, total)
    run = follower._sessions[job.number].run
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (used + 1000, before[1]))
        with pytest.raises(MirrorAwayError, match="cannot write"):
            run.log(_everything(follower, job))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert max(file.stat().st_size for file in only_run(directory).iterdir()) == used
    follower._close(job.number)
    end(claimed)
    catch_up(follower)
    assert steps(scalars(only_run(directory)), "iteration/train_loss") == list(range(1, total + 1))


def _everything(follower, job):
    from epochd.mirror import reading

    with follower._db.read() as tx:
        return reading.read(tx, job, reading.Position(900), every=1, rows=10_000).series


def test_a_deleted_job_keeps_its_run(database, queue, claim, record, end, follow, board, directory, tmp_path):
    from epochd.jobs.delete import delete

    job = queue()
    claimed = claim()
    record(claimed, 1, 50)
    follower = follow(board)
    catch_up(follower)
    end(claimed, "cancelled")
    delete(database, job.id, tmp_path / "a", tmp_path / "b")
    assert not follower._help(job.number)
    catch_up(follower)
    assert steps(scalars(only_run(directory)), "iteration/train_loss") == list(range(1, 51))


def test_moments_never_run_backwards(database, queue, claim, record, follow, board, directory):
    """Looks at a running job, each of which knows better how fast it is; even by another mirror."""
    queue()
    claimed = claim()
    for holder, last in (("one", 10), ("one", 11), ("other", 500), ("other", 510)):
        time.sleep(0.1)
        record(claimed, 1, last)
        follower = follow(board, holder=holder)
        catch_up(follower)
        follower._leave()
    reader = EventAccumulator(str(only_run(directory)), size_guidance={"scalars": 0})
    reader.Reload()
    moments = [event.wall_time for event in reader.Scalars("iteration/train_loss")]
    assert len(moments) == 510
    assert moments == sorted(moments)
    assert moments[10] > moments[9]


def test_one_bad_directory_holds_up_its_job_alone(queue, claim, record, follow, board, directory, caplog):
    claims = []
    for _ in range(2):
        queue()
        claims.append(claim())
        record(claims[-1], 1, 5)
    bad = directory / f"digits-small-{claims[0].job.id}"
    bad.write_text("a file")
    follower = follow(board)
    for _ in range(3):
        follower._round()
        follower._live_at = 0.0
    [good] = [path for path in directory.iterdir() if path != bad]
    assert steps(scalars(good), "iteration/train_loss") == [1, 2, 3, 4, 5]
    assert [one.message for one in caplog.records if "no directory" in one.message] != []
    assert len(caplog.records) == 1


@pytest.mark.parametrize("ended_at", [55, 70])
@pytest.mark.parametrize("plus", [0, 1])
def test_what_an_attempt_trained_otherwise_is_another_run(
    database, queue, claim, record, end, follow, board, directory, plus, ended_at
):
    """As after an amendment; and an attempt that ends before it has come as far as the one before it."""
    from epochd.jobs.retry import retry

    job = queue()
    first, follower = claim(), follow(board)
    record(first, 1, 60)
    catch_up(follower)
    end(first, "failed", error={"code": "x", "message": "y"})
    catch_up(follower)
    retry(database, job.id, "checkpoint")
    second = claim()
    record(second, 51, 53, plus=plus)
    catch_up(follower)
    assert len(list(directory.iterdir())) == 1 + plus
    record(second, 51, ended_at, plus=plus)
    catch_up(follower)
    end(second, "cancelled")
    catch_up(follower)
    goes_on = plus == 0 and ended_at == 70
    newest = directory / (f"digits-small-{job.id}" if goes_on else f"digits-small-{job.id}-attempt-2")
    assert len(list(directory.iterdir())) == (1 if goes_on else 2)
    assert scalars(newest)["iteration/train_loss"] == [
        (n, float(n + plus if n > 50 else n)) for n in range(1, ended_at + 1)
    ]
    assert not follower.look()


def test_a_backlog_does_not_hurry_the_live_jobs(
    database, queue, claim, record, end, follow, board, monkeypatch
):
    """All pages of old jobs come one after the other, while the live ones wait for their time."""
    monkeypatch.setattr(mirrors, "PAGE", 2)
    monkeypatch.setattr(mirrors, "RECENT_ATTEMPTS", 0)
    for _ in range(5):
        queue()
        claimed = claim()
        record(claimed, 1, 5)
        end(claimed)
    live = queue()
    running = claim()
    record(running, 1, 5)
    follower = follow(board)
    follower._round()
    record(running, 1, 9)
    follower._live_at = time.monotonic() + 3600
    for _ in range(20):
        follower._round()
    assert mirror_rows(database, live.number)[0].iteration == 5
    assert [mirror_rows(database, n)[0].iteration for n in range(1, live.number)] == [5] * 5
    assert follower._everything_at > time.monotonic()


def test_nothing_is_sent_under_a_lease_that_is_lost(
    database, queue, claim, record, follow, directory, monkeypatch
):
    job = queue()
    record(claim(), 1, 5)

    class Slow(TensorBoard):
        def open(self, *arguments, **options):
            opened = super().open(*arguments, **options)
            with database.write() as tx:  # what took so long that another came
                tx.execute(tables.mirrors.update().values(holder="other"))
            return opened

    follower = follow(Slow(directory))
    assert not follower._help(job.number)
    assert follower._sessions == {}
    assert list(only_run(directory).iterdir()) == []
