"""Jobs under fire end as their twins that were left alone.

Runners, workers and the API are killed at random moments, workers are drained, jobs paused. Whatever a job recorded
and produced is then compared, bit for bit, with what the same spec gave undisturbed. A short round is part of the
suite; `make torture` plays the long one.
"""

import contextlib
import itertools
import json
import os
import random
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.marks import postgres_in_torture

SMALL = {"name": "mlp", "hidden_sizes": [32], "dropout": 0.2}
LARGE_SET = {"name": "synthetic", "samples": 100_000, "features": 16, "classes": 4, "seed": 5}
SOON = {"every_epochs": 1, "every_seconds": 1, "keep": 2}

SPECS: dict[str, dict[str, Any]] = {
    "dropout, warm-up, plateau": {
        "dataset": {"name": "synthetic", "samples": 20_000, "features": 16, "classes": 5, "noise": 0.2},
        "model": SMALL,
        "epochs": 30,
        "batch_size": 32,
        "schedule": {"name": "reduce_on_plateau", "patience": 1, "factor": 0.5, "warmup_iterations": 900},
    },
    "long epochs": {
        "dataset": LARGE_SET,
        "model": SMALL,
        "epochs": 4,
        "batch_size": 16,
        "optimizer": {"name": "sgd", "learning_rate": 0.05},
        "schedule": {"name": "cosine"},
        "gradient_clip_norm": 1.0,
    },
    "short epochs, early stopping": {
        "dataset": "digits",
        "model": {**SMALL, "batch_norm": True},
        "epochs": 500,
        "batch_size": 32,
        "early_stopping": {"patience": 120, "min_delta": 0.0},
        "drop_last": True,
    },
    "regression": {
        "dataset": {"name": "synthetic", "samples": 30_000, "features": 12, "targets": 3, "noise": 0.5},
        "model": {"name": "mlp", "hidden_sizes": [32, 32]},
        "epochs": 15,
        "batch_size": 32,
        "optimizer": {"name": "adam", "learning_rate": 0.002},
        "validation": {"fraction": 0.1, "every_epochs": 3},
        "loss": "huber",
    },
}
FLAGS = ("--lease-seconds", "3", "--retry-delay-seconds", "0", "--slots", "2", "--threads", "1")
OF_ATTEMPTS = ("job.queued", "job.started", "job.paused", "job.resumed", "attempt.lost")
"""Events, besides those of checkpoints, that tell of attempts and not of the training."""


@dataclass(frozen=True)
class Result:
    """All that a job recorded and produced, without the times."""

    job: dict[str, Any]
    epochs: list[dict[str, Any]]
    iterations: dict[str, list[Any]]
    events: list[tuple[str, dict[str, Any]]]
    weights: bytes
    description: dict[str, Any]


