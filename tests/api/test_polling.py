"""Looking at a job: read for many at once, never older than the question, and the same by both ways."""

import asyncio
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from fastapi.testclient import TestClient

from epochd.api import job_board
from epochd.api.app import create_app
from epochd.api.errors import problem_of
from epochd.api.job_board import JobBoard, Shown, UnreadableJobError, _Kept
from epochd.errors import DatabaseUnavailableError, NotFoundError, ServiceUnavailableError
from epochd.settings import Settings
from epochd.store import jobs, tables

CROWD = 32
WAITING = 300
SHORTLY, BY_FASTAPI = {}, {"until": "done"}
"""Two queries that ask the same: with the second one FastAPI's dependencies answer."""


def told(answer):
    return answer.status_code, answer.content, dict(answer.headers)


def waiting_for(server, job_number):
    channel = server.config.app.state.feed._channels.get(job_number)
    return len(channel.users) if channel is not None else 0


def both_ways(client, path, **headers):
    shortly, long = (
        told(client.get(path, params=params, headers=headers)) for params in (SHORTLY, BY_FASTAPI)
    )
    assert shortly == long
    return shortly


class TestBothWays:
    def test_a_job(self, api, create):
        status, body, headers = both_ways(api, f"/v1/jobs/{create()['id']}")
        assert (status, headers["content-type"]) == (200, "application/json")
        assert b'"status":"queued"' in body

    @pytest.mark.parametrize("job_id", ["job_none", "no-id", "%00", "j" * 100, "a%20b", "é"])
    def test_no_job(self, api, job_id):
        status, body, _ = both_ways(api, f"/v1/jobs/{job_id}")
        assert status == 404
        assert b"job_not_found" in body

    def test_a_job_that_is_done_and_known(self, api, create, trainer):
        path = f"/v1/jobs/{create()['id']}"
        trainer.start().finish()
        status, body, headers = both_ways(api, path)
        assert (status, bool(body)) == (200, True)
        status, body, again = both_ways(api, path, **{"If-None-Match": headers["etag"]})
        assert (status, body, again["etag"]) == (304, b"", headers["etag"])
        assert both_ways(api, path, **{"If-None-Match": '"another"'})[0] == 200

    @pytest.mark.parametrize(
        ("sent", "expected"),
        [({}, 401), ({"Authorization": "Bearer no"}, 401), ({"Authorization": "Bearer yes"}, 404)],
    )
    def test_who_may_ask(self, database_url, data_dir, sent, expected):
        settings = Settings(database_url=database_url, data_dir=data_dir, api_keys="yes")
        with TestClient(create_app(settings)) as client:
            assert both_ways(client, "/v1/jobs/job_none", **sent)[0] == expected

    def test_a_database_that_is_away(self, tmp_path):
        settings = Settings(database_url=f"sqlite:///{tmp_path}/none/epochd.db", data_dir=tmp_path)
        with TestClient(create_app(settings), raise_server_exceptions=False) as client:
            status, body, headers = both_ways(client, "/v1/jobs/job_any")
            assert (status, headers["retry-after"]) == (503, "2")
            assert b"database_unavailable" in body

    @pytest.mark.parametrize("query", ["?", "?until=done&until=done", "?nothing=1", "?wait_seconds=x"])
    def test_a_query_is_looked_at(self, api, create, query):
        expected = 200 if query == "?" else 422
        assert api.get(f"/v1/jobs/{create()['id']}{query}").status_code == expected

    @pytest.mark.parametrize("method", ["HEAD", "POST", "PUT"])
    def test_other_methods(self, api, create, method):
        answer = api.request(method, f"/v1/jobs/{create()['id']}")
        assert answer.status_code == 405
        assert set(answer.headers["allow"].split(", ")) == {"GET", "PATCH", "DELETE"}


