"""``epochd demo``: a service of its own, one job over HTTP, live progress, and what came out of it.

It is a caller like any other: everything it shows it learned over HTTP.
"""

import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

import httpx
from rich.console import Console

from epochd.client import Client
from epochd.client.events import read_events
from epochd.client.screen import Progress, follow
from epochd.contract.job import Artifact
from epochd.demo.report import print_curl_lines, print_report
from epochd.demo.service import DemoService
from epochd.errors import InfrastructureError

SPEC: dict[str, Any] = {
    "name": "digits-demo",
    "dataset": "digits",
    "model": {"name": "cnn", "channels": [16, 32], "dropout": 0.3},
    "optimizer": {"name": "adamw", "learning_rate": 0.0004},
    "epochs": 100,
    "batch_size": 16,
    "early_stopping": {"monitor": "validation_loss", "patience": 8},
}
"""Some seconds of work, even on a machine that has better things to do: a mini-batch is small enough for one thread."""


def demo(output: Path) -> None:
    """Run the demo and put the weights into ``output``; Ctrl-C ends it with nothing left running.

    Raises InfrastructureError when the job does not succeed.
    """
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, _leave)
    console = Console(highlight=False)
    console.print("\n[bold]epochd demo[/bold]: a classifier of handwritten digits, trained over HTTP\n")
    try:
        with DemoService(console) as service, httpx.Client(base_url=service.url, timeout=30) as client:
            _run(console, service, client, output)
    except KeyboardInterrupt:
        console.print("\nStopped; the service of the demo is gone.")
        sys.exit(130)


def _run(console: Console, service: DemoService, client: httpx.Client, output: Path) -> None:
    posted = time.monotonic()
    job = client.post("/v1/jobs", json=SPEC).raise_for_status().json()
    progress = Progress.of(job)
    plan = job["plan"]
    console.print(
        f"[green]✓[/green] POST /v1/jobs answered 201: {job['id']}\n"
        f"  {plan['train_samples']:,} samples in mini-batches of {plan['batch_size']}"
        f" are {plan['iterations_per_epoch']} iterations an epoch"
    )
    _watch(console, client, job, progress)
    job = client.get(f"/v1/jobs/{job['id']}").raise_for_status().json()
    if job["status"] != "succeeded":
        raise InfrastructureError(f"the demo's job {job['status']}: {job['error']}\n{service.log_tail()}")
    epochs = client.get(f"/v1/jobs/{job['id']}/epochs").raise_for_status().json()["data"]
    first = progress.first_iteration_at
    waited = None if first is None else first - posted
    files = _fetched(service.url, job["id"], output)
    print_report(console, job, epochs, files, waited)
    print_curl_lines(console, SPEC)


def _watch(console: Console, client: httpx.Client, job: dict[str, Any], progress: Progress) -> None:
    follow(
        console, progress, read_events(client, f"/v1/jobs/{job['id']}/events", params={"iterations": "true"})
    )


def _fetched(url: str, job_id: str, directory: Path) -> list[tuple[Path, Artifact]]:
    """Bring the job's files to a lasting place, checked."""
    with Client(url) as client:
        job = client.jobs.get(job_id)
        return list(zip(job.download(directory), job.artifacts(), strict=True))


def _leave(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
