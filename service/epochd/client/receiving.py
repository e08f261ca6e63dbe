"""A file on its way: written beside its place, checked, and only then put there."""

import hashlib
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import httpx

from epochd.client.calls import problem_of
from epochd.client.events import RETRYABLE_STATUSES, pause
from epochd.contract.job import Artifact
from epochd.errors import InfrastructureError, ServiceUnavailableError

ATTEMPTS: Final = 6


class Receiving:
    """One artifact, through lost connections; does no network's input or output itself.

    For each connection: a request with ``headers()``, ``begin`` with its answer, ``take`` what comes; after a break
    ``broke``. At the end ``put`` checks the digest and moves the file to its place. Within ``with``, which leaves
    nothing half-written.
    """

    def __init__(self, artifact: Artifact, directory: Path) -> None:
        # What a service calls its files is not where they go.
        self.path = directory / Path(artifact.name).name
        self._artifact = artifact
        self._part = self.path.with_name(f".{self.path.name}.part")
        self._failures = 0
        directory.mkdir(parents=True, exist_ok=True)
        self._file = self._part.open("wb")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._file.close()
        self._part.unlink(missing_ok=True)

    def headers(self) -> Mapping[str, str]:
        """What to send: from where on the file is wanted."""
        done = self._file.tell()
        return {"Range": f"bytes={done}-"} if done else {}

    def begin(self, response: httpx.Response) -> None:
        """Look at the answer. Raises what it says when it is none, ServiceUnavailableError when that may pass."""
        if response.status_code in RETRYABLE_STATUSES:
            raise ServiceUnavailableError(f"{response.request.url} answered {response.status_code}")
        if not response.is_success:
            raise problem_of(response)
        if response.status_code != HTTPStatus.PARTIAL_CONTENT:
            self._file.seek(0)
            self._file.truncate()

    def take(self, chunk: bytes) -> None:
        """Write what came."""
        self._file.write(chunk)
        self._failures = 0

    def broke(self, error: Exception) -> float:
        """Seconds to wait before the next connection. Raises ServiceUnavailableError after ATTEMPTS in a row."""
        self._failures += 1
        if self._failures >= ATTEMPTS:
            raise ServiceUnavailableError(
                f"{self._artifact.name} could not be fetched whole: {error}"
            ) from None
        return pause(self._failures)

    def put(self) -> Path:
        """Check what came, and put it in its place. Raises InfrastructureError when it was damaged on the way."""
        self._file.flush()
        with self._part.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != self._artifact.sha256.removeprefix("sha256:"):
            raise InfrastructureError(
                f"{self._artifact.name} was damaged on the way: its digest is {digest}, not {self._artifact.sha256}"
            )
        self._part.replace(self.path)
        return self.path
