"""What the process that reads a data set answers: the data set, or why there is none; one line of JSON."""

import errno
import json
from dataclasses import asdict
from typing import Any, Final

from epochd.errors import (
    EpochdError,
    InsufficientStorageError,
    InvalidDatasetError,
    InvalidRequestError,
    ParamError,
    PayloadTooLargeError,
    ServiceUnavailableError,
)

_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_TOLD: Final = (PayloadTooLargeError, ServiceUnavailableError, InsufficientStorageError)


class UnexpectedError(EpochdError):
    """A mistake of the code; the message is for the log."""


def disk_full() -> InsufficientStorageError:
    """Say that there is no room."""
    return InsufficientStorageError(
        "The disk of the service has no room for this data set; nothing of it was kept. Remove data sets or jobs, or "
        "ask the operator."
    )


def is_disk_full(error: OSError) -> bool:
    """Tell whether that is what an error means."""
    return error.errno in _NO_ROOM


def of_error(error: BaseException) -> str:
    """Write an error; ``error_of`` reads what is below ``error``."""
    if isinstance(error, OSError) and is_disk_full(error):
        error = disk_full()
    if isinstance(error, MemoryError):
        error = too_much_memory()
    values: dict[str, Any] = {"kind": "unexpected", "message": f"{type(error).__name__}: {error}"}
    if isinstance(error, InvalidRequestError):
        errors = [asdict(one) for one in error.errors]
        place = error.place if isinstance(error, InvalidDatasetError) else None
        values = {"kind": "invalid", "message": error.message, "errors": errors, "place": place}
    elif isinstance(error, _TOLD):
        kind = next(one.__name__ for one in _TOLD if isinstance(error, one))
        values = {"kind": kind, "message": error.message, "code": error.code}
    return json.dumps({"error": values})


def too_much_memory() -> InvalidDatasetError:
    """Say that reading takes more memory than it may have."""
    return InvalidDatasetError(
        "Reading the file takes more memory than the service gives to it: send it in a form that is read part by part, "
        "such as Parquet with smaller row groups, or split it.",
        "too_much_memory",
    )


def error_of(values: dict[str, Any]) -> EpochdError:
    """Read what ``of_error`` wrote below ``error``."""
    if values["kind"] == "invalid":
        return _invalid(values)
    told = {one.__name__: one for one in _TOLD}
    if values["kind"] in told:
        return told[values["kind"]](values["message"], code=values["code"])
    return UnexpectedError(values["message"])


def _invalid(values: dict[str, Any]) -> InvalidRequestError:
    errors = tuple(ParamError(**one) for one in values["errors"])
    if values["place"] is None:
        return InvalidRequestError(values["message"], errors)
    first = errors[0]
    return InvalidDatasetError(values["message"], first.code, param=first.param, **values["place"])
