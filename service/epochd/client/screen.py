"""Live progress of a job: bars on a terminal, one line an epoch anywhere else."""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from epochd.client.events import ServerSentEvent
from epochd.client.sparkline import sparkline

REFRESHES_PER_SECOND = 12
CURVE_WIDTH = 32
SCORES = ("validation_accuracy", "validation_r2", "train_accuracy", "train_r2")


@dataclass(slots=True)
class Progress:
    """What the stream has told so far."""

    epochs: int
    total_iterations: int
    patience: int | None
    name: str = ""
    status: str = "queued"
    validates: bool = True
    train_samples: int = 0
    epoch: int = 0
    iteration: int = 0
    epoch_iteration: int = 0
    samples_per_second: float | None = None
    first_iteration_at: float | None = None
    iteration_loss: float | None = None
    train_loss: list[float | None] = field(default_factory=list)
    validation_loss: list[float | None] = field(default_factory=list)
    metric: tuple[str, float] | None = None
    best_value: float | None = None
    best_epoch: int | None = None
    epochs_without_improvement: int = 0

    @classmethod
    def of(cls, job: dict[str, Any]) -> Self:
        """Begin with what the job's plan says."""
        return cls(
            epochs=job["spec"]["epochs"],
            total_iterations=job["plan"]["total_iterations"],
            patience=None if job["early_stopping"] is None else job["early_stopping"]["patience"],
            name=job["name"] or job["id"],
            status=job["status"],
            validates=job["spec"]["validation"] is not None,
            train_samples=job["plan"]["train_samples"],
        )

    @property
    def epochs_left(self) -> int | None:
        """Epochs without improvement after which it stops, counted down; None where nothing stops it early."""
        return None if self.patience is None else max(0, self.patience - self.epochs_without_improvement)

    def take(self, event: ServerSentEvent) -> None:
        """Note what a message of the stream says."""
        content = event.json()
        match event.type:
            case "iterations":
                self._take_iterations(content["columns"])
            case "epoch.completed":
                self._take_epoch(content["data"])
            case "batch_size.chosen" | "spec.amended":
                self._take_changes(content["data"])
            case "job.started":
                self.status = f"training on {content['data']['device']}"
            case "job.queued" | "job.paused" | "job.succeeded" | "job.failed" | "job.cancelled":
                self.status = event.type.removeprefix("job.")
            case "early_stopping.updated":
                self.best_value = content["data"]["best_value"]
                self.best_epoch = content["data"]["best_epoch"]
                self.epochs_without_improvement = content["data"]["epochs_without_improvement"]

    def _take_changes(self, data: dict[str, Any]) -> None:
        if "batch_size" in data:
            self.total_iterations = -(-self.train_samples // data["batch_size"]) * self.epochs
        changes = data.get("changes", {})
        if "epochs" in changes and self.epochs:
            self.total_iterations = self.total_iterations // self.epochs * changes["epochs"]
            self.epochs = changes["epochs"]
        if "early_stopping" in changes:
            policy = changes["early_stopping"]
            self.patience = None if policy is None else policy["patience"]

    def _take_iterations(self, columns: dict[str, list[Any]]) -> None:
        if columns["iteration"]:
            self.first_iteration_at = self.first_iteration_at or time.monotonic()
            self.iteration = columns["iteration"][-1]
            self.iteration_loss = columns["train_loss"][-1]
            self.samples_per_second = columns["samples_per_second"][-1]

    def _take_epoch(self, epoch: dict[str, Any]) -> None:
        self.epoch = epoch["epoch"]
        # Iterations come in batches, and may be ahead of the event.
        self.epoch_iteration = epoch["iteration"]
        self.iteration = max(self.iteration, self.epoch_iteration)
        self.train_loss.append(epoch["train_loss"])
        self.validation_loss.append(epoch["validation_loss"])
        score = next((name for name in SCORES if epoch.get(name) is not None), None)
        self.metric = None if score is None else (score.removeprefix("validation_"), epoch[score])


class Screen:
    """Shows progress; on anything but a terminal it prints one line an epoch."""

    def __init__(self, console: Console, progress: Progress) -> None:
        self._console = console
        self._progress = progress

    @staticmethod
    def on(console: Console, progress: Progress) -> "Screen":
        """Take the screen that this console can show."""
        lively = console.is_terminal and not console.is_dumb_terminal
        return LiveScreen(console, progress) if lively else Screen(console, progress)

    def __enter__(self) -> Self:
        """Begin to show."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it."""

    def show(self, event: ServerSentEvent) -> None:
        """Show what ``event`` changed."""
        now = self._progress
        # What early stopping says of an epoch comes after it.
        if event.type == ("epoch.completed" if now.patience is None else "early_stopping.updated"):
            columns = [
                f"epoch {now.epoch:>3}/{now.epochs}",
                f"iteration {now.epoch_iteration:>5}/{now.total_iterations}",
                f"loss {_loss(_last(now.train_loss))}",
            ]
            if now.validates:
                columns.append(f"validation loss {_loss(_last(now.validation_loss))}")
            if now.epochs_left is not None:
                columns.append(f"stops in {now.epochs_left}")
            self._console.print("  ".join(["", *columns]), soft_wrap=True)


def follow(console: Console, progress: Progress, events: Iterable[ServerSentEvent]) -> None:
    """Show a job's stream to its end."""
    with Screen.on(console, progress) as screen:
        for event in events:
            progress.take(event)
            screen.show(event)


class LiveScreen(Screen):
    """Bars and curves, redrawn in place."""

    def __init__(self, console: Console, progress: Progress) -> None:
        super().__init__(console, progress)
        self._live = Live(
            console=console, refresh_per_second=REFRESHES_PER_SECOND, get_renderable=lambda: draw(progress)
        )

    def __enter__(self) -> Self:
        """Begin to draw."""
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the last picture standing."""
        self._live.stop()

    def show(self, event: ServerSentEvent) -> None:
        """Nothing to do: the picture is redrawn at a fixed rate."""


def draw(progress: Progress) -> RenderableType:
    """Draw the whole picture."""
    title = Text.assemble((progress.name, "bold"), (f"  {progress.status}", "dim"))
    return Padding(Group(title, "", _bars(progress), "", _curves(progress)), (1, 2, 0, 2))


def _bars(progress: Progress) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(width=12)
    grid.add_column(width=CURVE_WIDTH)
    grid.add_column()
    speed = progress.samples_per_second
    pace = f"[dim]{speed:,.0f} samples/s[/dim]" if speed else ""
    grid.add_row("epochs", _bar(progress.epoch, progress.epochs), f"{progress.epoch}/{progress.epochs}")
    grid.add_row(
        "iterations",
        _bar(progress.iteration, progress.total_iterations),
        f"{progress.iteration}/{progress.total_iterations}  {pace}",
    )
    if progress.epochs_left is not None:
        countdown = _bar(progress.epochs_left, progress.patience or 1, style="yellow")
        left = progress.epochs_left
        waiting = f"after {left} more epochs without improvement" if left else "now"
        grid.add_row("early stop", countdown, waiting)
    return grid


def _bar(completed: float, total: float, style: str = "cyan") -> ProgressBar:
    return ProgressBar(total=total, completed=completed, complete_style=style, finished_style=style)


def _curves(progress: Progress) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(width=12)
    grid.add_column(width=CURVE_WIDTH)
    grid.add_column()
    best = (
        ""
        if progress.best_epoch is None
        else f"best {_loss(progress.best_value)} in epoch {progress.best_epoch}"
    )
    now = progress.iteration_loss
    grid.add_row("loss", _curve(progress.train_loss, "cyan"), _loss(_last(progress.train_loss, now)))
    if progress.validates:
        grid.add_row(
            "validation",
            _curve(progress.validation_loss, "magenta"),
            f"{_loss(_last(progress.validation_loss))}  [dim]{best}[/dim]",
        )
    if progress.metric is not None:
        name, value = progress.metric
        shown = f"{value:.2%}" if name == "accuracy" else f"{value:.4f}"
        grid.add_row(name, _bar(min(max(value, 0), 1), 1, style="green"), f"[bold green]{shown}[/bold green]")
    return grid


def _curve(values: list[float | None], style: str) -> Text:
    return Text(sparkline(values, CURVE_WIDTH), style=style)


def _last(values: list[float | None], otherwise: float | None = None) -> float | None:
    return values[-1] if values else otherwise


def _loss(value: float | None) -> str:
    return "…" if value is None else f"{value:.4f}"
