"""``GET /metrics``: right numbers, bounded labels, and an answer whatever the database does."""

import asyncio
import contextlib
import os
import re
import subprocess
import sys
import threading

import httpx
import psutil
import pytest
from fastapi.testclient import TestClient
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from pydantic import SecretStr

from epochd.api import processes, statistics
from epochd.api.app import create_app
from epochd.api.shared_directory import shared_directory
from epochd.errors import DatabaseUnavailableError
from epochd.settings import Settings
from epochd.store import jobs, workers

PROMETHEUS_2 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
ALL = {"queued", "running", "paused", "succeeded", "failed", "cancelled"}


class Scraped(dict):
    """Values by name and labels, such as ``scraped["epochd_jobs", "queued"]``."""

    def __init__(self, text, parse=parse_text):
        super().__init__()
        self.types = {}
        for family in parse(text):
            self.types[family.name] = family.type
            for sample in family.samples:
                labels = tuple(sample.labels.values())
                assert (sample.name, *labels) not in self, "every series once"
                self[(sample.name, *labels) if labels else sample.name] = sample.value

    def of(self, name):
        return {key[1:]: value for key, value in self.items() if key[0] == name}


@pytest.fixture
def scrape(api, monkeypatch):
    """Scrape, past the cache."""
    monkeypatch.setattr(statistics, "FRESH_SECONDS", 0)

    def scrape_():
        answer = api.get("/metrics")
        assert answer.status_code == 200, answer.text
        return Scraped(answer.text)

    return scrape_


def test_nothing_has_happened(scrape, database):
    found = scrape()
    assert found["epochd_database_up"] == 1
    assert found.of("epochd_jobs") == {(status,): 0 for status in ALL}
    for name in (
        "queue_depth", "queue_oldest_job_age_seconds", "iterations_per_second", "samples_per_second",
        "recorder_lag_seconds", "iterations_total", "attempts_lost_total", "workers", "worker_slots",
        "stream_subscribers", "long_polls",
    ):  # fmt: skip
        assert found[f"epochd_{name}"] == 0, name
    [((kind, _python, _version), one)] = found.of("epochd_build_info").items()
    assert (kind, one) == (database.dialect, 1)
    assert found["process_resident_memory_bytes"] > 1e6


def test_jobs_by_status_and_the_queue(scrape, create, trainer, database):
    ids = [create()["id"] for _ in range(4)]
    trainer.start().finish("failed")
    trainer.start()
    with database.write() as tx:
        last = jobs.get(tx, ids[3])
        jobs.amend(tx, last.number, available_at=statistics_moment(tx, 3600))
        third = jobs.get(tx, ids[2])
        jobs.amend(tx, third.number, available_at=statistics_moment(tx, -500))
    found = scrape()
    assert found.of("epochd_jobs") == {(status,): 0 for status in ALL} | {
        ("failed",): 1, ("running",): 1, ("queued",): 2,
    }  # fmt: skip
    # The fourth one waits for its second chance.
    assert found["epochd_queue_depth"] == 1
    assert 500 <= found["epochd_queue_oldest_job_age_seconds"] < 600


def statistics_moment(tx, seconds):
    from epochd.store.types import seconds_from_now

    return seconds_from_now(seconds)


def test_iterations_and_attempts_are_never_forgotten(api, scrape, create, trainer):
    job_id = create()["id"]
    trainer.start().iterate(7)
    assert scrape()["epochd_iterations_total"] == 7
    trainer.lose()
    found = scrape()
    assert (found["epochd_iterations_total"], found["epochd_attempts_lost_total"]) == (7, 1)
    # What is made again counts again.
    trainer.resume(4).iterate(10)
    assert scrape()["epochd_iterations_total"] == 17
    trainer.finish()
    assert api.delete(f"/v1/jobs/{job_id}").status_code == 204
    found = scrape()
    assert found["epochd_iterations_total"] == 17
    assert found["epochd_attempts_total", "lost"] == found["epochd_attempts_lost_total"] == 1
    assert found["epochd_attempts_total", "succeeded"] == 1
    assert sum(found.of("epochd_attempts_total").values()) == 2
    assert found["epochd_jobs", "succeeded"] == 0


