"""How the body of an upload comes in: to the disk while it comes, or not at all."""

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeVar

from fastapi import Request
from pydantic import ValidationError
from python_multipart.multipart import parse_options_header

from epochd.api.form import MAX_FIELD_BYTES, Form, malformed, too_large
from epochd.api.threads import FewThreads
from epochd.api.validation import param_errors, shown
from epochd.contract.datasets import DatasetFields
from epochd.errors import EpochdError, InvalidRequestError, ParamError
from epochd.intake.answer import disk_full, is_disk_full

PIECE_BYTES: Final = 2**20
STALLED_SECONDS: Final = 60.0
LINGER_BYTES: Final = 64 * 2**20
LINGER_SECONDS: Final = 5.0
Fields = TypeVar("Fields", bound=DatasetFields)

_LISTS: Final = frozenset({"target", "features"})
_SWITCHES: Final = {"true": True, "false": False}


class UploadStalledError(EpochdError):
    """Nothing came for a long time."""

    code = "upload_stalled"


@dataclass(frozen=True, slots=True)
class Received:
    """A file on the disk, and the fields beside it."""

    fields: DatasetFields
    file_name: str
    bytes: int
    sha256: str


async def receive(request: Request, path: Path, max_bytes: int, threads: FewThreads) -> Received:
    """Write the file of a form to ``path``.

    Raises ``InvalidRequestError``, ``PayloadTooLargeError``, ``InsufficientStorageError``, ``UploadStalledError`` and
    Starlette's ``ClientDisconnect``.
    """
    pieces = _pieces(request)
    try:
        _refuse_declared(request, path, max_bytes)
        with path.open("xb") as file:
            form = await _parsed(request, pieces, file, max_bytes, threads)
    except OSError as error:
        await _linger(pieces)
        raise (disk_full() if is_disk_full(error) else error) from error
    except EpochdError:
        await _linger(pieces)
        raise
    if form.file_name is None:
        raise InvalidRequestError.of(ParamError("file", "is required: the file to read", "required"))
    return Received(_fields(form.fields), form.file_name, form.bytes, form.sha256)


async def _parsed(
    request: Request, pieces: AsyncIterator[bytes], file: BinaryIO, max_bytes: int, threads: FewThreads
) -> Form:
    form = Form(_boundary(request), file, max_bytes)
    async for piece in pieces:
        await threads.run(form.feed, piece)
    await threads.run(form.finish)
    return form


async def _pieces(request: Request) -> AsyncIterator[bytes]:
    """Gather what comes to pieces that are worth a thread's while."""
    gathered = bytearray()
    stream = aiter(request.stream())
    while True:
        try:
            async with asyncio.timeout(STALLED_SECONDS):
                chunk = await anext(stream, None)
        except TimeoutError:
            message = f"Nothing of the upload came for {STALLED_SECONDS:g} s; send it again."
            raise UploadStalledError(message) from None
        if chunk is None:
            break
        gathered += chunk
        if len(gathered) >= PIECE_BYTES:
            yield bytes(gathered)
            gathered.clear()
    yield bytes(gathered)


async def _linger(pieces: AsyncIterator[bytes]) -> None:
    """Take some of what is still on its way: a client that is busy sending would not read why it may stop."""
    taken = 0
    with contextlib.suppress(TimeoutError, EpochdError, RuntimeError):
        async with asyncio.timeout(LINGER_SECONDS):
            async for piece in pieces:
                taken += len(piece)
                if taken > LINGER_BYTES:
                    return


def _refuse_declared(request: Request, path: Path, max_bytes: int) -> None:
    declared = request.headers.get("content-length", "")
    size = int(declared) if declared.isdigit() else 0
    if size > max_bytes + MAX_FIELD_BYTES:
        raise too_large(max_bytes)
    if size > shutil.disk_usage(path.parent).free:
        raise disk_full()


def _boundary(request: Request) -> bytes:
    _, options = parse_options_header(request.headers["content-type"])
    boundary = options.get(b"boundary", b"")
    if not 1 <= len(boundary) <= 200:  # noqa: PLR2004 - RFC 2046 allows 70
        raise malformed("has no boundary: Content-Type: multipart/form-data; boundary=…")
    return boundary


def _fields(given: dict[str, list[str]]) -> DatasetFields:
    """Read the fields of a form, all of them text, as those of a JSON body."""
    repeated = [name for name, values in given.items() if len(values) > 1 and name not in _LISTS]
    if repeated:
        errors = (ParamError(name[:80], "must be given once", "repeated") for name in repeated)
        raise InvalidRequestError.of(*errors)
    values = {name: _value(name, found) for name, found in given.items()}
    return validated(DatasetFields, values)


def validated(model: type[Fields], values: Any) -> Fields:
    """Read a request as a model says; raises ``InvalidRequestError``."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        findings = [{**one, "loc": ("body", *one["loc"])} for one in error.errors()]
        raise InvalidRequestError.of(*param_errors(findings, values, {"body": model})) from None


def _value(name: str, found: list[str]) -> Any:
    if name in _LISTS:
        return found
    (text,) = found
    if name == "header":
        return _SWITCHES.get(text.lower(), text)
    if name == "image_size":
        return sized(text)
    return text


def sized(text: str) -> list[int]:
    """Read ``64`` or ``48x64``, height before width; raises ``InvalidRequestError``."""
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isascii() and part.isdigit() and len(part) < 7 for part in parts):  # noqa: PLR2004
        message = f"must be 64, say, or height and width as 48x64; got {shown(text)}"
        raise InvalidRequestError.of(ParamError("image_size", message, "wrong_type"))
    return [int(parts[0]), int(parts[-1])]
