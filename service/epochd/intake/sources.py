"""Which addresses data sets may be fetched from, and what goes wrong on the way."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final, Self
from urllib.parse import unquote, urlsplit

from epochd.errors import InvalidDatasetError, PayloadTooLargeError, ServiceUnavailableError

SCHEMES: Final = ("file", "http", "https", "s3", "hf")
_PORTS: Final = {"http": 80, "https": 443}
_LONGEST_NAME: Final = 200


@dataclass(frozen=True, slots=True)
class Address:
    """An address that was taken apart: ``path`` is decoded, and has neither ``.`` nor ``..`` in it."""

    url: str
    scheme: str
    host: str
    path: PurePosixPath
    query: str

    @classmethod
    def parse(cls, url: str) -> Self:
        """Read an address. Raises InvalidDatasetError: ``bad_url``."""
        try:
            parts = urlsplit(url)
            port = parts.port or _PORTS.get(parts.scheme)
        except ValueError as error:
            raise bad_url(f"it cannot be read ({error})") from None
        if parts.scheme not in SCHEMES:
            raise bad_url(f"it must begin with one of {', '.join(f'{scheme}://' for scheme in SCHEMES)}")
        if "@" in parts.netloc:
            raise bad_url(
                "it must not carry a user or password; the operator sets credentials in the environment"
            )
        path = unquote(parts.path)
        if "\\" in path or any(ord(character) < 32 for character in path):  # noqa: PLR2004 - control characters
            raise bad_url("its path must have neither backslashes nor control characters")
        host = (parts.hostname or "") + (f":{port}" if port else "")
        if parts.scheme == "s3":
            host = parts.netloc
        address = cls(url, parts.scheme, host, PurePosixPath("/", path.lstrip("/")), parts.query)
        if {".", ".."} & set(path.split("/")) and parts.scheme != "file":
            raise bad_url("its path must not contain '.' or '..'")
        return address

    @property
    def name(self) -> str:
        """What the file is called: the last part of the path."""
        return self.path.name[-_LONGEST_NAME:] or "data"

    def is_below(self, prefix: "Address") -> bool:
        """Tell whether this is the prefix or below it, part by part: ``/data`` is no prefix of ``/database``."""
        if self.scheme != prefix.scheme or (self.host != prefix.host and not prefix.is_whole_hub):
            return False
        return self.resolved.is_relative_to(prefix.resolved)

    @property
    def is_whole_hub(self) -> bool:
        """Whether this is ``hf://`` alone."""
        return self.scheme == "hf" and not self.host

    @property
    def resolved(self) -> PurePosixPath:
        """The path; that of a file without symbolic links and '..'."""
        return PurePosixPath(os.path.realpath(self.path)) if self.scheme == "file" else self.path


def accepted(url: str, prefixes: Sequence[str]) -> Address:
    """Read an address that is below one of the prefixes. Raises InvalidDatasetError: ``source_not_accepted``.

    What is accepted is not told: it is the operator's, and may name what others must not know of.
    """
    address = Address.parse(url)
    if not prefixes:
        raise _refused("This service fetches nothing; the operator has to name addresses by dataset_sources.")
    if not any(address.is_below(Address.parse(prefix)) for prefix in prefixes):
        raise _refused("The operator has not allowed to fetch from this address (dataset_sources).")
    return address


def destination(folder: Path) -> Path:
    """Where what is fetched is put: never at a name that came from outside."""
    return folder / "content"


def bad_url(why: str) -> InvalidDatasetError:
    """Say what is wrong with an address."""
    return InvalidDatasetError(f"The address is not one to fetch from: {why}.", "bad_url", param="url")


def not_found(address: Address) -> InvalidDatasetError:
    """Say that there is nothing."""
    message = f"There is no file at {shown(address)}; check the address."
    return InvalidDatasetError(message, "source_not_found", param="url")


def denied(address: Address) -> InvalidDatasetError:
    """Say that it may not be read."""
    message = f"This service may not read {shown(address)}; give it access, or upload the file."
    return InvalidDatasetError(message, "source_denied", param="url")


def unreachable(address: Address, why: str) -> ServiceUnavailableError:
    """Say that nobody answered, or not to the end."""
    message = f"{shown(address)} could not be fetched: {why}. Nothing of it was kept; try again."
    return ServiceUnavailableError(message, code="source_unreachable")


def check_size(size: int | None, limit: int) -> None:
    """Refuse what is larger than a file may be."""
    if size is not None and size > limit:
        raise PayloadTooLargeError(
            f"The file is larger than the {limit} bytes that are accepted; send a part of it."
        )


def shown(address: Address) -> str:
    """The address without its query, which may be a signature."""
    return address.url.partition("?")[0]


def _refused(message: str) -> InvalidDatasetError:
    return InvalidDatasetError(message, "source_not_accepted", param="url")