@dataclass
class Arena:
    """An API and a worker that are killed and started again, and the client that goes on through all of it."""

    start_service: Callable[..., Any]
    start_command: Callable[..., Any]
    wait_until: Callable[..., Any]
    database_url: str
    data_dir: Path
    counts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.start_api()
        self.start_worker()

    def start_api(self) -> None:
        self.api = self.start_service("--workers", "0", "--port", str(self.port))

    def start_worker(self) -> None:
        where = ("--database-url", self.database_url, "--data-dir", str(self.data_dir))
        self.worker = self.start_command("worker", *where, *FLAGS)

    def end_worker(self) -> None:
        """Tell it to end once it listens: before that, a signal ends it as it ends any process."""
        self.wait_until(lambda: "trains on" in self.worker.errors, "the worker has started")
        assert self.worker.end() == 0

    def submit(self, spec: dict[str, Any], key: str) -> str:
        answer = self.api.client.post(
            "/v1/jobs",
            json={**spec, "checkpoint": SOON, "max_attempts": 100},
            headers={"Idempotency-Key": key},
        )
        assert answer.status_code in {200, 201}, answer.text
        return answer.json()["id"]

    def submit_under_fire(self, spec: dict[str, Any], key: str) -> str:
        """Send a POST whose answer is lost, with the API, more often than not; the key makes it one job."""
        if random.random() < 0.3:
            with contextlib.suppress(httpx.HTTPError):
                self.api.client.post(
                    "/v1/jobs",
                    json={**spec, "checkpoint": SOON, "max_attempts": 100},
                    headers={"Idempotency-Key": key},
                    timeout=random.uniform(0.001, 0.02),
                )
        return self.submit(spec, key)

    def kill_runner(self) -> None:
        runners = self.worker.runners()
        if runners:
            random.choice(runners).kill()
            self.counts["runner killed"] += 1

    def kill_worker(self) -> None:
        self.worker.send(signal.SIGKILL)
        self.worker.process.wait()
        self.counts["worker killed"] += 1
        self.start_worker()

    def kill_api(self) -> None:
        self.api.send(signal.SIGKILL)
        self.api.process.wait()
        self.counts["API killed"] += 1
        self.start_api()

    def drain_worker(self) -> None:
        self.end_worker()
        self.counts["worker drained"] += 1
        self.start_worker()

    def pause_and_resume(self) -> None:
        running = self.api.client.get("/v1/jobs", params={"status": "running"}).json()["data"]
        if running:
            job_id = random.choice(running)["id"]
            self.api.client.post(f"/v1/jobs/{job_id}/pause")
            time.sleep(random.uniform(0, 1))
            self.counts["job paused"] += self.api.job(job_id)["status"] == "paused"
            self.api.client.post(f"/v1/jobs/{job_id}/resume")

    @property
    def kills(self) -> int:
        return sum(count for what, count in self.counts.items() if what.endswith("killed"))

    def done(self, job_ids: list[str]) -> bool:
        return all(self.api.job(job_id)["done"] for job_id in job_ids)

    def result(self, job_id: str) -> Result:
        job = self.api.job(job_id)
        artifacts = self.api.artifacts(job_id)
        description = json.loads(artifacts["model.json"])
        return Result(
            job={name: job[name] for name in JOB_FIELDS} | {"iteration": job["progress"]["iteration"]},
            epochs=[{**row, "seconds": None} for row in self.api.epochs(job_id)],
            iterations=self.columns(job_id),
            events=[*self.trained_events(job_id)],
            weights=artifacts["model.safetensors"],
            description={**description, "job": None, "attempt": None},
        )

    def columns(self, job_id: str) -> dict[str, list[Any]]:
        found: dict[str, list[Any]] = {}
        after: int | None = 0
        while after is not None:
            parameters = {"after": after, "limit": 100_000}
            page = self.api.client.get(f"/v1/jobs/{job_id}/iterations", params=parameters).json()
            for name, values in page["columns"].items():
                found.setdefault(name, []).extend(values)
            after = page["next"]
        del found["samples_per_second"]
        return found

    def trained_events(self, job_id: str) -> Iterator[tuple[str, dict[str, Any]]]:
        events = self.api.events(job_id)
        assert [event["seq"] for event in events] == [*range(1, len(events) + 1)]
        for event in events:
            if event["type"] not in OF_ATTEMPTS and not event["type"].startswith("checkpoint."):
                yield event["type"], {**event["data"], "seconds": None}

    def attempts(self, job_id: str) -> list[dict[str, Any]]:
        return self.api.client.get(f"/v1/jobs/{job_id}/attempts").raise_for_status().json()["data"]


JOB_FIELDS = (
    "status",
    "stop_reason",
    "plan",
    "metrics",
    "early_stopping",
    "diagnosis",
    "selected_checkpoint",
    "error",
)
BLOWS: dict[Callable[[Arena], None], int] = {
    Arena.kill_runner: 10,
    Arena.kill_worker: 4,
    Arena.kill_api: 3,
    Arena.drain_worker: 1,
    Arena.pause_and_resume: 2,
}


