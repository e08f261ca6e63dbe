"""Jobs and models as a terminal shows them."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from epochd.client import Job, Series, screen
from epochd.client.sparkline import sparkline
from epochd.contract.job import Advice, Artifact, Plan, PlannedJob
from epochd.contract.model_list import ModelDescription
from epochd.contract.worker_list import Worker, WorkerDevice

WIDTH: Final = 40
STYLES: Final = {
    "queued": "yellow", "running": "cyan", "paused": "yellow", "succeeded": "green", "failed": "red",
    "cancelled": "dim",
}  # fmt: skip


def follow(job: Job) -> None:
    """Show a job's events until it is done."""
    console = Console(highlight=False)
    screen.follow(console, screen.Progress.of(job.model_dump(mode="json")), job.stream(iterations=True))


def ending(job: Job) -> str:
    """Say in words how a job ended."""
    if job.error is not None:
        return f"{job.id} {job.status}: {job.error.message}"
    parts = [f"{job.id} {job.status} ({job.stop_reason}) after {job.progress.epoch} epochs"]
    chosen = job.selected_checkpoint
    if chosen is not None and chosen.metric is not None:
        parts.append(f"kept epoch {chosen.epoch} with {chosen.metric} {chosen.value:.4g}")
    if job.diagnosis.verdict != "undetermined":
        parts.append(job.diagnosis.verdict)
    return "; ".join(parts)


def print_jobs(jobs: Sequence[Job]) -> None:
    """Print a table, a job a line."""
    console = Console(highlight=False)
    if not jobs:
        console.print("No jobs.")
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for title, right in (
        ("job", False),
        ("name", False),
        ("status", False),
        ("epochs", True),
        ("validation", True),
    ):
        table.add_column(title, justify="right" if right else "left", no_wrap=title == "job")
    table.add_column("diagnosis")
    table.add_column("created", justify="right")
    for job in jobs:
        table.add_row(*_line(job))
    console.print(table)


def _line(job: Job) -> list[str]:
    loss = job.metrics.get("validation_loss")
    verdict = "" if job.diagnosis.verdict == "undetermined" else job.diagnosis.verdict
    return [
        job.id,
        escape(job.name or ""),
        f"[{STYLES[job.status]}]{job.status}[/]",
        f"{job.progress.epoch}/{job.progress.epochs}",
        "" if loss is None else f"{loss:.4g}",
        verdict,
        _ago(job.created_at),
    ]


def _ago(moment: datetime) -> str:
    seconds = max((datetime.now(UTC) - moment).total_seconds(), 0)
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


def print_job(job: Job, epochs: Series, files: Sequence[Artifact]) -> None:
    """Print all that matters of a job."""
    console = Console(highlight=False)
    table = Table.grid(padding=(0, 3, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    for name, value in _facts(job, epochs, files):
        table.add_row(name, value)
    console.print(Padding(table, (1, 2)))


def _facts(job: Job, epochs: Series, files: Sequence[Artifact]) -> list[tuple[str, str]]:
    status = f"[{STYLES[job.status]}]{job.status}[/]{f', {job.stop_reason}' if job.stop_reason else ''}"
    facts = [
        ("job", f"[bold]{job.id}[/bold]{f'  {escape(job.name)}' if job.name else ''}"),
        ("status", status),
        ("data", escape(_dataset(job.spec.dataset))),
        ("plan", _plan_in_words(job.plan, job.spec.epochs)),
        ("trained", f"{job.progress.epoch} epochs, {job.progress.iteration:,} iterations"),
    ]
    for title, name, style in (("loss", "train_loss", "cyan"), ("validation", "validation_loss", "magenta")):
        values = [value for value in epochs.get(name, []) if value is not None]
        if values:
            facts.append((title, f"[{style}]{sparkline(values, WIDTH)}[/]  {values[-1]:.4g}"))
    chosen = job.selected_checkpoint
    if chosen is not None:
        value = "" if chosen.value is None else f", {chosen.metric} {chosen.value:.4g}"
        facts.append(("kept", f"epoch {chosen.epoch}{value} ({chosen.reason})"))
    facts.append(("diagnosis", f"[bold]{job.diagnosis.verdict}[/bold]: {escape(job.diagnosis.evidence)}"))
    facts += [
        ("try", f"{escape(one.message)} [dim]{escape(str(one.patch))}[/dim]")
        for one in job.diagnosis.suggestions
    ]
    facts += [("advice", f"[yellow]{escape(one.message)}[/]") for one in job.advice]
    if job.error is not None:
        facts.append(("error", f"[red]{escape(job.error.message)}[/]"))
    facts += [
        ("file" if number else "files", f"{one.name}  [dim]{one.bytes:,} bytes[/dim]")
        for number, one in enumerate(files)
    ]
    return facts


def _dataset(dataset: Any) -> str:
    return dataset if isinstance(dataset, str) else f"{dataset.name}, {dataset.samples:,} samples"


def _plan_in_words(plan: Plan, epochs: int) -> str:
    return (
        f"{plan.train_samples:,} training samples in mini-batches of {plan.batch_size}: {plan.iterations_per_epoch} "
        f"iterations an epoch, {plan.total_iterations:,} in at most {epochs} epochs"
    )


def print_plan(planned: PlannedJob) -> None:
    """Print what a job would be."""
    console = Console(highlight=False)
    console.print(_plan_in_words(planned.plan, planned.spec.epochs))
    if planned.plan.validation_samples:
        console.print(f"{planned.plan.validation_samples:,} samples for validation")
    _print_advice(console, planned.advice)


def _print_advice(console: Console, advice: Sequence[Advice]) -> None:
    for one in advice:
        console.print(f"[yellow]{one.param}[/]: {escape(one.message)}")


def print_workers(workers: Sequence[Worker]) -> None:
    """Print a table, a worker a line."""
    console = Console(highlight=False)
    if not workers:
        console.print("No worker lives: jobs wait until one is started.")
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for title in ("worker", "devices", "slots", "runs", "seen"):
        table.add_column(title)
    for one in workers:
        devices = ", ".join(_device(device) for device in one.devices)
        runs = ", ".join([*(held.job for held in one.running), *one.measuring]) or "[dim]idle[/dim]"
        table.add_row(escape(one.id), devices, str(one.slots), runs, _ago(one.last_seen_at))
    console.print(table)


def _device(device: WorkerDevice) -> str:
    if device.memory_used_bytes is None or not device.memory_total_bytes:
        return device.name
    used, total = (size / 2**30 for size in (device.memory_used_bytes, device.memory_total_bytes))
    return f"{device.name} ({used:.1f} of {total:.1f} GiB)"


def print_models(models: Sequence[ModelDescription]) -> None:
    """Print a table, a model a line."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for title in ("model", "tasks", "parameters"):
        table.add_column(title)
    for one in models:
        parameters = ", ".join(name for name in one.parameters.get("properties", {}) if name != "name")
        table.add_row(one.name, ", ".join(one.tasks), escape(parameters))
    Console(highlight=False).print(table)