class TestFreshness:
    def test_an_answer_is_never_older_than_the_question(self, submit, trainer, server):
        job_id = submit()
        trainer.start()
        ended = threading.Event()

        def poll(_number):
            with httpx.Client(base_url=server.url, timeout=30) as client:
                while not ended.is_set():
                    client.get(f"/v1/jobs/{job_id}").raise_for_status()

        with ThreadPoolExecutor(4) as crowd, httpx.Client(base_url=server.url, timeout=30) as client:
            polling = [crowd.submit(poll, number) for number in range(4)]
            try:
                for iteration in range(1, 41):
                    trainer.iterate(1)
                    shown = client.get(f"/v1/jobs/{job_id}").json()
                    assert shown["progress"]["iteration"] == iteration
            finally:
                ended.set()
            for one in polling:
                one.result()

    def test_a_deleted_job_is_gone_at_once(self, api, create, trainer):
        path = f"/v1/jobs/{create()['id']}"
        trainer.start().finish()
        assert api.get(path).status_code == 200
        assert api.delete(path).status_code == 204
        assert api.get(path).status_code == 404

    def test_the_lag_of_a_job_that_does_not_change_grows(self, api, create, trainer):
        path = f"/v1/jobs/{create()['id']}"
        trainer.start().iterate(1)
        first = api.get(path).json()["progress"]["metrics_lag_seconds"]
        time.sleep(2 * job_board.LAG_SECONDS)
        second = api.get(path).json()["progress"]["metrics_lag_seconds"]
        assert second >= first + job_board.LAG_SECONDS