def play(
    arena: Arena, names: list[str], *, copies: int, kills: int, every_seconds: tuple[float, float]
) -> list[tuple[str, str]]:
    """Train each spec ``copies`` times, and more until so many kills have fallen: (spec, job) of each."""
    numbers = itertools.count()
    jobs: list[tuple[str, str]] = []

    def submit(chosen: list[str]) -> None:
        jobs.extend((name, arena.submit_under_fire(SPECS[name], f"job-{next(numbers)}")) for name in chosen)

    submit(names * copies)
    while arena.kills < kills:
        time.sleep(random.uniform(*every_seconds))
        (blow,) = random.choices([*BLOWS], [*BLOWS.values()])
        blow(arena)
        if arena.done([job_id for _, job_id in jobs]):
            submit(random.sample(names, 2))
    for _, job_id in jobs:
        arena.api.wait(job_id)
    return jobs


def round_of_torture(arena: Arena, capsys: Any, names: list[str], **blows: Any) -> None:
    seed = int(os.environ.get("TORTURE_SEED", time.time_ns() % 100_000))
    random.seed(seed)
    alone = {name: arena.submit(SPECS[name], f"alone-{number}") for number, name in enumerate(names)}
    for job_id in alone.values():
        assert arena.api.wait(job_id)["attempt"] == 1
    twins = {name: arena.result(job_id) for name, job_id in alone.items()}
    jobs = play(arena, names, **blows)
    attempts = {job_id: arena.attempts(job_id) for _, job_id in jobs}
    with capsys.disabled():
        report(arena, seed, attempts)
    for name, job_id in jobs:
        compare(f"{name}: {job_id} (TORTURE_SEED={seed})", arena.result(job_id), twins[name])
        assert [one["attempt"] for one in attempts[job_id]] == [*range(1, len(attempts[job_id]) + 1)]
        assert all(one["outcome"] for one in attempts[job_id])
    arena.end_worker()
    assert arena.worker.processes() == []


def compare(which: str, found: Result, twin: Result) -> None:
    assert found.iterations["iteration"] == twin.iterations["iteration"], (
        f"{which}: lost or doubled iterations"
    )
    for name, values in twin.iterations.items():
        unequal = [
            i
            for i, pair in enumerate(zip(found.iterations[name], values, strict=True), 1)
            if pair[0] != pair[1]
        ]
        assert not unequal, f"{which}: {name} differs in {len(unequal)} iterations, the first {unequal[0]}"
    assert found.epochs == twin.epochs, f"{which}: epochs"
    assert found.events == twin.events, f"{which}: events"
    assert found.job == twin.job, f"{which}: job"
    assert found.description == twin.description, f"{which}: model.json"
    assert found.weights == twin.weights, f"{which}: weights"


def report(arena: Arena, seed: int, attempts: dict[str, list[dict[str, Any]]]) -> None:
    every = [one for of_job in attempts.values() for one in of_job]
    resumed = [one for one in every if one["restored"] and one["restored"]["iteration"]]
    kind = "SQLite" if arena.database_url.startswith("sqlite") else "Postgres"
    blows = ", ".join(f"{what} {count}x" for what, count in sorted(arena.counts.items()))
    outcomes = ", ".join(
        f"{count} {what}" for what, count in Counter(one["outcome"] for one in every).items()
    )
    print(f"\n{kind}, seed {seed}: {len(attempts)} jobs; {arena.kills} kills ({blows})")
    print(f"  {len(every)} attempts ({outcomes}); {len(resumed)} resumed from a checkpoint")


@pytest.fixture
def arena(
    start_service: Callable[..., Any],
    start_command: Callable[..., Any],
    wait_until: Callable[..., Any],
    database_url: str,
    data_dir: Path,
) -> Arena:
    return Arena(start_service, start_command, wait_until, database_url, data_dir)


@postgres_in_torture
@pytest.mark.timeout(300)
def test_jobs_that_are_killed_end_as_their_twins(arena: Arena, capsys: pytest.CaptureFixture[str]):
    names = ["dropout, warm-up, plateau", "short epochs, early stopping"]
    round_of_torture(arena, capsys, names, copies=1, kills=5, every_seconds=(0.3, 1.5))
    assert arena.kills >= 5


@pytest.mark.torture
@pytest.mark.timeout(3600)
def test_jobs_under_heavy_fire_end_as_their_twins(arena: Arena, capsys: pytest.CaptureFixture[str]):
    round_of_torture(arena, capsys, [*SPECS], copies=5, kills=100, every_seconds=(0.1, 2.5))
    assert arena.kills >= 100
