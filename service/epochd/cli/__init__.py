"""The ``epochd`` command: each setting a flag and an ``EPOCHD_`` variable, each failure one line.

What a command needs is imported when it runs, so that ``epochd --help`` answers at once.
"""

import difflib
import os
import re
import sys
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from inspect import Parameter, Signature
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from pydantic import SecretStr, ValidationError
from pydantic.fields import FieldInfo

from epochd.cli import data
from epochd.cli.jobs import PANEL, commands
from epochd.errors import ConfigurationError, EpochdError
from epochd.settings import Settings

API_SETTINGS = frozenset(
    {
        "host",
        "port",
        "api_workers",
        "workers",
        "heartbeat_seconds",
        "slow_reader_seconds",
        "max_body_bytes",
        "max_upload_bytes",
        "max_unpacked_bytes",
        "dataset_sources",
        "api_keys",
        "insecure",
        "mirror_tensorboard",
        "mirror_mlflow",
        "mirror_points",
    }
)
DATABASE_SETTINGS = frozenset({"data_dir", "database_url"})

app = typer.Typer(
    name="epochd",
    help="Train models over HTTP: every iteration and epoch recorded, streamed, and stopped in time.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
database = typer.Typer(help="Look after the database.", no_args_is_help=True)
app.add_typer(database, name="db")
app.add_typer(data.commands, name="data", rich_help_panel=PANEL)
app.add_typer(commands)  # without a name: they are the root's own

Command = Callable[..., None]
_WHAT_TO_INSTALL = "pip install 'epochd[server]' brings the service"
_USER = re.compile(r"//\S*@")
"""In an address: who signs in, and with which password."""


def main() -> None:
    """Run the command line; an error of ours is one line and exit code 1, or 2 when it is the operator's."""
    try:
        app()
    except ModuleNotFoundError as error:
        if find_spec("torch") is not None:
            raise
        typer.echo(f"epochd: {error.name} is not installed: {_WHAT_TO_INSTALL}", err=True)
        sys.exit(2)
    except EpochdError as error:
        typer.echo(f"epochd: {error.message}", err=True)
        sys.exit(2 if isinstance(error, ConfigurationError) else 1)


def load_settings(flags: Mapping[str, str | bool | None]) -> Settings:
    """Join flags and environment; raises ConfigurationError naming the flag or variable that is wrong."""
    given = {name: value for name, value in flags.items() if value is not None}
    _warn_of_misspelt_variables()
    try:
        return Settings(**given)  # type: ignore[arg-type]  # Pydantic turns the flags' text into the right types
    except ValidationError as error:
        raise ConfigurationError("; ".join(_complaints(error, given))) from None


def _complaints(error: ValidationError, given: Mapping[str, object]) -> list[str]:
    lines = []
    for problem in error.errors(include_url=False):
        name = str(problem["loc"][0])
        source = _flag(name) if name in given else _variable(name)
        secret = Settings.model_fields[name].annotation is SecretStr
        shown = "" if secret else f" (it is {_USER.sub('//', str(problem['input']))!r})"
        lines.append(f"{source}: {problem['msg'][0].lower()}{problem['msg'][1:]}{shown}")
    return lines


def _warn_of_misspelt_variables() -> None:
    known = {_variable(name) for name in Settings.model_fields}
    for name in sorted(os.environ):
        if name.startswith("EPOCHD_") and name not in known:
            for meant in difflib.get_close_matches(name, known, n=1, cutoff=0.85):
                typer.echo(f"epochd: {name} is no setting and is ignored; did you mean {meant}?", err=True)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _variable(name: str) -> str:
    return f"EPOCHD_{name.upper()}"


def _option(name: str, field: FieldInfo) -> Parameter:
    is_switch = field.annotation is bool
    default = field.get_default()
    shown = "" if default is None or isinstance(default, bool | SecretStr) else f" Default `{default}`."
    option = typer.Option(
        _flag(name),
        help=f"{field.description}{shown} *{_variable(name)}*",
        metavar=None if is_switch else name.rpartition("_")[2].upper(),
        show_default=False,
    )
    kind: Any = (
        bool if is_switch else str
    )  # checked by Settings, which judges the environment by the same rules
    return Parameter(name, Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, option])


def _takes(settings: frozenset[str]) -> Callable[[Callable[[Settings], None]], Command]:
    """Give a command one flag for each of ``settings``, so that flags and settings cannot drift apart."""

    def decorate(command: Callable[[Settings], None]) -> Command:
        def run(**flags: str | bool | None) -> None:
            command(load_settings(flags))

        options = [_option(name, field) for name, field in Settings.model_fields.items() if name in settings]
        run.__doc__, run.__name__ = command.__doc__, command.__name__
        run.__annotations__ = {option.name: option.annotation for option in options}
        run.__signature__ = Signature(options)  # type: ignore[attr-defined]
        return run

    return decorate