@pytest.fixture
def crowd(server):
    """Ask for jobs by their ids, at once: everybody by a connection of his own, as separate callers do."""

    def ask(ids):
        with httpx.Client(base_url=server.url, timeout=30) as client:
            return [client.get(f"/v1/jobs/{job_id}") for job_id in ids]

    def ask_all(ids):
        with ThreadPoolExecutor(CROWD) as threads:
            answers = list(threads.map(ask, (ids[number::CROWD] for number in range(CROWD))))
        return [answers[number % CROWD][number // CROWD] for number in range(len(ids))]

    return ask_all


class TestACrowd:
    def test_everybody_is_given_his_own(self, submit, crowd):
        ids = [submit(name=f"job {number}") for number in range(8)] + ["job_none"]
        asked = [ids[number % len(ids)] for number in range(20 * CROWD)]
        answers = crowd(asked)
        for job_id, answer in zip(asked, answers, strict=True):
            if job_id == "job_none":
                assert answer.status_code == 404
            else:
                assert answer.json()["id"] == job_id

    def test_an_error_reaches_all_who_asked_and_nobody_later(self, submit, crowd, http, monkeypatch):
        job_id = submit()
        versions = jobs.versions

        def fail(*_arguments):
            raise DatabaseUnavailableError("it is away")

        monkeypatch.setattr(jobs, "versions", fail)
        assert [answer.status_code for answer in crowd([job_id] * CROWD)] == [503] * CROWD
        monkeypatch.setattr(jobs, "versions", versions)
        assert http.get(f"/v1/jobs/{job_id}").status_code == 200

    def test_those_who_wait_cost_no_threads_and_all_are_told(self, submit, trainer, server):
        job_id = submit()
        trainer.start()
        request = (
            f"GET /v1/jobs/{job_id}?wait_seconds=60 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
        )
        host, port = httpx.URL(server.url).host, httpx.URL(server.url).port

        async def wait_in_a_crowd():
            connections = [await asyncio.open_connection(host, port) for _ in range(WAITING)]
            before = threading.active_count()
            for _, writer in connections:
                writer.write(request)
            while waiting_for(server, trainer.number) < WAITING:  # noqa: ASYNC110 - it is another loop's
                await asyncio.sleep(0.01)
            # The feed's thread and the reader's.
            assert threading.active_count() <= before + 2
            await asyncio.to_thread(trainer.finish)
            answers = await asyncio.gather(*(stream.read() for stream, _ in connections))
            for _, writer in connections:
                writer.close()
            return answers

        for answer in asyncio.run(asyncio.wait_for(wait_in_a_crowd(), 60)):
            assert answer.startswith(b"HTTP/1.1 200")
            assert b'"status":"succeeded"' in answer

    def test_those_who_leave_harm_nobody(self, submit, server, http):
        job_id = submit()
        host, port = httpx.URL(server.url).host, httpx.URL(server.url).port

        async def ask_and_leave():
            for _ in range(CROWD):
                _, writer = await asyncio.open_connection(host, port)
                writer.write(f"GET /v1/jobs/{job_id} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                writer.transport.abort()

        asyncio.run(ask_and_leave())
        assert http.get(f"/v1/jobs/{job_id}").json()["id"] == job_id

    def test_a_long_poll_ends_when_its_caller_has_left(self, submit, trainer, server):
        job_id = submit()
        trainer.start()
        url = httpx.URL(server.url)
        with socket.create_connection((url.host, url.port)) as caller:
            caller.sendall(f"GET /v1/jobs/{job_id}?wait_seconds=60 HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            until(lambda: waiting_for(server, trainer.number) == 1)
        until(lambda: waiting_for(server, trainer.number) == 0 and not server.server_state.tasks)


class TestOneThatCannotBeShown:
    @pytest.fixture
    def broken(self, create, database):
        """The id of a job that no version of this service has written."""
        job_id = create()["id"]
        with database.write() as tx:
            tx.execute(tables.jobs.update().where(tables.jobs.c.id == job_id).values(plan=[1]))
        return job_id

    def test_all_others_are_shown(self, broken, create, database):
        sound = create()["id"]

        async def ask():
            board = JobBoard(database)
            asked = [broken, sound, "job_none", broken, sound]
            answers = await asyncio.gather(*map(board.read, asked), return_exceptions=True)
            board.close()
            return answers

        first, shown, none, again, same = asyncio.run(ask())
        assert shown is same
        assert shown.row.id == sound
        assert isinstance(none, NotFoundError)
        assert first is again
        assert isinstance(first, UnreadableJobError)

    def test_it_is_logged_once_and_for_each_round(self, broken, http, caplog):
        before = None
        for _ in range(2):
            answer = http.get(f"/v1/jobs/{broken}")
            assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
            reference = answer.json()["detail"].rpartition(" ")[2].rstrip(".")
            assert reference != before
            assert caplog.text.count(f"unexpected error {reference}") == 1
            before = reference

    def test_who_ask_together_are_told_one_reference(self, caplog):
        error = UnreadableJobError("a job")
        away = DatabaseUnavailableError("away")
        bodies = {bytes(problem_of(error).body) for _ in range(3)}
        assert len(bodies) == 1
        assert [problem_of(away).status_code for _ in range(3)] == [503] * 3
        assert len(caplog.records) == 2


class TestTheEnd:
    def test_all_who_wait_are_told(self, database, create):
        job_id = create()["id"]
        held = threading.Event()

        async def close_meanwhile():
            board = JobBoard(database)
            never_begun = asyncio.ensure_future(board.read(job_id))
            await asyncio.sleep(0)
            board.close()
            held_up = JobBoard(database)
            held_up._thread.submit(held.wait)
            waiting = [asyncio.ensure_future(held_up.read(job_id))]
            await asyncio.sleep(0.1)  # the first round has begun
            waiting.append(asyncio.ensure_future(held_up.read(job_id)))
            await asyncio.sleep(0.1)
            held_up.close()
            told = await asyncio.gather(never_begun, *waiting, held_up.read(job_id), return_exceptions=True)
            held.set()
            return told

        for error in asyncio.run(asyncio.wait_for(close_meanwhile(), 30)):
            assert isinstance(error, ServiceUnavailableError)


def until(true):
    while not true():  # the test's time-out ends it
        time.sleep(0.01)


class TestWhatIsKept:
    @pytest.fixture
    def row(self, create, database):
        job_id = create()["id"]
        with database.read() as tx:
            return jobs.get(tx, job_id)

    def test_one_version_of_a_job(self, row):
        kept, shown = _Kept(), Shown.of(row)
        kept.keep({row.id: shown})
        assert kept.get(row.id, row.version) is shown
        assert kept.get(row.id, row.version + 1) is None
        assert kept.get("job_other", row.version) is None

    def test_not_more_than_so_many(self, row, monkeypatch):
        monkeypatch.setattr(job_board, "KEPT_JOBS", 3)
        kept, shown = _Kept(), Shown.of(row)
        kept.keep({str(number): shown for number in range(3)})
        kept.keep({"0": shown})
        kept.keep({"3": shown, "4": shown})
        assert [number for number in range(5) if kept.get(str(number), row.version)] == [0, 3, 4]

    def test_not_more_than_so_many_bytes(self, row, monkeypatch):
        shown = Shown.of(row)
        monkeypatch.setattr(job_board, "KEPT_BYTES", 2 * len(shown.body))
        kept = _Kept()
        for _ in range(3):
            kept.keep({str(number): shown for number in range(5)})
            assert len(kept) == 2

    def test_not_for_long(self, row, monkeypatch):
        kept, shown = _Kept(), Shown.of(row)
        kept.keep({"old": shown})
        kept.drop_unused()
        assert len(kept) == 1
        monkeypatch.setattr(job_board, "KEPT_SECONDS", 0)
        kept.drop_unused()
        assert len(kept) == 0

    def test_nothing_once_nobody_asks(self, submit, http, app, monkeypatch):
        monkeypatch.setattr(job_board, "KEPT_SECONDS", 0.05)
        http.get(f"/v1/jobs/{submit()}").raise_for_status()
        kept = app.state.board._kept
        deadline = time.monotonic() + 20
        while kept and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not kept