def test_the_pace_is_that_of_all_running_jobs(scrape, create, trainer, database):
    def run(rate, lag):
        create(epochs=2, batch_size=50)  # 120 samples: 40 an iteration, on average
        trainer.start()
        measured = {"samples_per_second": rate, "metrics_lag_seconds": lag}
        with database.write() as tx:
            assert jobs.record_progress(tx, trainer.number, attempt=1, progress=measured)

    run(800.0, 0.5)
    run(400.0, 90.0)
    create()
    trainer.start()  # has recorded nothing yet
    found = scrape()
    assert found["epochd_samples_per_second"] == 1200
    assert found["epochd_iterations_per_second"] == pytest.approx(30)
    assert 90 <= found["epochd_recorder_lag_seconds"] < 120
    trainer.finish()


def test_workers_and_the_memory_of_their_devices(scrape, database):
    memory = {"cuda:0": {"used": 3 * 2**30, "total": 2**37}, "cuda:1": {"used": 0, "total": 2**37}}
    older = {"cuda:0": {"used": 2**30, "total": 2**37}}
    with database.write() as tx:
        workers.register(tx, id="h:1", host="h", pid=1, devices=["cuda:0", "cuda:1"], slots=2)
        workers.register(tx, id="h:2", host="h", pid=2, devices=["cuda:0"], slots=2, memory=older)
        workers.register(tx, id="i:2", host="i", pid=2, devices=["cpu"], slots=1)
    with database.write() as tx:
        assert workers.seen(tx, "h:1", memory)
    found = scrape()
    assert (found["epochd_workers"], found["epochd_worker_slots"]) == (3, 5)
    assert found.of("epochd_device_memory_bytes") == {
        (device, "h", kind): value for device, kinds in memory.items() for kind, value in kinds.items()
    }


def test_many_scrapers_cost_one_read(api, create, monkeypatch):
    monkeypatch.setattr(statistics, "FRESH_SECONDS", 3600)
    assert Scraped(api.get("/metrics").text)["epochd_jobs", "queued"] == 0
    create()
    assert Scraped(api.get("/metrics").text)["epochd_jobs", "queued"] == 0