def _print_version(asked: bool) -> None:  # noqa: FBT001 - typer passes the flag by position
    if asked:
        from epochd.version import __version__  # noqa: PLC0415

        typer.echo(f"epochd {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    *,
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    pass


@app.command("serve")
@_takes(frozenset(Settings.model_fields))
def _serve(settings: Settings) -> None:
    """Migrate the database, then run the API and its workers until Ctrl-C or SIGTERM."""
    from epochd.serve import serve  # noqa: PLC0415

    serve(settings)


@app.command("worker")
@_takes(frozenset(Settings.model_fields) - API_SETTINGS)
def _worker(settings: Settings) -> None:
    """Train jobs from the database of an `epochd serve` that runs elsewhere."""
    from epochd.preflight import prepare_data_dir  # noqa: PLC0415
    from epochd.worker.worker import main as run_worker  # noqa: PLC0415

    prepare_data_dir(settings)
    run_worker(settings)


@database.command("upgrade")
@_takes(DATABASE_SETTINGS)
def _upgrade(settings: Settings) -> None:
    """Bring the database to the schema of this version; safe to repeat."""
    from epochd.preflight import migrate, prepare_data_dir  # noqa: PLC0415

    prepare_data_dir(settings)
    typer.echo(f"The schema is current: {migrate(settings)}.")


@app.command("export")
def _export(  # noqa: PLR0913 - each is a flag
    job: Annotated[str, typer.Argument(help="The job's id.", metavar="JOB")],
    to: Annotated[
        Literal["tensorboard", "mlflow", "csv", "parquet", "pt2", "onnx"],
        typer.Option(help="The tool, or the kind of file; `pt2` and `onnx` are the trained model."),
    ],
    *,
    output: Annotated[
        Path | None,
        typer.Option(help="Directory for the files; by default `runs` or this one.", file_okay=False),
    ] = None,
    mlflow_uri: Annotated[
        str | None, typer.Option(help="The MLflow tracking server; by default that of MLFLOW_TRACKING_URI.")
    ] = None,
    points: Annotated[
        int | None,
        typer.Option(help="At most so many iterations, evenly spread; by default every one.", min=1),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what was exported before.")] = False,
    data_dir: Annotated[
        str | None, typer.Option(help="Where the SQLite file lives. Default `epochd-data`. *EPOCHD_DATA_DIR*")
    ] = None,
    database_url: Annotated[str | None, typer.Option(help="The database. *EPOCHD_DATABASE_URL*")] = None,
) -> None:
    """Write what a job recorded to TensorBoard, MLflow, CSV or Parquet, or its model; the service need not run."""
    settings = load_settings({"data_dir": data_dir, "database_url": database_url})
    if to == "pt2" or to == "onnx":  # noqa: PLR1714 - as types are told apart
        if mlflow_uri is not None or points is not None:
            raise ConfigurationError(
                "--mlflow-uri and --points are for what a job recorded, not for its model"
            )
        _export_model(settings, job, to, output or Path(), force=force)
        return
    from epochd.mirror.export import Order  # noqa: PLC0415
    from epochd.mirror.screen import show  # noqa: PLC0415

    show(settings, job, Order(to, output, mlflow_uri, points, force))


def _export_model(
    settings: Settings, job: str, kind: Literal["pt2", "onnx"], output: Path, *, force: bool
) -> None:
    from epochd.worker.model_file import show  # noqa: PLC0415

    for line in show(settings, job, kind, output, force=force):
        typer.echo(line)


@app.command("compare")
def _compare(  # noqa: PLR0913 - each is a flag
    jobs: Annotated[list[str], typer.Argument(help="The ids of 2 to 20 jobs.", metavar="JOB JOB")],
    *,
    url: Annotated[str, typer.Option(help="The service.", envvar="EPOCHD_URL")] = "http://127.0.0.1:8000",
    key: Annotated[str | None, typer.Option(help="An API key.", envvar="EPOCHD_KEY")] = None,
    metric: Annotated[
        str | None, typer.Option(help="The epoch metric to compare by; by default `validation_loss`.")
    ] = None,
    target: Annotated[
        float | None, typer.Option(help="A value of the metric: how soon is each job so good?")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the service's answer as it is.")] = False,
) -> None:
    """Put jobs of a running service side by side: best value, gap, noise, time to a target, speed and memory."""
    import json  # noqa: PLC0415

    from rich.console import Console  # noqa: PLC0415

    from epochd.client.compare import fetch, show  # noqa: PLC0415

    found = fetch(url, key, jobs, metric, target)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        show(Console(), found)


@app.command("demo")
def _demo(
    output: Annotated[Path, typer.Option(help="Where the trained weights are put.", file_okay=False)] = Path(
        "epochd-demo"
    ),
) -> None:
    """Start a service, train a classifier of handwritten digits over HTTP, and show what came out."""
    from epochd.demo import demo  # noqa: PLC0415

    if find_spec("torch") is None:
        raise ConfigurationError(f"the demo runs the service, which is not installed: {_WHAT_TO_INSTALL}")
    demo(output)
