"""What the demo prints when its job is done: the result as a table, and the same by curl."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from epochd.contract.job import Artifact

BASE = "http://127.0.0.1:8000/v1"


def print_report(
    console: Console,
    job: dict[str, Any],
    epochs: Sequence[dict[str, Any]],
    files: Sequence[tuple[Path, Artifact]],
    first_iteration_seconds: float | None,
) -> None:
    """Print the finished job as a table; ``epochs`` are the rows that the service recorded."""
    table = Table(box=box.ROUNDED, show_header=False, padding=(0, 1), title=f"{job['name']}: {job['status']}")
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in _rows(job, epochs, files, first_iteration_seconds):
        table.add_row(name, value)
    console.print()
    console.print(table)


def _rows(
    job: dict[str, Any],
    epochs: Sequence[dict[str, Any]],
    files: Sequence[tuple[Path, Artifact]],
    first_iteration_seconds: float | None,
) -> list[tuple[str, str]]:
    progress, chosen, diagnosis = job["progress"], job["selected_checkpoint"], job["diagnosis"]
    best = next(epoch for epoch in epochs if epoch["epoch"] == chosen["epoch"])
    rows = [
        ("plan", _plan(job)),
        ("trained", f"{progress['iteration']:,} iterations in {progress['epoch']} epochs, {_duration(job)}"),
        ("best epoch", f"{chosen['epoch']}: {chosen['metric']} {chosen['value']:.4f}"),
        ("validation accuracy", f"[bold green]{best['validation_accuracy']:.2%}[/bold green] in that epoch"),
        ("why it stopped", f"[bold]{job['stop_reason']}[/bold]: {job['early_stopping']['message']}"),
        ("diagnosis", f"[bold]{diagnosis['verdict']}[/bold]: {diagnosis['evidence']}"),
        ("weights", "\n".join(_file(*file) for file in files)),
    ]
    if first_iteration_seconds is not None:
        rows.insert(2, ("first iteration", f"on screen {first_iteration_seconds:.2f} s after the POST"))
    return rows


def _plan(job: dict[str, Any]) -> str:
    plan, epochs = job["plan"], job["spec"]["epochs"]
    return (
        f"{plan['train_samples']:,} training samples and {plan['validation_samples']:,} for validation\n"
        f"batch size {plan['batch_size']}: {plan['mini_batches_per_epoch']} mini-batches,"
        f" {plan['iterations_per_epoch']} iterations an epoch\n"
        f"at most {epochs} epochs = {plan['total_iterations']:,} iterations"
    )


def _duration(job: dict[str, Any]) -> str:
    return f"{job['progress']['elapsed_seconds']:.1f} s on {job['device']}"


def _file(path: Path, file: Artifact) -> str:
    return f"{path}\n[dim]{file.bytes:,} bytes, sha256 {file.sha256[:16]}… verified[/dim]"


def print_curl_lines(console: Console, spec: dict[str, Any]) -> None:
    """Print the shell lines that do the same against ``epochd serve`` on its default port."""
    console.print(
        "\nThe demo's service has stopped. [bold]The same by hand[/bold], with `make serve` in another terminal:\n"
    )
    for line in curl_lines(spec):
        # As it is, on one line however long: it is there to be copied.
        console.print(line, soft_wrap=True, markup=False, style="cyan")
    root = BASE.removesuffix("/v1")
    console.print(f"\nDashboard: {root}/   All calls: {root}/docs\n")


def curl_lines(spec: dict[str, Any], base: str = BASE) -> list[str]:
    """Give the shell lines that post ``spec``, follow the job and fetch its weights."""
    find_id = "grep -o 'job_[0-9A-Za-z]*' | head -n 1"
    body = f"-H 'Content-Type: application/json' -d '{json.dumps(spec)}'"
    return [
        f"JOB=$(curl -sS {base}/jobs {body} | {find_id})",
        f"curl -sSN \"{base}/jobs/$JOB/events?iterations=true\" -H 'Accept: text/event-stream'",
        f'curl -sS "{base}/jobs/$JOB?wait_seconds=30&until=done"',
        f'curl -sS "{base}/jobs/$JOB/epochs"',
        f'curl -sSO "{base}/jobs/$JOB/artifacts/model.safetensors"',
    ]