class TestFormat:
    @pytest.fixture
    def database_kind(self):
        return "sqlite"

    @pytest.mark.parametrize(
        "accept", [None, "", "*/*", "text/plain", "application/json", "nonsense;;q=x,", "text/*;q=0.1",
                   "application/openmetrics-text;q=0"],
    )  # fmt: skip
    def test_text(self, api, accept):
        answer = api.get("/metrics", headers={} if accept is None else {"Accept": accept})
        assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert Scraped(answer.text).types["epochd_iterations"] == "counter"

    @pytest.mark.parametrize("accept", [PROMETHEUS_2, "application/openmetrics-text; version=x"])
    def test_openmetrics(self, api, accept):
        answer = api.get("/metrics", headers={"Accept": accept})
        assert answer.headers["content-type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
        assert Scraped(answer.text, parse_openmetrics)["epochd_iterations_total"] == 0

    def test_it_takes_no_parameters(self, api):
        assert api.get("/metrics?name=x").json()["errors"][0]["code"] == "unknown_parameter"


class TestAccess:
    @pytest.fixture
    def database_kind(self):
        return "sqlite"

    def test_it_wants_a_key_where_keys_are_configured(self, settings):
        app = create_app(settings.model_copy(update={"api_keys": SecretStr("key")}))
        with TestClient(app) as client:
            assert client.get("/metrics").status_code == 401
            assert client.get("/metrics", headers={"Authorization": "Bearer other"}).status_code == 401
            answer = client.get("/metrics", headers={"Authorization": "Bearer key"})
        assert Scraped(answer.text)["epochd_database_up"] == 1
        assert "key" not in re.findall(r'"([^"]*)"', answer.text)


class TestRequests:
    @pytest.fixture
    def database_kind(self):
        return "sqlite"

    def counts(self, scrape):
        return {
            (method, route, status): value
            for (method, route, status), value in scrape()
            .of("epochd_http_request_duration_seconds_count")
            .items()
            if route != "/metrics"
        }

    def test_each_is_counted_by_its_route(self, api, scrape, create):
        job = create()["id"]
        api.get(f"/v1/jobs/{job}")
        api.get(f"/v1/jobs/{job}/iterations")
        api.get("/v1/jobs/job_none")
        api.get("/healthz")
        api.put(f"/v1/jobs/{job}")
        assert self.counts(scrape) == {
            ("POST", "/v1/jobs", "201"): 1,
            ("GET", "/v1/jobs/{job_id}", "200"): 1,
            ("GET", "/v1/jobs/{job_id}/iterations", "200"): 1,
            ("GET", "/v1/jobs/{job_id}", "404"): 1,
            ("GET", "/healthz", "200"): 1,
            ("PUT", "/v1/jobs/{job_id}", "405"): 1,
        }

    def test_every_route_is_named_as_in_the_document(self, api, scrape):
        paths = api.app.openapi()["paths"]
        for path, methods in paths.items():
            api.request(next(iter(methods)).upper(), path.replace("{job_id}", "job_x").replace("{name}", "x"))
        assert {route for _, route, _ in scrape().of("epochd_http_request_duration_seconds_count")} == set(
            paths
        )

    def test_nobody_can_make_up_labels(self, api, scrape):
        for number in range(50):
            api.get(f"/nothing/{number}")
            api.request(f"METHOD{number}", "/v1/jobs")
            api.get(f"/v1/jobs/job_{number}")
        assert self.counts(scrape) == {
            ("GET", "other", "404"): 50,
            ("other", "/v1/jobs", "405"): 50,
            ("GET", "/v1/jobs/{job_id}", "404"): 50,
        }

    def test_refused_and_failed_ones_count_too(self, api, scrape, monkeypatch):
        huge = {"Content-Type": "application/json", "Content-Length": "99999999"}
        assert api.post("/v1/jobs", content=b"{}", headers=huge).status_code == 413
        monkeypatch.setattr(jobs, "page", lambda *_args, **_options: 1 / 0)
        assert api.get("/v1/jobs").status_code == 500
        assert self.counts(scrape) == {("POST", "other", "413"): 1, ("GET", "/v1/jobs", "500"): 1}

    def test_streams_and_long_polls_are_gauges_and_spoil_no_latency(
        self, http, server, submit, trainer, monkeypatch
    ):
        monkeypatch.setattr(statistics, "FRESH_SECONDS", 0)
        job = submit()
        trainer.start()
        polled = []

        def poll():
            polled.append(
                httpx.get(f"{server.url}/v1/jobs/{job}?wait_seconds=50", timeout=60).json()["status"]
            )

        poller = threading.Thread(target=poll)
        with http.stream("GET", f"/v1/jobs/{job}/events", headers={"Accept": "text/event-stream"}) as stream:
            messages = stream.iter_bytes()  # letting go of it would close the stream
            next(messages)
            poller.start()
            self.until(http, ("epochd_stream_subscribers", 1), ("epochd_long_polls", 1))
        self.until(http, ("epochd_stream_subscribers", 0), ("epochd_long_polls", 1))
        assert http.get(f"/v1/jobs/{job}?wait_seconds=0").status_code == 200
        trainer.finish()
        poller.join()
        assert polled == ["succeeded"]
        found = self.until(http, ("epochd_long_polls", 0))
        counts = found.of("epochd_http_request_duration_seconds_count")
        assert counts["GET", "/v1/jobs/{job_id}/events", "200"] == 1
        assert counts["GET", "/v1/jobs/{job_id}", "200"] == 1

    def test_a_long_poll_is_what_waits_and_nothing_else(self, api, scrape, create, trainer):
        job = f"/v1/jobs/{create()['id']}"
        trainer.start()
        assert api.get(f"{job}?wait%5Fseconds=0.05").status_code == 200
        assert api.get(f"{job}?wait_seconds=0.05&until=epoch").status_code == 200
        assert not self.counts(scrape).get(("GET", "/v1/jobs/{job_id}", "200"))
        for path in (f"{job}?wait_seconds=x", f"{job}?wait_seconds=99", "/v1/jobs/job_none?wait_seconds=9"):
            api.get(path)
        trainer.finish()
        etag = api.get(f"{job}?wait_seconds=9").headers["etag"]  # there is nothing to wait for
        assert api.get(f"{job}?wait_seconds=9", headers={"If-None-Match": etag}).status_code == 304
        counts = {key[2]: count for key, count in self.counts(scrape).items() if "job_id" in key[1]}
        assert counts == {"422": 2, "404": 1, "200": 1, "304": 1}

    def test_a_long_poll_that_fails_is_counted(self, api, scrape, create, trainer, monkeypatch):
        job = f"/v1/jobs/{create()['id']}"
        trainer.start()
        read = api.app.state.board.read
        answers = iter([read])

        async def fail_when_it_has_waited(job_id):
            for answer in answers:
                return await answer(job_id)
            raise DatabaseUnavailableError("it is away")

        monkeypatch.setattr(api.app.state.board, "read", fail_when_it_has_waited)
        assert api.get(f"{job}?wait_seconds=0.05").status_code == 503
        assert self.counts(scrape)["GET", "/v1/jobs/{job_id}", "503"] == 1
        assert scrape()["epochd_long_polls"] == 0

    def test_who_is_refused_does_not_wait(self, settings, monkeypatch):
        monkeypatch.setattr(statistics, "FRESH_SECONDS", 0)
        app = create_app(settings.model_copy(update={"api_keys": SecretStr("key")}))
        with TestClient(app) as client:
            assert client.get("/v1/jobs/job_x?wait_seconds=60").status_code == 401
            found = Scraped(client.get("/metrics", headers={"Authorization": "Bearer key"}).text)
        counts = found.of("epochd_http_request_duration_seconds_count")
        assert counts["GET", "/v1/jobs/{job_id}", "401"] == 1

    def until(self, http, *wanted):
        while True:  # the test's time-out ends it
            found = Scraped(http.get("/metrics").text)
            if all(found[name] == value for name, value in wanted):
                return found

    def test_each_application_has_numbers_of_its_own(self, api, settings, scrape):
        api.get("/healthz")
        with TestClient(create_app(settings)) as other:
            assert Scraped(other.get("/metrics").text).of("epochd_http_request_duration_seconds_count") == {}
        assert self.counts(scrape) == {("GET", "/healthz", "200"): 1}


class TestDatabaseAway:
    @pytest.fixture
    def away_api(self, own_postgres_server, data_dir, monkeypatch):
        monkeypatch.setattr(statistics, "FRESH_SECONDS", 0)
        url = own_postgres_server.url("migrated")
        with TestClient(create_app(Settings(database_url=url, data_dir=data_dir))) as client:
            yield client

    def scrape(self, client):
        answer = client.get("/metrics")
        assert answer.status_code == 200
        return Scraped(answer.text)

    def test_stopped(self, away_api, own_postgres_server):
        assert self.scrape(away_api)["epochd_database_up"] == 1
        own_postgres_server.interrupt()
        found = self.scrape(away_api)
        assert found["epochd_database_up"] == 0
        assert "epochd_iterations_total" not in found
        assert not found.of("epochd_jobs")
        assert found["epochd_stream_subscribers"] == 0
        own_postgres_server.go_on()
        assert self.scrape(away_api)["epochd_database_up"] == 1

    def test_frozen(self, away_api, own_postgres_server, monkeypatch):
        """One read hangs; whoever scrapes meanwhile is told, and no second one hangs beside it."""
        monkeypatch.setattr(statistics, "PATIENCE_SECONDS", 0.2)
        reads = []
        read = statistics._read
        monkeypatch.setattr(statistics, "_read", lambda db: reads.append(db) or read(db))
        assert self.scrape(away_api)["epochd_database_up"] == 1
        with frozen(own_postgres_server.pid):
            assert [self.scrape(away_api)["epochd_database_up"] for _ in range(3)] == [0, 0, 0]
            assert len(reads) == 2
        while self.scrape(away_api)["epochd_database_up"] == 0:  # the test's time-out ends it
            pass

    def test_not_migrated(self, empty_database_url, data_dir):
        with TestClient(create_app(Settings(database_url=empty_database_url, data_dir=data_dir))) as client:
            assert self.scrape(client)["epochd_database_up"] == 0


class TestSeveralProcesses:
    def test_two_scrapes_find_the_same_dead_process(self, tmp_path, monkeypatch):
        with subprocess.Popen(["true"]) as dead:
            dead.wait()
        (tmp_path / f"gauge_livesum_{dead.pid}.db").touch()
        remove = os.remove

        def remove_after_another(path):
            remove(path)
            remove(path)

        monkeypatch.setattr("prometheus_client.multiprocess.os.remove", remove_after_another)
        assert list(processes._Siblings(tmp_path).collect()) == []
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("name", ["PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir"])
    def test_a_directory_of_somebody_else_is_left_alone(self, tmp_path, name):
        script = (
            "import os; from epochd.api import processes; traffic, _ = processes.measure();"
            f"traffic.streams.inc(); assert {name!r} not in os.environ"
        )
        environment = {**os.environ, name: str(tmp_path)}
        subprocess.run([sys.executable, "-c", script], env=environment, check=True)
        assert list(tmp_path.iterdir()) == []


class TestTheSharedDirectory:
    def test_it_ends_with_its_block_and_those_before_it_are_removed(self, tmp_path):
        stale = tmp_path / ".metrics" / "stale"
        stale.mkdir(parents=True)
        (stale / "counter_1.db").touch()
        with shared_directory(tmp_path) as first, shared_directory(tmp_path) as second:
            assert first != second
            assert {first.parent, second.parent} == {tmp_path / ".metrics"}
            assert first.is_dir(), "one that is in use stays"
            assert not stale.exists()
        assert [path.name for path in (tmp_path / ".metrics").iterdir()] == ["lock"]

    def test_that_of_a_process_that_was_killed_is_removed(self, tmp_path):
        script = (
            "import os, pathlib, sys; from epochd.api.shared_directory import shared_directory\n"
            "with shared_directory(pathlib.Path(sys.argv[1])): os.kill(os.getpid(), 9)"
        )
        subprocess.run([sys.executable, "-c", script, tmp_path], check=False)
        (left,) = [path for path in (tmp_path / ".metrics").iterdir() if path.is_dir()]
        with shared_directory(tmp_path):
            assert not left.exists()


@contextlib.contextmanager
def frozen(pid):
    postmaster = psutil.Process(pid)
    postmaster.suspend()
    children = postmaster.children(recursive=True)
    for process in children:
        process.suspend()
    yield
    for process in (*children, postmaster):
        process.resume()


def test_a_reading_that_outlives_who_asked_for_it_is_not_lost(database, monkeypatch):
    monkeypatch.setattr(statistics, "FRESH_SECONDS", 3600)
    reading = statistics.Reading(database)

    async def ask_and_leave():
        asking = asyncio.create_task(reading.newest())
        await asyncio.sleep(0)
        asking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asking
        return await reading.newest()

    assert asyncio.run(ask_and_leave()).jobs == {}
