"""Commands about the jobs of a running service; nothing of the server is needed for them.

Exit codes: 0, and the job that was waited for succeeded; 1, it failed, or the service refused; 2, wrong usage; 3, it
was cancelled; 130, Ctrl-C while it trains on.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

from epochd.errors import ConfigurationError

if TYPE_CHECKING:
    from pydantic import BaseModel

    from epochd.client import Client, Job

FAILED, CANCELLED, INTERRUPTED = 1, 3, 130
CODES: Final = {"succeeded": 0, "failed": FAILED, "cancelled": CANCELLED}

PANEL: Final = "Jobs of a running service"

commands = typer.Typer(help=PANEL)

Url = Annotated[
    str | None,
    typer.Option(
        help="The service. Default `http://127.0.0.1:8000`.", envvar="EPOCHD_URL", show_default=False
    ),
]
Key = Annotated[
    str | None, typer.Option(help="An API key, where it wants one.", envvar="EPOCHD_KEY", show_envvar=True)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the service's answer as it is.")]
JobId = Annotated[str, typer.Argument(help="The job's id.", metavar="JOB")]
SpecFile = Annotated[
    Path | None,
    typer.Argument(
        help="The spec, as JSON or YAML; `-` reads it from standard input.", allow_dash=True, metavar="FILE"
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="A field of the spec, by its path: `--set optimizer.learning_rate=0.01`. Values are JSON, or else text.",
        metavar="FIELD=VALUE",
    ),
]


@contextmanager
def connected(url: str | None, key: str | None) -> "Iterator[Client]":
    """A client that is closed at the end."""
    from epochd.client import Client  # noqa: PLC0415

    with Client(url, key) as client:
        yield client


@commands.command("submit", rich_help_panel=PANEL)
def _submit(  # noqa: PLR0913 - each is a flag
    file: SpecFile = None,
    *,
    dataset: Annotated[str | None, typer.Option(help="The data set, by its name.")] = None,
    model: Annotated[str | None, typer.Option(help="The model, by its name.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training samples, at most.")] = None,
    batch_size: Annotated[
        str | None, typer.Option(help="Samples in one mini-batch, or `auto`.", metavar="SAMPLES")
    ] = None,
    learning_rate: Annotated[float | None, typer.Option(help="The optimizer's.")] = None,
    patience: Annotated[
        int | None, typer.Option(help="Stop after so many epochs without improvement.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="What to call the job.")] = None,
    settings: Settings = None,
    watch: Annotated[bool, typer.Option("--watch", help="Show its progress until it is done.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it is done, silently.")] = False,
    as_json: AsJson = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Queue a job, from a file, from flags, or from both: flags go before the file."""
    from epochd.cli.spec import given  # noqa: PLC0415

    flags = {
        "dataset": dataset,
        "model.name": model,
        "epochs": epochs,
        "batch_size": batch_size if batch_size is None or not batch_size.isdigit() else int(batch_size),
        "optimizer.learning_rate": learning_rate,
        "early_stopping.patience": patience,
        "name": name,
    }
    spec = given(file, flags, settings or [])
    with connected(url, key) as client:
        job = client.jobs.submit(spec)
        if not (watch or wait):
            _tell(job, as_json, lambda: f"{job.id} is {job.status}: epochd watch {job.id}")
            return
        _follow(job, as_json=as_json, lively=watch and not as_json)


