"""Jobs on a real MLflow server."""

import socket
import threading
import time

import pytest
from tests.mirror.conftest import catch_up, free_port, scalars

from epochd.errors import ConfigurationError, MirrorAwayError
from epochd.mirror.mlflow import Mlflow
from epochd.mirror.tensorboard import TensorBoard
from epochd.settings import Settings
from epochd.store import jobs, mirrors
from epochd.store.mirrors import MirrorRow


@pytest.fixture
def mlflow(mlflow_server):
    return Mlflow(mlflow_server.url, timeout_seconds=30)


def only_run(server, job):
    [run] = server.runs(job.id)
    return run


def tags(run):
    return {one["key"]: one["value"] for one in run["data"]["tags"]}


def steps(server, run, key):
    return [step for step, _ in server.history(run["info"]["run_id"], key)]


def test_a_job_is_there(mlflow_server, mlflow, queue, claim, record, end, follow, job_row):
    job = queue(optimizer={"name": "adam", "betas": [0.8, 0.9]}, tags={"team": "vision", "mlflow.user": "me"})
    claimed = claim()
    per_epoch = job.plan["iterations_per_epoch"]
    follower = follow(mlflow)
    record(claimed, 1, 5)
    catch_up(follower)
    run = only_run(mlflow_server, job)
    assert run["info"]["status"] == "RUNNING"
    assert run["info"]["run_name"] == "digits, small"
    record(claimed, 1, 2 * per_epoch + 300, holes=[3])
    end(claimed)
    catch_up(follower)
    run = only_run(mlflow_server, job)
    row = job_row(job.number)
    assert run["info"]["status"] == "FINISHED"
    assert run["info"]["start_time"] == round(row.started_at.timestamp() * 1000)
    assert run["info"]["end_time"] == round(row.finished_at.timestamp() * 1000)
    params = {one["key"]: one["value"] for one in run["data"]["params"]}
    assert params["batch_size"] == "64"
    assert params["optimizer.name"] == "adam"
    assert params["optimizer.betas"] == "[0.8, 0.9]"
    assert not params.keys() & {"name", "tags.team", "webhook", "loss."}
    found = tags(run)
    assert found["epochd.job_id"] == job.id
    assert (found["epochd.status"], found["epochd.stop_reason"]) == ("succeeded", "completed")
    assert (found["team"], found["tag.mlflow.user"]) == ("vision", "me")
    run_id = run["info"]["run_id"]
    everything = range(1, 2 * per_epoch + 301)
    # Iteration 3 was sent before anybody knew of the hole that the second recording makes.
    assert mlflow_server.history(run_id, "iteration/train_loss") == [(n, float(n)) for n in everything]
    assert [step for step, _ in mlflow_server.history(run_id, "train_loss")] == list(
        range(1, everything[-1] // per_epoch + 1)
    )
    assert mlflow_server.history(run_id, "validation_loss")[0] == (1, 2.0)


def test_moments_are_those_of_the_training(mlflow_server, mlflow, queue, claim, record, end, follow, job_row):
    job = queue()
    claimed = claim()
    record(claimed, 1, 10)
    time.sleep(0.2)
    end(claimed)
    catch_up(follow(mlflow))
    run_id = only_run(mlflow_server, job)["info"]["run_id"]
    answer = mlflow_server.call(
        "GET", "metrics/get-history", run_id=run_id, metric_key="iteration/train_loss"
    )
    moments = [one["timestamp"] for one in sorted(answer["metrics"], key=lambda one: one["step"])]
    row = job_row(job.number)
    assert moments == sorted(moments)
    assert (
        row.started_at.timestamp() * 1000 < moments[0] < moments[-1] <= row.finished_at.timestamp() * 1000 + 1
    )


def test_what_is_amended_and_how_it_ends(
    database, mlflow_server, mlflow, queue, claim, record, end, follow, job_row
):
    job = queue()
    claimed = claim()
    record(claimed, 1, 10)
    follower = follow(mlflow)
    catch_up(follower)
    with database.write() as tx:
        spec = {**job.spec, "epochs": 9}
        jobs.amend(tx, job.number, name="renamed", spec=spec, initial_spec=job.spec, tags={"team": "audio"})
    catch_up(follower)
    error = {"code": "non_finite_loss", "message": "NaN " * 2000}
    end(claimed, "failed", error=error)
    catch_up(follower)
    run = only_run(mlflow_server, job)
    found = tags(run)
    assert run["info"]["status"] == "FAILED"
    assert run["info"]["run_name"] == "renamed"
    assert {one["key"]: one["value"] for one in run["data"]["params"]}["epochs"] == "4"
    assert (found["epochd.amended.epochs"], found["team"]) == ("9", "audio")
    assert found["epochd.error"].startswith("non_finite_loss: NaN")


def test_what_could_have_been_sent_twice_is_there_once(
    database, mlflow_server, mlflow, queue, claim, record, end, follow
):
    job = queue()
    claimed = claim()
    first = follow(mlflow, holder="first", lease_seconds=0.0)
    record(claimed, 1, 10)
    catch_up(first)
    with database.write() as tx:  # as if it had been killed before it could note anything at all
        mirrors.store(tx, MirrorRow(job.number, "mlflow", None, 0), "first", 0.0)
    time.sleep(0.1)  # the same values again would have other moments now
    record(claimed, 1, 60)
    end(claimed, "cancelled")
    catch_up(follow(Mlflow(mlflow_server.url), holder="second"))
    run = only_run(mlflow_server, job)
    assert run["info"]["status"] == "KILLED"
    assert steps(mlflow_server, run, "iteration/train_loss") == list(range(1, 61))
    assert steps(mlflow_server, run, "train_loss") == list(
        range(1, 60 // job.plan["iterations_per_epoch"] + 1)
    )


def test_a_run_that_was_deleted_stays_deleted(mlflow_server, mlflow, queue, claim, record, follow, caplog):
    job, other = queue(), queue()
    claimed, second = claim(), claim()
    record(claimed, 1, 10)
    follower = follow(mlflow)
    catch_up(follower)
    mlflow.delete(only_run(mlflow_server, job)["info"]["run_id"])
    record(claimed, 1, 20)
    record(second, 1, 20)
    for _ in range(4):
        follower.look()
    assert mlflow_server.runs(job.id) == []
    assert steps(mlflow_server, only_run(mlflow_server, other), "iteration/train_loss") == list(range(1, 21))
    assert len([one for one in caplog.records if one.name == "epochd.mirror"]) == 1


def test_a_server_that_comes_later_gets_everything(mlflow_server, queue, claim, record, end, follow, caplog):
    port = free_port()
    target = Mlflow(f"http://127.0.0.1:{port}", timeout_seconds=30)
    follower = follow(target)
    job = queue()
    claimed = claim()
    for last in (10, 20, 30):
        record(claimed, 1, last)
        with pytest.raises(MirrorAwayError, match="does not answer"):
            follower.look()
        follower._round()
    assert len([one for one in caplog.records if one.name == "epochd.mirror"]) == 1
    end(claimed)
    with Relay(port, mlflow_server.port):
        catch_up(follower)
    assert steps(mlflow_server, only_run(mlflow_server, job), "iteration/train_loss") == list(range(1, 31))


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_a_connection_that_breaks_leaves_no_gap(mlflow_server, queue, claim, record, end, follow):
    port = free_port()
    follower = follow(Mlflow(f"http://127.0.0.1:{port}", timeout_seconds=30))
    job = queue(epochs=40)
    claimed = claim()
    total = job.plan["total_iterations"]
    record(claimed, 1, total)
    end(claimed)
    broken = 0
    for answers in range(1, 100):
        # Cut after so many answers, the next request having reached the server.
        with Relay(port, mlflow_server.port, answers=answers):
            try:
                catch_up(follower)
                break
            except MirrorAwayError:
                broken += 1
    assert broken > 3
    run = only_run(mlflow_server, job)
    assert steps(mlflow_server, run, "iteration/train_loss") == list(range(1, total + 1))
    assert steps(mlflow_server, run, "train_loss") == list(range(1, 41))
    assert run["info"]["status"] == "FINISHED"


def test_what_is_no_mlflow_server(queue, claim, record, follow, database):
    queue()
    record(claim(), 1, 5)
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://user:secret@127.0.0.1:{server.getsockname()[1]}"

        def answer():
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nhello")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(MirrorAwayError, match="no MLflow server") as caught:
            follow(Mlflow(url)).look()
        thread.join(10)
    assert "secret" not in caught.value.message


def test_a_target_that_never_answers_holds_up_itself_alone(
    queue, claim, record, end, follow, tmp_path, database
):
    job = queue()
    claimed = claim()
    record(claimed, 1, 10)
    directory = tmp_path / "runs"
    directory.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        stuck = follow(Mlflow(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout_seconds=20))
        thread = threading.Thread(target=stuck._round)
        thread.start()
        connection, _ = silent.accept()
        other = follow(TensorBoard(directory))
        for last in (20, 30):
            record(claimed, 1, last)
            catch_up(other)
        end(claimed)
        catch_up(other)
        [run] = directory.iterdir()
        assert [step for step, _ in scalars(run)["iteration/train_loss"]] == list(range(1, 31))
        with database.read() as tx:
            assert jobs.by_number(tx, job.number).status == "succeeded"
        assert thread.is_alive()
        connection.close()
        thread.join(30)
        assert not thread.is_alive()


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_a_run_that_is_not_true_any_more_is_replaced(
    database, mlflow_server, mlflow, queue, claim, record, end, follow
):
    from epochd.jobs.retry import retry

    job = queue()
    first, follower = claim(), follow(mlflow)
    record(first, 1, 60)
    catch_up(follower)
    end(first, "failed", error={"code": "x", "message": "y"})
    catch_up(follower)
    [old] = mlflow_server.runs(job.id)
    retry(database, job.id, "checkpoint")
    record(claim(), 51, 55, plus=1)
    catch_up(follower)
    [new] = [one for one in mlflow_server.runs(job.id) if "epochd.replaces" in tags(one)]
    assert tags(new)["epochd.replaces"] == old["info"]["run_id"]
    history = mlflow_server.history(new["info"]["run_id"], "iteration/train_loss")
    assert history == [(n, float(n + 1 if n > 50 else n)) for n in range(1, 56)]
    [old] = [one for one in mlflow_server.runs(job.id) if "epochd.replaces" not in tags(one)]
    assert tags(old)["epochd.replaced_by"] == new["info"]["run_id"]
    assert old["info"]["status"] == "KILLED"


def test_no_password_is_shown():
    server = Mlflow("http://user:secret@mlflow:5000/x")
    server._experiment_id = "1"
    assert server.page("r") == "http://mlflow:5000/x/#/experiments/1/runs/r"
    server.close()
    with pytest.raises(ConfigurationError) as caught:
        Mlflow("http://user:sec/ret@mlflow")
    assert "sec" not in caught.value.message
    settings = Settings(mirror_mlflow="http://user:se@cret@mlflow:5000/x")
    assert "cret" not in str(settings.environment())
    assert settings.shown_mirror_mlflow == "http://mlflow:5000/x"


class Relay:
    """A way to a server that may be cut: after so many answers it takes one more request, and closes."""

    def __init__(self, port, to, answers=None):
        self._to, self._answers = to, answers
        self._server = socket.create_server(("127.0.0.1", port))
        self._server.settimeout(0.05)
        self._closing = threading.Event()
        self._threads = [threading.Thread(target=self._accept)]

    def __enter__(self):
        self._threads[0].start()
        return self

    def __exit__(self, *_error):
        self._closing.set()
        for thread in self._threads:
            thread.join(30)
        self._server.close()

    def _accept(self):
        while not self._closing.is_set():
            try:
                connection, _ = self._server.accept()
            except TimeoutError:
                continue
            thread = threading.Thread(target=self._serve, args=[connection])
            self._threads.append(thread)
            thread.start()

    def _serve(self, here):
        with here, socket.create_connection(("127.0.0.1", self._to)) as there:
            here.settimeout(0.05)
            there.settimeout(30)
            while not self._closing.is_set() and self._request(here, there):
                pass

    def _request(self, here, there):
        try:
            data = here.recv(2**20)
        except TimeoutError:
            return True
        if not data:
            return False
        data = _complete(here, data)
        there.settimeout(30)
        there.sendall(data)
        answer = _complete(there, there.recv(2**20))
        if self._answers is not None:
            self._answers -= 1
            if self._answers < 0:
                return False
        here.sendall(answer)
        return True


def _complete(connection, data):
    """Read on until the head, and as much as it announces, is there."""
    connection.settimeout(30)
    while b"\r\n\r\n" not in data:
        data += connection.recv(2**20)
    head, _, body = data.partition(b"\r\n\r\n")
    lengths = [
        line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")
    ]
    while len(body) < int(lengths[0] if lengths else 0):
        more = connection.recv(2**20)
        data, body = data + more, body + more
    connection.settimeout(0.05)
    return data
