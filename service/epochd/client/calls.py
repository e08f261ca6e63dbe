"""Requests, tried again where that may help: as steps that a blocking or an asynchronous client carries out.

A flow is a generator: it yields a ``Call``, whose answer is sent in, or whose ``httpx.TransportError`` is thrown in, or
a ``Pause``; what it returns is the result. So there is one logic for both clients, and it does no input or output.
"""

import json
from collections.abc import Generator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeVar

import httpx

from epochd.client.events import MAX_PAUSE_SECONDS, RETRYABLE_STATUSES, pause
from epochd.errors import (
    ConflictError,
    EpochdError,
    InsufficientStorageError,
    InvalidRequestError,
    NotFoundError,
    ParamError,
    PayloadTooLargeError,
    ServiceUnavailableError,
    UnauthorizedError,
)

ATTEMPTS: Final = 6
SECONDS: Final = 10.0
"""For an answer that nobody has to wait for."""
Params = Sequence[tuple[str, str]]
_ERRORS: Final[Mapping[int, type[EpochdError]]] = {
    HTTPStatus.UNAUTHORIZED: UnauthorizedError,
    HTTPStatus.NOT_FOUND: NotFoundError,
    HTTPStatus.CONFLICT: ConflictError,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: PayloadTooLargeError,
    HTTPStatus.INSUFFICIENT_STORAGE: InsufficientStorageError,
    HTTPStatus.SERVICE_UNAVAILABLE: ServiceUnavailableError,
}


@dataclass(frozen=True, slots=True)
class Call:
    """A request; ``seconds`` is how long its answer may take beside the network's way.

    It has a ``body``, as JSON, or a ``file``, in a form with ``fields``.
    """

    method: str
    path: str
    params: Params = ()
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    seconds: float = SECONDS
    file: Path | None = None
    fields: Mapping[str, str | Sequence[str]] = field(default_factory=dict)

    def opened(self) -> AbstractContextManager[BinaryIO | None]:
        """The file, open while it is sent. Raises OSError when it cannot be read."""
        return nullcontext() if self.file is None else self.file.open("rb")

    def request(self, client: httpx.Client | httpx.AsyncClient, file: BinaryIO | None) -> httpx.Request:
        """Make it for a client, with the opened file."""
        content = None if self.body is None else json.dumps(self.body, allow_nan=False)
        kind = {} if content is None else {"Content-Type": "application/json"}
        return client.build_request(
            self.method,
            self.path,
            params=list(self.params),
            content=content,
            files=None if file is None or self.file is None else {"file": (self.file.name, file)},
            data=dict(self.fields) or None,
            headers={**kind, **self.headers},
            timeout=httpx.Timeout(SECONDS, read=self.seconds + SECONDS),
        )


@dataclass(frozen=True, slots=True)
class Pause:
    """Nothing for so many seconds."""

    seconds: float


T = TypeVar("T")
Step = Call | Pause
Flow = Generator[Step, httpx.Response | None, T]
"""What ends with a ``T``."""


def answered(call: Call) -> Flow[httpx.Response]:
    """Call until there is an answer, ATTEMPTS times at most; each call must bear being sent twice.

    Raises what the service's problem says: InvalidRequestError, NotFoundError, ConflictError, UnauthorizedError …;
    ServiceUnavailableError when nobody answers there.
    """
    for failures in range(1, ATTEMPTS + 1):
        wait = pause(failures)
        try:
            response = yield call
        except httpx.UnsupportedProtocol as error:
            raise ServiceUnavailableError(f"{error} Send an address such as http://127.0.0.1:8000.") from None
        except httpx.TransportError as error:
            problem: EpochdError = _no_answer(error)
        else:
            assert response is not None, "a call is answered"
            if response.is_success:
                return response
            problem = problem_of(response)
            if response.status_code not in RETRYABLE_STATUSES:
                raise problem
            wait = max(wait, _asked_to_wait(response))
        if failures == ATTEMPTS:
            raise problem
        yield Pause(wait)
    raise AssertionError


def _no_answer(error: httpx.TransportError) -> ServiceUnavailableError:
    return ServiceUnavailableError(
        f"{error.request.url} was not answered ({str(error) or type(error).__name__}); is the service running, and is "
        "this its address?"
    )


def _asked_to_wait(response: httpx.Response) -> float:
    asked = response.headers.get("retry-after", "")
    return min(float(asked), MAX_PAUSE_SECONDS) if asked.isdigit() else 0.0


def problem_of(response: httpx.Response) -> EpochdError:
    """Make the error of an answer that is one."""
    try:
        problem = response.json()
    except ValueError:
        problem = None
    if not isinstance(problem, dict) or "detail" not in problem:
        return ServiceUnavailableError(
            f"{response.request.url} answered {response.status_code}, and not as epochd does: is this its address?"
        )
    message, code = str(problem["detail"]), problem.get("code")
    if response.status_code == HTTPStatus.UNPROCESSABLE_ENTITY:
        errors = tuple(
            ParamError(one["param"], one["message"], one["code"]) for one in problem.get("errors", [])
        )
        return InvalidRequestError(message, errors, code=code)
    return _ERRORS.get(response.status_code, EpochdError)(message, code=code)