@commands.command("plan", rich_help_panel=PANEL)
def _plan(
    file: SpecFile = None,
    *,
    settings: Settings = None,
    as_json: AsJson = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Count the mini-batches, iterations and epochs of a job without queueing it, and give advice."""
    from epochd.cli.output import print_plan  # noqa: PLC0415
    from epochd.cli.spec import given  # noqa: PLC0415

    with connected(url, key) as client:
        planned = client.jobs.plan(given(file, {}, settings or []))
    if as_json:
        typer.echo(planned.model_dump_json(indent=2))
    else:
        print_plan(planned)


@commands.command("watch", rich_help_panel=PANEL)
def _watch(job: JobId, *, as_json: AsJson = False, url: Url = None, key: Key = None) -> None:
    """Show the progress of a job until it is done; Ctrl-C leaves it training."""
    with connected(url, key) as client:
        _follow(client.jobs.get(job), as_json=as_json, lively=not as_json)


@commands.command("wait", rich_help_panel=PANEL)
def _wait(
    job: JobId,
    *,
    timeout: Annotated[float | None, typer.Option(help="Seconds to wait at most.", min=0)] = None,
    as_json: AsJson = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Wait until a job is done; the exit code says how it ended."""
    with connected(url, key) as client:
        try:
            done = client.jobs.get(job).wait(timeout)
        except TimeoutError as error:
            raise typer.Exit(_complain(str(error))) from None
    _end(done, as_json)


@commands.command("list", rich_help_panel=PANEL)
def _list(  # noqa: PLR0913 - each is a flag
    *,
    status: Annotated[
        list[str] | None, typer.Option(help="Only those in this status; may come again.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Only those of this name.")] = None,
    search: Annotated[
        str | None, typer.Option(help="Only those with this text in their name, id, data set or model.")
    ] = None,
    limit: Annotated[int, typer.Option(help="At most so many.", min=1)] = 20,
    as_json: AsJson = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """List jobs, the newest first."""
    from itertools import islice  # noqa: PLC0415

    from epochd.cli.output import print_jobs  # noqa: PLC0415

    with connected(url, key) as client:
        wanted: Any = status or ()  # the service says what is wrong with them
        found = list(islice(client.jobs.list(status=wanted, name=name, search=search), limit))
    if as_json:
        print_json(found)
    else:
        print_jobs(found)


@commands.command("show", rich_help_panel=PANEL)
def _show(job: JobId, *, as_json: AsJson = False, url: Url = None, key: Key = None) -> None:
    """Show a job: its progress, curves, diagnosis, advice, and files."""
    from epochd.cli.output import print_job  # noqa: PLC0415

    with connected(url, key) as client:
        found = client.jobs.get(job)
        if as_json:
            typer.echo(found.model_dump_json(indent=2))
        else:
            print_job(found, found.epochs(), found.artifacts())


@commands.command("cancel", rich_help_panel=PANEL)
def _cancel(
    job: JobId,
    *,
    keep: Annotated[
        Literal["best", "last", "nothing"], typer.Option(help="Which weights its files will hold.")
    ] = "best",
    as_json: AsJson = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """End a job before its time."""
    with connected(url, key) as client:
        found = client.jobs.get(job).cancel(keep)
    _tell(
        found, as_json, lambda: f"{job} is {found.status}{'' if found.done else ', and will be cancelled'}."
    )


def _acting(name: str, what: str, said: str) -> None:
    def act(job: JobId, *, as_json: AsJson = False, url: Url = None, key: Key = None) -> None:
        with connected(url, key) as client:
            found = getattr(client.jobs.get(job), name)()
        _tell(found, as_json, lambda: f"{job} is {found.status}{said.format(job=job)}")

    act.__doc__ = what
    commands.command(name, rich_help_panel=PANEL)(act)


_acting("pause", "Free a job's device; `epochd resume` goes on exactly there.", ": epochd resume {job}")
_acting("resume", "Go on with a paused job.", ": epochd watch {job}")
_acting("retry", "Try a failed or cancelled job again, from its newest checkpoint.", ": epochd watch {job}")


@commands.command("download", rich_help_panel=PANEL)
def _download(  # noqa: PLR0913 - each is a flag
    job: JobId,
    names: Annotated[
        list[str] | None, typer.Argument(help="Files to fetch; by default all.", metavar="[FILE]...")
    ] = None,
    *,
    output: Annotated[Path, typer.Option(help="The directory to put them in.", file_okay=False)] = Path(),
    as_json: AsJson = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Fetch the files that a job left; each is checked against its digest."""
    import json  # noqa: PLC0415

    with connected(url, key) as client:
        found = client.jobs.get(job)
        missing = set(names or ()) - {one.name for one in found.artifacts()}
        if missing:
            raise ConfigurationError(f"{job} has no file {', '.join(sorted(missing))}: see epochd show {job}")
        paths = found.download(output, names or None)
    if as_json:
        typer.echo(json.dumps([str(path) for path in paths]))
    elif paths:
        typer.echo("\n".join(map(str, paths)))
    else:
        typer.echo(f"{job} has left no files{'' if found.done else ' so far'}.")


@commands.command("models", rich_help_panel=PANEL)
def _models(*, as_json: AsJson = False, url: Url = None, key: Key = None) -> None:
    """List what can be trained."""
    from epochd.cli.output import print_models  # noqa: PLC0415

    with connected(url, key) as client:
        found = client.models()
    if as_json:
        print_json(found)
    else:
        print_models(found)


@commands.command("workers", rich_help_panel=PANEL)
def _workers(*, as_json: AsJson = False, url: Url = None, key: Key = None) -> None:
    """List who trains, on which devices, and what runs there."""
    from epochd.cli.output import print_workers  # noqa: PLC0415

    with connected(url, key) as client:
        found = client.workers()
    if as_json:
        print_json(found)
    else:
        print_workers(found)


def print_json(found: "Sequence[BaseModel]") -> None:
    """Print what the service answered, as a list."""
    import json  # noqa: PLC0415

    typer.echo(json.dumps([one.model_dump(mode="json") for one in found], indent=2))


def _follow(job: "Job", *, as_json: bool, lively: bool) -> None:
    try:
        if lively:
            from epochd.cli.output import follow  # noqa: PLC0415

            follow(job)
        done = job.wait()
    except KeyboardInterrupt:
        typer.echo(f"\n{job.id} goes on training: epochd watch {job.id}, or epochd cancel {job.id}", err=True)
        raise typer.Exit(INTERRUPTED) from None
    _end(done, as_json)


def _end(done: "Job", as_json: bool) -> None:  # noqa: FBT001 - private
    from epochd.cli.output import ending  # noqa: PLC0415

    _tell(done, as_json, lambda: ending(done))
    raise typer.Exit(CODES[done.status])


def _tell(job: "Job", as_json: bool, said: Callable[[], str]) -> None:  # noqa: FBT001 - private
    typer.echo(job.model_dump_json(indent=2) if as_json else said())


def _complain(said: str) -> int:
    typer.echo(f"epochd: {said}", err=True)
    return FAILED
