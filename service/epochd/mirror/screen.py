"""What ``epochd export`` shows: a bar on a terminal, and where to look afterwards."""

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from epochd.mirror.export import Exported, Order, export
from epochd.settings import Settings


def show(settings: Settings, job_id: str, order: Order) -> None:
    """Export, and tell of it; raises what ``export`` raises."""
    console = Console(stderr=True)
    columns = (TextColumn("[dim]iterations[/dim]"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("iterations", total=None)
        exported = export(
            settings, job_id, order, lambda done, total: bar.update(task, completed=done, total=total)
        )
    _tell(exported, order)


def _tell(exported: Exported, order: Order) -> None:
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"[dim]{exported.iterations:,} iterations[/dim]")
    for place in exported.places:
        console.print(f"  {escape(place)}")
    if order.to == "tensorboard":
        directory = escape(str(order.output or "runs"))
        console.print(f"[dim]See them with: tensorboard --logdir {directory}[/dim]")
