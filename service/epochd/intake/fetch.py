"""Brings a data set that lies somewhere else: a file, a web server's, an object store's, or the hub's."""

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final
from urllib.parse import urljoin

import httpx
import obstore
from obstore.exceptions import BaseError, NotFoundError, PermissionDeniedError, UnauthenticatedError
from obstore.store import S3Store

from epochd.datasets.reading import Source
from epochd.intake import sources
from epochd.intake.hub import fetch_hub
from epochd.intake.sources import Address

_BYTES_AT_ONCE: Final = 2**20
_REDIRECTS: Final = 5
_TIMEOUT: Final = httpx.Timeout(30.0, connect=10.0)
_OK: Final = 200
_ABSENT: Final = frozenset({404, 410})
_DENIED: Final = frozenset({401, 403})


def fetch(url: str, accepted: Sequence[str], folder: Path, max_bytes: int) -> Source:
    """Bring what lies at an address into ``folder``, which is there and empty, as one file.

    ``accepted`` are the prefixes of addresses that the operator allows; where a server redirects to is checked against
    them, too. Raises InvalidDatasetError (``bad_url``, ``source_not_accepted``, ``source_not_found``, …),
    PayloadTooLargeError as soon as more than ``max_bytes`` come, and ServiceUnavailableError (``source_unreachable``)
    for a server that does not answer, or not to the end.
    """
    address = sources.accepted(url, accepted)
    if address.scheme == "hf":
        return fetch_hub(address, folder, max_bytes)
    target = sources.destination(folder)
    opened = {"file": _file, "s3": _object}.get(address.scheme)
    with opened(address, max_bytes) if opened else _page(address, accepted, max_bytes) as parts:
        _write(parts, target, max_bytes)
    return Source(target, address.name)


def _write(parts: Iterable[bytes], target: Path, max_bytes: int) -> None:
    size = 0
    with target.open("xb") as file:
        for part in parts:
            size += len(part)
            sources.check_size(size, max_bytes)
            file.write(part)


@contextmanager
def _file(address: Address, max_bytes: int) -> Iterator[Iterable[bytes]]:
    try:
        # Links were resolved before the prefix was checked: one that was put there since is not followed. Opening
        # a pipe must not wait for a writer.
        handle = os.open(address.resolved, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except PermissionError:
        raise sources.denied(address) from None
    except OSError:
        raise sources.not_found(address) from None
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode):
        os.close(handle)
        raise sources.bad_url(f"{sources.shown(address)} is a folder or a device; name one file")
    with os.fdopen(handle, "rb") as file:
        sources.check_size(found.st_size, max_bytes)
        yield _parts(file)


def _parts(file: BinaryIO) -> Iterator[bytes]:
    while part := file.read(_BYTES_AT_ONCE):
        yield part


@contextmanager
def _page(address: Address, accepted: Sequence[str], max_bytes: int) -> Iterator[Iterable[bytes]]:
    first = address
    try:
        with httpx.Client(timeout=_TIMEOUT, headers={"Accept-Encoding": "identity"}) as client:
            for _ in range(_REDIRECTS + 1):
                with client.stream("GET", address.url) as response:
                    if not response.has_redirect_location:
                        _check(response, address, max_bytes)
                        # As it comes: unpacking here would hide how much it becomes.
                        yield response.iter_raw(_BYTES_AT_ONCE)
                        return
                    address = sources.accepted(urljoin(address.url, response.headers["location"]), accepted)
                    if address.scheme not in {"http", "https"}:
                        raise sources.bad_url("it redirects to what is no web address")
    except httpx.InvalidURL as error:
        raise sources.bad_url(f"it cannot be read ({error})") from None
    except httpx.HTTPError as error:
        raise sources.unreachable(first, str(error) or type(error).__name__) from None
    raise sources.bad_url(f"it redirects more than {_REDIRECTS} times")


def _check(response: httpx.Response, address: Address, max_bytes: int) -> None:
    if response.status_code in _ABSENT:
        raise sources.not_found(address)
    if response.status_code in _DENIED:
        raise sources.denied(address)
    if response.status_code != _OK:
        raise sources.unreachable(address, f"the server answered {response.status_code}")
    length = response.headers.get("content-length", "")
    sources.check_size(int(length) if length.isdecimal() else None, max_bytes)


@contextmanager
def _object(address: Address, max_bytes: int) -> Iterator[Iterable[bytes]]:
    # Credentials, region and endpoint are those of the environment. What the library says is not repeated: answers of
    # object stores name keys.
    key = str(address.path).lstrip("/")
    if not key or not address.host:
        raise sources.bad_url("it must name a bucket and an object: s3://bucket/path/file.parquet")
    try:
        found = obstore.get(_bucket(address.host), key)
        sources.check_size(found.meta["size"], max_bytes)
        yield (bytes(part) for part in found.stream(_BYTES_AT_ONCE))
    except (NotFoundError, FileNotFoundError):
        raise sources.not_found(address) from None
    except (PermissionDeniedError, UnauthenticatedError, PermissionError):
        raise sources.denied(address) from None
    except BaseError as error:
        raise sources.unreachable(address, f"the object store failed ({type(error).__name__})") from None


def _bucket(name: str) -> S3Store:
    endpoint = os.environ.get("AWS_ENDPOINT_URL", os.environ.get("AWS_ENDPOINT", ""))
    return S3Store(
        name,
        client_options={
            "allow_http": endpoint.startswith("http://"),
            "connect_timeout": "10s",
            "timeout": "3600s",
        },
        retry_config={"max_retries": 3},
    )
