"""The Python clients, blocking and asynchronous, against a real service."""

import asyncio
import inspect
import threading
import time
from http import HTTPStatus

import httpx
import pytest
from tests.api.conftest import SPEC, serving

from epochd import AsyncClient, Client, JobSpec
from epochd.api.app import create_app
from epochd.client import AsyncJob, Job, calls
from epochd.client.asynchronous import AsyncJobs
from epochd.client.blocking import Jobs
from epochd.errors import (
    ConfigurationError,
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    ServiceUnavailableError,
    UnauthorizedError,
)


@pytest.fixture
def client(server):
    with Client(server.url) as client:
        yield client


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(calls, "pause", lambda _: 0.01)


class Failing(httpx.BaseTransport):
    """A network that spoils some of the answers: the service has done what was asked, and nobody hears of it."""

    def __init__(self, *faults):
        self.faults = list(faults)
        self.requests = []
        self._inner = httpx.HTTPTransport()

    def handle_request(self, request):
        self.requests.append((request.method, request.url.path, request.headers.get("idempotency-key")))
        answer = self._inner.handle_request(request)
        fault = self.faults.pop(0) if self.faults else None
        if isinstance(fault, Exception):
            answer.close()
            raise fault
        if fault is not None:
            answer.close()
            return httpx.Response(fault, request=request, headers={"Retry-After": "0"})
        return answer


def test_a_job_from_its_submission_to_its_files(client, trainer, tmp_path):
    job = client.jobs.submit(SPEC, name="mine", early_stopping={"patience": 3})
    assert (job.name, job.status, job.spec.early_stopping.patience) == ("mine", "queued", 3)
    trainer.start().iterate(20)
    trainer.complete_epoch()
    job = job.refresh()
    assert (job.status, job.progress.iteration) == ("running", 20)
    assert job.iterations()["train_loss"] == [1_000_001 + one for one in range(20)]
    assert job.iterations(points=5, fields=["train_loss"]).keys() == {"iteration", "train_loss"}
    assert job.iterations(after=3, up_to=9)["iteration"] == [4, 5, 6, 7, 8, 9]
    assert job.iterations(points=2, after=3, up_to=9)["iteration"] == [4, 9]
    assert job.epochs()["validation_loss"] == [1.0]
    frame = job.iterations().to_pandas()
    assert (len(frame), frame["train_loss"].iloc[-1]) == (20, 1_000_020)
    assert job.diagnose().verdict == "undetermined"
    trainer.finish()
    assert job.wait(5).done
    assert job.artifacts() == []
    assert job.download(tmp_path) == []
    assert [one.id for one in client.jobs.list(status=["succeeded"], name="mine")] == [job.id]
    assert [one.id for one in client.jobs.list(search="MIN")] == [job.id]
    assert list(client.jobs.list(search="yours")) == []
    job.delete()
    with pytest.raises(NotFoundError, match="there is no job"):
        job.refresh()


@pytest.mark.parametrize("spec", [SPEC, JobSpec.model_validate(SPEC)], ids=["dict", "JobSpec"])
def test_a_plan_and_its_job_are_the_same(client, spec):
    planned = client.jobs.plan(spec, epochs=7)
    assert planned.spec.epochs == 7
    assert client.jobs.submit(spec, epochs=7).plan == planned.plan
    fields = {key: value for key, value in SPEC.items() if key != "name"}
    assert client.jobs.plan(**fields).plan.total_iterations == 40


@pytest.mark.parametrize(
    "fault", [httpx.ReadError("cut"), httpx.ReadTimeout("late"), 502, 503, 504, 429], ids=str
)
def test_a_submission_whose_answer_is_lost_makes_one_job(server, fault):
    network = Failing(fault, fault)
    with Client(server.url, transport=network) as client:
        job = client.jobs.submit(SPEC)
        (_, _, key), *others = network.requests
        assert len(others) == 2
        assert {one[2] for one in others} == {key}
        assert [one.id for one in client.jobs.list()] == [job.id]
        other = client.jobs.submit(SPEC)
        assert other.id != job.id


def test_waiting_survives_a_restart_of_the_service(settings, trainer):
    app = create_app(settings)
    with serving(app) as server:
        port = server.url.rpartition(":")[2]
        client = Client(server.url)
        job = client.jobs.submit(SPEC)
    assert port
    with pytest.raises(ServiceUnavailableError, match="is the service running"):
        job.refresh()
    trainer.start()
    trainer.finish()
    with serving(create_app(settings)) as server, Client(server.url) as again:
        assert again.jobs.get(job.id).wait(5).status == "succeeded"
    client.close()


def test_waiting_ends_in_time_and_hears_the_end(client, trainer):
    job = client.jobs.submit(SPEC)
    with pytest.raises(TimeoutError, match="is queued after"):
        job.wait(0.2)
    trainer.start()
    later = threading.Timer(0.3, trainer.finish)
    later.start()
    assert job.wait(30).status == "succeeded"
    later.join()


def test_what_steers_a_job(client, trainer):
    job = client.jobs.submit(SPEC)
    assert job.amend(epochs=9, optimizer={"learning_rate": 0.5}).spec.epochs == 9
    assert job.pause().status == "paused"
    assert job.resume().status == "queued"
    assert job.cancel(keep="nothing").status == "cancelled"
    assert job.retry("scratch").status == "queued"
    with pytest.raises(ConflictError) as refused:
        job.retry()
    assert refused.value.code == "job_not_retryable" or "retr" in refused.value.message


