"""A real Prometheus, and services of several processes with jobs, kills and keys.

`make prometheus` fetches Debian's Prometheus; without it the tests that need it are skipped.
"""

import json
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from tests.marks import postgres_in_torture

ROOT = Path(__file__).parents[2]
KEY = "the-key-of-prometheus"
SHORT = {"dataset": "digits", "epochs": 3, "batch_size": 64}
SOON = ("--lease-seconds", "3", "--retry-delay-seconds", "0")


def binary(name: str) -> str:
    """Find a program of Debian's package, unpacked by `make prometheus` or installed."""
    unpacked = Path(sys.prefix) / "prometheus" / "usr" / "bin"
    found = shutil.which(name, path=unpacked) or shutil.which(name)
    if found is None:
        pytest.skip(f"there is no {name}: `make prometheus` fetches it")
    return found


def promtool(*arguments: str, given: str | None = None) -> None:
    done = subprocess.run(
        [binary("promtool"), *arguments], input=given, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr


def scrape(service: Any) -> dict[Any, float]:
    """Scrape, past what the answers before were cached for."""
    samples = [
        sample
        for family in text_string_to_metric_families(service.client.get("/metrics").raise_for_status().text)
        for sample in family.samples
    ]
    found = {(sample.name, *sample.labels.values()): sample.value for sample in samples}
    assert len(found) == len(samples), "every series once"
    return found


def apis(service: Any) -> list[psutil.Process]:
    return [process for process in service.processes() if "epochd.api" in process.cmdline()]


def is_training(job: dict[str, Any]) -> bool:
    return job["status"] == "running" and job["progress"]["epoch"] >= 2


@postgres_in_torture
def test_jobs_kills_and_deletions(
    start_service: Callable[..., Any], endless: dict[str, Any], wait_until: Callable[..., Any]
):
    service = start_service("--api-workers", "2", *SOON)
    short = service.submit(**SHORT)
    iterations = service.wait(short)["plan"]["total_iterations"]
    wait_until(
        lambda: scrape(service)["epochd_iterations_total",] == iterations, "its iterations are counted"
    )

    long = service.submit(**endless)
    service.wait(long, is_training)
    found = wait_until(
        # The worker reads the memory of its devices beside all else, and tells it when it says again that it lives.
        lambda: (
            (now := scrape(service))["epochd_samples_per_second",] > 0
            and any(key[0] == "epochd_device_memory_bytes" for key in now)
            and now
        ),
        "its pace and its device are known",
    )
    assert found["epochd_jobs", "running"] == found["epochd_workers",] == 1
    assert found["epochd_samples_per_second",] == pytest.approx(
        32 * found["epochd_iterations_per_second",], rel=0.05
    )
    [memory] = [key for key in found if key[0] == "epochd_device_memory_bytes" and "total" in key]
    assert {"cpu", "total"} < set(memory)
    assert found[memory] == psutil.virtual_memory().total

    [runner] = service.runners()
    runner.kill()
    service.wait(long, lambda job: is_training(job) and job["attempt"] == 2)
    wait_until(lambda: scrape(service)["epochd_attempts_lost_total",] == 1, "the loss is counted")
    service.client.post(f"/v1/jobs/{long}/cancel", json={"keep": "nothing"}).raise_for_status()
    service.wait(long)
    made = iterations + sum(
        (attempt["last_iteration"] or attempt["first_iteration"] - 1) - attempt["first_iteration"] + 1
        for attempt in service.client.get(f"/v1/jobs/{long}/attempts").json()["data"]
    )
    for job in (short, long):
        assert service.client.delete(f"/v1/jobs/{job}").status_code == 204
    found = wait_until(
        lambda: (now := scrape(service))["epochd_jobs", "cancelled"] == 0 and now, "the jobs are gone"
    )
    assert found["epochd_iterations_total",] == made
    assert found["epochd_attempts_lost_total",] == 1


@postgres_in_torture
def test_every_process_tells_of_all(start_service: Callable[..., Any], wait_until: Callable[..., Any]):
    service = start_service("--api-workers", "2", "--workers", "0")
    job = service.submit(**SHORT)

    def open_stream() -> Iterator[bytes]:
        # A connection of its own, which either process may take.
        with httpx.stream(
            "GET", f"{service.url}/v1/jobs/{job}/events", headers={"Accept": "text/event-stream"}, timeout=60
        ) as stream:
            yield from stream.iter_bytes()

    def served() -> list[int]:
        port = httpx.URL(service.url).port
        return [
            len([one for one in process.net_connections("tcp") if one.laddr.port == port and one.raddr])
            for process in apis(service)
        ]

    streams: list[Iterator[bytes]] = []

    def spread() -> bool:
        streams.append(open_stream())
        next(streams[-1])
        return len(apis(service)) == 2 and min(served()) >= 2

    wait_until(spread, "both processes have streams")
    count = len(streams)
    wait_until(lambda: scrape(service)["epochd_stream_subscribers",] == count, "all streams are counted")
    opened = ("epochd_http_request_duration_seconds_count", "GET", "/v1/jobs/{job_id}/events", "200")
    for _ in range(8):
        with httpx.Client(base_url=service.url) as client:
            service.client.close()
            service.client = client
            found = scrape(service)
        assert (found["epochd_stream_subscribers",], found[opened]) == (count, count)
        assert found["epochd_jobs", "queued"] == 1
    service.client = httpx.Client(base_url=service.url, timeout=60)

    before = scrape(service)["process_resident_memory_bytes",]
    assert before > max(process.memory_info().rss for process in apis(service))
    apis(service)[0].kill()
    found = wait_until(lambda: answer_of(service, count), "what lives is told")
    # Its streams are gone; what it had counted is not.
    assert 0 < found["epochd_stream_subscribers",] < count
    assert found[opened] == count
    for stream in streams:
        stream.close()  # type: ignore[attr-defined]
    wait_until(lambda: len(apis(service)) == 2, "it was started again")
    wait_until(lambda: scrape(service)["epochd_stream_subscribers",] == 0, "all streams are closed")


def answer_of(service: Any, streams: int) -> dict[Any, float] | None:
    try:
        found = scrape(service)
    except httpx.TransportError:  # the connection was to the one that died
        return None
    return found if found["epochd_stream_subscribers",] < streams else None


def documented() -> list[Any]:
    """The configurations in README.md: a scrape, and alerts."""
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    return [yaml.safe_load(block) for block in blocks]


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[Callable[[str], httpx.Client]]:
    """Start a Prometheus that scrapes a service every second, as README.md says, and keeps its alerts."""
    program = binary("prometheus")
    started: list[subprocess.Popen[bytes]] = []

    def start(url: str) -> httpx.Client:
        configuration = next(one for one in documented() if "scrape_configs" in one)
        alerts = next(one for one in documented() if "groups" in one)
        [job] = configuration["scrape_configs"]
        job["static_configs"] = [{"targets": [url.removeprefix("http://")]}]
        job["authorization"] = {"credentials": KEY}
        configuration["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        configuration["rule_files"] = [str(tmp_path / "alerts.yml")]
        (tmp_path / "alerts.yml").write_text(yaml.safe_dump(alerts))
        (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(configuration))
        promtool("check", "config", str(tmp_path / "prometheus.yml"))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = "{}:{}".format(*free.getsockname())
        started.append(
            subprocess.Popen(
                [
                    program,
                    f"--config.file={tmp_path / 'prometheus.yml'}",
                    f"--storage.tsdb.path={tmp_path / 'tsdb'}",
                    f"--web.listen-address={address}",
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=(tmp_path / "prometheus.log").open("wb"),
            )
        )
        return httpx.Client(base_url=f"http://{address}/api/v1")

    yield start
    for process in started:
        process.kill()
        process.wait()


@postgres_in_torture
def test_a_real_prometheus_scrapes_with_its_key(
    start_service: Callable[..., Any],
    prometheus: Callable[[str], httpx.Client],
    wait_until: Callable[..., Any],
):
    service = start_service(EPOCHD_API_KEYS=KEY)
    server = prometheus(service.url)
    assert service.client.get("/metrics").status_code == 401
    service.client.headers["Authorization"] = f"Bearer {KEY}"
    iterations = service.wait(service.submit(**SHORT))["plan"]["total_iterations"]

    def query(expression: str) -> list[tuple[dict[str, str], float]]:
        try:
            answer = server.get("/query", params={"query": expression}).json()
        except (httpx.TransportError, json.JSONDecodeError):  # it is starting
            return []
        if answer["status"] != "success":
            return []
        return [(one["metric"], float(one["value"][1])) for one in answer["data"]["result"]]

    wait_until(
        lambda: [value for _, value in query("epochd_iterations_total")] == [iterations], "it has scraped"
    )
    [(_, total)] = query("sum(epochd_jobs)")
    assert total == 1
    [(labels, _)] = query("epochd_build_info")
    assert labels["database"] in {"sqlite", "postgresql"}
    wait_until(
        lambda: query("histogram_quantile(0.99, sum by (le) (epochd_http_request_duration_seconds_bucket))"),
        "it has latencies",
    )
    [target] = server.get("/targets").json()["data"]["activeTargets"]
    assert (target["health"], target["lastError"]) == ("up", "")

    def evaluated() -> list[dict[str, Any]]:
        [group] = server.get("/rules").json()["data"]["groups"]
        return group["rules"] if all(rule["health"] != "unknown" for rule in group["rules"]) else []

    rules = wait_until(evaluated, "the alerts were evaluated")
    assert {rule["health"] for rule in rules} == {"ok"}
    assert "firing" not in {rule["state"] for rule in rules}

    exposed = service.client.get("/metrics").text
    promtool("check", "metrics", given=exposed)
    families = {family.name for family in text_string_to_metric_families(exposed)}
    for rule in rules:
        for name in re.findall(r"epochd_\w+", rule["query"]):
            assert re.sub(r"_(total|bucket|count|sum)$", "", name) in families, name


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_readme_names_every_metric(start_service: Callable[..., Any]):
    service = start_service("--workers", "0")
    named = set(re.findall(r"^\| `(epochd_\w+)", (ROOT / "README.md").read_text(), re.MULTILINE))
    types = re.findall(r"^# TYPE (epochd_\w+) ", service.client.get("/metrics").text, re.MULTILINE)
    assert named == set(types)
