"""Several API processes on one address and one database answer as one."""

import signal
import socket
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from tests.marks import postgres_in_torture

from epochd.client.events import read_events

PROCESSES = 2
CONNECTIONS = 16
KEY = "the-key-of-the-test"
TOKEN = {"Authorization": f"Bearer {KEY}"}


class Clients(list[httpx.Client]):
    """Clients that are closed at the end, each with a connection of its own."""

    def __init__(self, service: Any, stack: ExitStack) -> None:
        super().__init__(
            stack.enter_context(httpx.Client(base_url=service.url, headers=TOKEN, timeout=60))
            for _ in range(CONNECTIONS)
        )


def apis(service: Any) -> list[psutil.Process]:
    return [process for process in service.processes() if "epochd.api" in process.cmdline()]


def holders(service: Any) -> set[int]:
    """The processes that hold connections which callers have opened."""
    port = httpx.URL(service.url).port
    return {
        process.pid
        for process in apis(service)
        if any(one.laddr.port == port and one.raddr for one in process.net_connections("tcp"))
    }


def all_answer(service: Any) -> bool:
    """Open connections; tell whether all processes have taken some."""
    with ExitStack() as stack, ThreadPoolExecutor(CONNECTIONS) as threads:
        clients = Clients(service, stack)
        assert set(threads.map(lambda client: client.get("/healthz").status_code, clients)) == {200}
        return len(holders(service)) == PROCESSES


@pytest.fixture
def service(start_service: Callable[..., Any], wait_until: Callable[..., Any]) -> Any:
    service = start_service("--api-workers", str(PROCESSES), EPOCHD_API_KEYS=KEY)
    service.client.headers.update(TOKEN)
    wait_until(lambda: all_answer(service), "all API processes answer")
    return service


def test_they_answer_as_one(service: Any, endless: dict[str, Any]):
    job_id = service.submit(**endless)
    path = f"/v1/jobs/{job_id}"
    service.wait(job_id, lambda job: job["progress"]["epoch"] >= 1)
    with ExitStack() as stack, ThreadPoolExecutor(2 * CONNECTIONS) as threads:
        readers, waiters, pollers = (Clients(service, stack) for _ in range(3))
        streams = [
            threads.submit(lambda one: list(read_events(one, f"{path}/events")), one) for one in readers
        ]
        waiting = [threads.submit(one.get, path, params={"wait_seconds": 60}) for one in waiters]
        seen = [
            one.get(path).raise_for_status().json()["progress"]["iteration"]
            for one in pollers
            for _ in range(3)
        ]
        # Whoever is asked later, and whichever process that is, never answers with something older.
        assert seen == sorted(seen)
        assert len(holders(service)) == PROCESSES
        service.client.post(f"{path}/cancel", json={"keep": "nothing"}).raise_for_status()
        done = service.wait(job_id)
        assert all(one.result(60).json() == done for one in waiting)
        events = service.events(job_id)
        assert all([event.json() for event in one.result(60)] == events for one in streams)
    assert service.client.get(path, headers={"Authorization": "Bearer no"}).status_code == 401
    assert not any(KEY in " ".join(process.cmdline()) for process in service.processes())
    assert KEY not in service.output + service.errors
    assert service.end() == 0
    assert service.processes() == []
    assert "epochd has stopped." in service.output
    assert "Traceback" not in service.errors


@postgres_in_torture
def test_one_that_was_killed_is_replaced_and_nobody_else_disturbed(
    service: Any, endless: dict[str, Any], wait_until: Callable[..., Any]
):
    job_id = service.submit(**endless)
    path = f"/v1/jobs/{job_id}"
    service.wait(job_id, lambda job: job["progress"]["epoch"] >= 1)
    victim = apis(service)[0]
    with ExitStack() as stack, ThreadPoolExecutor(CONNECTIONS) as threads:
        clients = Clients(service, stack)
        waiting: list[Future[httpx.Response]] = [
            threads.submit(one.get, path, params={"wait_seconds": 60}) for one in clients
        ]
        wait_until(lambda: len(holders(service)) == PROCESSES, "the long-polls have come")
        victim.kill()
        # Connections that nobody has accepted yet are everybody's.
        for _ in range(CONNECTIONS):
            assert httpx.get(f"{service.url}{path}", headers=TOKEN).json()["attempt"] == 1
        httpx.post(f"{service.url}{path}/cancel", headers=TOKEN, json={"keep": "nothing"}).raise_for_status()
        outcomes = [one.exception(60) for one in waiting]
        answered = [one.result().json() for one in waiting if one.exception() is None]
    # Only the connections of the process that was killed were cut off.
    assert answered
    assert all(job["status"] == "cancelled" for job in answered)
    assert all(isinstance(one, httpx.TransportError) for one in outcomes if one is not None)
    wait_until(lambda: all_answer(service), "all API processes answer again")
    assert victim.pid not in {process.pid for process in apis(service)}
    assert "starting it again" in service.errors


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_none_survives_a_service_that_was_killed(
    service: Any, endless: dict[str, Any], wait_until: Callable[..., Any]
):
    job_id = service.submit(**endless)
    service.wait(job_id, lambda job: job["progress"]["epoch"] >= 1)
    with service.client.stream("GET", f"/v1/jobs/{job_id}/events") as stream:
        next(stream.iter_bytes())
        service.end(signal.SIGKILL)
        wait_until(lambda: not service.processes(), "all children are gone")


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_those_who_stall_are_not_waited_for_and_new_ones_are_refused(
    start_service: Callable[..., Any], data_dir: Path, wait_until: Callable[..., Any]
):
    elsewhere = data_dir.parent / "of-somebody-else"
    elsewhere.mkdir()
    service = start_service(
        "--api-workers", "2", "--workers", "0", "--shutdown-seconds", "3",
        PROMETHEUS_MULTIPROC_DIR=str(elsewhere), prometheus_multiproc_dir=str(elsewhere),
    )  # fmt: skip
    wait_until(lambda: all_answer(service), "all API processes answer")
    assert "epochd_build_info" in service.client.get("/metrics").text
    assert list(elsewhere.iterdir()) == []
    assert list((data_dir / ".metrics").glob("*/gauge_*.db"))
    given = {name.lower() for process in apis(service) for name in process.environ()}
    assert "prometheus_multiproc_dir" not in given, "no child is given it"
    service.client.close()
    address = (httpx.URL(service.url).host, httpx.URL(service.url).port)
    with ExitStack() as stack:
        for _ in range(8):  # some on each process
            reader = stack.enter_context(socket.create_connection(address))
            reader.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 60)
            writer = stack.enter_context(socket.create_connection(address))
            writer.sendall(b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        assert all_answer(service)
        service.send(signal.SIGTERM)
        wait_until(lambda: is_refused(address) or service.process.poll() is not None, "nobody listens")
        assert service.process.poll() is None, "it was refused while the others were still waited for"
        assert service.process.wait(60) == 0
    assert "API process" not in service.errors, service.errors
    assert service.processes() == []
    assert [path.name for path in (data_dir / ".metrics").iterdir()] == ["lock"]


def is_refused(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, timeout=5).close()
    except ConnectionRefusedError:
        return True
    return False