def test_errors_say_what_is_wrong(server, client):
    with pytest.raises(InvalidRequestError) as wrong:
        client.jobs.submit(dataset="irs", epochs=0, batch_size=8)
    assert ("epochs", "out_of_range") in [(one.param, one.code) for one in wrong.value.errors]
    with pytest.raises(NotFoundError):
        client.jobs.get("job_none")
    with pytest.raises(ConfigurationError, match="no address of a service"):
        Client("localhost:8000")
    with (
        Client(f"{server.url}/elsewhere") as elsewhere,
        pytest.raises((NotFoundError, ServiceUnavailableError)),
    ):
        elsewhere.jobs.get("job_none")


def test_keys_come_from_the_environment(settings, monkeypatch):
    app = create_app(settings.model_copy(update={"api_keys": settings.api_keys.__class__("secret")}))
    with serving(app) as server:
        with Client(server.url) as client, pytest.raises(UnauthorizedError):
            client.models()
        with Client(server.url, "secret") as client:
            assert {"mlp", "cnn"} <= {one.name for one in client.models()}
        monkeypatch.setenv("EPOCHD_URL", server.url)
        monkeypatch.setenv("EPOCHD_KEY", "secret")
        with Client() as client:
            assert client.models()


def test_a_service_that_tells_more_is_understood(server):
    class Newer(Failing):
        def handle_request(self, request):
            answer = super().handle_request(request)
            body = answer.read().replace(b'{"id":', b'{"of_tomorrow":{"x":1},"id":', 1)
            return httpx.Response(answer.status_code, content=body, request=request)

    with Client(server.url, transport=Newer()) as client:
        assert client.jobs.submit(SPEC).status == "queued"


def test_a_notebook_shows_a_job_and_nothing_of_it_is_markup(client, trainer):
    job = client.jobs.submit(SPEC, name="<script>alert(1)</script>")
    assert "<svg" not in job._repr_html_()
    trainer.start().iterate(20)
    trainer.complete_epoch(train_loss=0.5)
    trainer.iterate(10)
    trainer.complete_epoch(train_loss=0.25)
    shown = job.refresh()._repr_html_()
    assert shown.count("<polyline") == 2
    assert "<script>" not in shown
    assert "&lt;script&gt;" in shown


def test_the_stream_brings_every_event_once(client, trainer):
    job = client.jobs.submit(SPEC)
    trainer.start().iterate(10)
    trainer.complete_epoch()
    trainer.finish()
    types = [event.type for event in job.stream()]
    assert types == ["job.queued", "job.started", "epoch.completed", "job.succeeded"]
    first = next(iter(job.stream()))
    assert [event.type for event in job.stream(last_event_id=first.id)] == types[1:]


def test_the_asynchronous_client_does_the_same(server, trainer, tmp_path):
    async def follow():
        async with AsyncClient(server.url) as client:
            job = await client.jobs.submit(SPEC)
            await asyncio.to_thread(lambda: (trainer.start().iterate(10), trainer.complete_epoch()))
            waiting = asyncio.create_task(job.wait(30))
            await asyncio.to_thread(trainer.finish)
            done = await waiting
            types = [event.type async for event in job.stream()]
            listed = [one.id async for one in client.jobs.list()]
            series = await job.iterations()
            files = await job.download(tmp_path)
            (tmp_path / "flowers.csv").write_text("a,kind\n" + "1,x\n2,y\n" * 10)
            brought = await client.upload(tmp_path / "flowers.csv", target="kind")
            assert brought.samples == 20
            assert "flowers" in [one.name async for one in client.datasets()]
            assert await client.workers() == []
            with pytest.raises(NotFoundError):
                await client.jobs.get("job_none")
            with pytest.raises(ConflictError):
                await done.retry()
            return job, done, types, listed, series, files

    job, done, types, listed, series, files = asyncio.run(follow())
    assert done.status == "succeeded"
    assert types[-1] == "job.succeeded"
    assert listed == [job.id]
    assert len(series["train_loss"]) == 10
    assert files == []


def test_the_asynchronous_client_waits_for_nobody(server, trainer):
    """Ten jobs are waited for at the same time, by one thread."""

    async def follow():
        async with AsyncClient(server.url) as client:
            jobs = [await client.jobs.submit(SPEC) for _ in range(10)]
            waiting = [asyncio.create_task(job.wait(60)) for job in jobs]
            for _ in jobs:
                await asyncio.to_thread(lambda: (trainer.start(), trainer.finish()))
            return await asyncio.gather(*waiting)

    assert {job.status for job in asyncio.run(follow())} == {"succeeded"}


@pytest.mark.parametrize(("blocking", "other"), [(Client, AsyncClient), (Job, AsyncJob), (Jobs, AsyncJobs)])
def test_both_clients_have_the_same_methods_and_words(blocking, other):
    def public(kind):
        return {
            name: (list(inspect.signature(method).parameters), method.__doc__)
            for name, method in vars(kind).items()
            if not name.startswith("_") and callable(method)
        }

    assert public(blocking) == public(other)


def test_no_server_is_imported_with_the_client():
    import subprocess
    import sys

    code = (
        "import sys; from epochd import Client; "
        "print([m for m in ('torch', 'numpy', 'sqlalchemy', 'fastapi', 'uvicorn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_retry_after_is_waited_for(server, monkeypatch):
    slept = []
    monkeypatch.setattr(time, "sleep", slept.append)

    class Busy(Failing):
        def handle_request(self, request):
            self.requests.append(request)
            if len(self.requests) < 3:
                return httpx.Response(
                    HTTPStatus.SERVICE_UNAVAILABLE, headers={"Retry-After": "2"}, request=request
                )
            return self._inner.handle_request(request)

    with Client(server.url, transport=Busy()) as client:
        client.models()
    assert slept[:2] == [2.0, 2.0]
