"""Commands about the data sets of a running service."""

from pathlib import Path
from typing import Annotated

import typer

from epochd.cli.jobs import AsJson, Key, Url, connected, print_json
from epochd.errors import ConfigurationError

commands = typer.Typer(help="Bring data sets, and list them.", no_args_is_help=True)


@commands.command("upload")
def _upload(  # noqa: PLR0913 - each is a flag
    file: Annotated[
        Path, typer.Argument(help="A CSV, Parquet, Arrow, NPZ, safetensors, ZIP or JSON-lines file.")
    ],
    *,
    name: Annotated[str | None, typer.Option(help="What jobs call it; by default the file's name.")] = None,
    target: Annotated[list[str] | None, typer.Option(help="The column to predict; may come again.")] = None,
    as_json: AsJson = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Bring a data set: it is read and checked before this ends."""
    if not file.is_file():
        raise ConfigurationError(f"{file} is no file")
    fields = {"name": name, "target": target}
    with connected(url, key) as client:
        found = client.upload(file, **{one: value for one, value in fields.items() if value})
    if as_json:
        typer.echo(found.model_dump_json(indent=2))
        return
    typer.echo(f"{found.name} ({found.id}): {found.samples:,} samples, {found.task}")
    for note in found.notes:
        typer.echo(f"  {note.message}")


@commands.command("list")
def _list(*, as_json: AsJson = False, url: Url = None, key: Key = None) -> None:
    """List the data sets, the newest first; the built-in ones are the last."""
    with connected(url, key) as client:
        found = list(client.datasets())
    if as_json:
        print_json(found)
        return
    for one in found:
        typer.echo(f"{one.name}  {one.samples:,} samples  {one.task}")
