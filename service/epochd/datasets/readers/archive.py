"""ZIP archives of strangers: looked through before anything of them is unpacked, and never unpacked to a path."""

import itertools
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import IO, Final

from epochd.datasets.reading import Limits, Source
from epochd.errors import InvalidDatasetError

MAX_ENTRIES: Final = 2_000_000
_MAX_DIRECTORY_BYTES: Final = 200 * 2**20  # a hundred bytes an entry; it is read into memory as a whole
_METHODS: Final = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
_ENCRYPTED: Final = 0x1
_TAIL: Final = 22 + 0xFFFF  # the end record, and the longest comment behind it


class Archive:
    """The files of a ZIP in the order of their paths, each checked; folders are left out.

    Every error names the file within the archive.
    """

    def __init__(self, file: zipfile.ZipFile, limits: Limits) -> None:
        self._zip = file
        self.members = _checked(file.infolist(), limits)

    @contextmanager
    def open(self, member: zipfile.ZipInfo) -> Iterator[IO[bytes]]:
        """Read one file as it is unpacked: never more than the archive says it has."""
        with _corruption_named(member.filename), self._zip.open(member) as stream:
            yield stream

    def read(self, member: zipfile.ZipInfo) -> bytes:
        """Read one file whole; its checksum has been compared."""
        with self.open(member) as stream:
            return stream.read()


@contextmanager
def opened(source: Source, limits: Limits) -> Iterator[Archive]:
    """Open an archive. Raises InvalidDatasetError for one that is damaged, encrypted, too large or unsafe."""
    with _open(source) as file:
        yield Archive(file, limits)


def names(source: Source) -> list[str]:
    """List an archive without looking at its files. Raises InvalidDatasetError for one that is damaged."""
    with _open(source) as file:
        return file.namelist()


def _open(source: Source) -> zipfile.ZipFile:
    _check_directory_size(source)
    try:
        return zipfile.ZipFile(source.path)
    except (zipfile.BadZipFile, ValueError, EOFError, NotImplementedError) as error:
        message = f"{source.name} is not a whole ZIP archive ({error}); was it cut short? Send it again."
        raise InvalidDatasetError(message, "damaged_file", file=source.name) from None


def _check_directory_size(source: Source) -> None:
    # zipfile reads the whole list of files when it opens an archive.
    with source.path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - _TAIL))
        tail = file.read()
        end = tail.rfind(b"PK\x05\x06")
        declared = int.from_bytes(tail[end + 12 : end + 16], "little") if end >= 0 else 0
        if declared == 0xFFFFFFFF:  # noqa: PLR2004 - says: see the ZIP64 record
            wide = tail.rfind(b"PK\x06\x06")
            declared = int.from_bytes(tail[wide + 40 : wide + 48], "little") if wide >= 0 else declared
    if declared > _MAX_DIRECTORY_BYTES:
        raise _too_many_entries(source.name)


def _checked(members: list[zipfile.ZipInfo], limits: Limits) -> list[zipfile.ZipInfo]:
    if len(members) > MAX_ENTRIES:
        raise _too_many_entries(None)
    for member in members:
        _check_path(member)
        _check_kind(member)
    files = sorted((member for member in members if not member.is_dir()), key=lambda member: member.filename)
    for one, next_one in itertools.pairwise(files):
        if one.filename == next_one.filename:
            raise _refused(one, "duplicate_file", "is twice in the archive; keep one of them")
    check_unpacked(sum(member.file_size for member in files), limits)
    return files


def check_unpacked(size: int, limits: Limits, file: str | None = None) -> None:
    """Refuse what would take more than ``limits.unpacked_bytes`` (code ``too_large_unpacked``)."""
    if size > limits.unpacked_bytes:
        message = (
            f"The data would take {size} bytes once unpacked; at most {limits.unpacked_bytes} are accepted. "
            "Send less, or ask the operator to raise max_unpacked_bytes."
        )
        raise InvalidDatasetError(message, "too_large_unpacked", file=file)


def _check_path(member: zipfile.ZipInfo) -> None:
    # Nothing is ever written under these names; an archive that tries is not one to trust.
    path = PurePosixPath(member.filename.replace("\\", "/"))
    drive = len(path.parts[0]) > 1 and path.parts[0][1] == ":" if path.parts else False
    if path.is_absolute() or drive:
        raise _refused(member, "unsafe_path", "has an absolute path; paths must be relative to the archive")
    if ".." in path.parts:
        raise _refused(member, "unsafe_path", "climbs out of the archive; paths must not contain '..'")


def _check_kind(member: zipfile.ZipInfo) -> None:
    mode = stat.S_IFMT(member.external_attr >> 16)
    if mode == stat.S_IFLNK:
        raise _refused(member, "link_in_archive", "is a symbolic link; put the file itself there")
    if mode not in {0, stat.S_IFREG, stat.S_IFDIR}:
        raise _refused(member, "special_file", "is a device or pipe; only files and folders are accepted")
    if member.flag_bits & _ENCRYPTED:
        raise _refused(member, "encrypted_archive", "is encrypted; send an archive without a password")
    if member.compress_type not in _METHODS:
        raise _refused(
            member, "unsupported_compression", "is compressed in an unusual way; use deflate or store"
        )


@contextmanager
def _corruption_named(name: str) -> Iterator[None]:
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        message = f"{name} cannot be unpacked ({error}); the archive is damaged. Send it again."
        raise InvalidDatasetError(message, "damaged_file", file=name) from None


def _refused(member: zipfile.ZipInfo, code: str, text: str) -> InvalidDatasetError:
    return InvalidDatasetError(f"{member.filename} {text}.", code, file=member.filename)


def _too_many_entries(name: str | None) -> InvalidDatasetError:
    message = f"The archive lists more than {MAX_ENTRIES} files; split it, or send arrays as .npz."
    return InvalidDatasetError(message, "too_many_entries", file=name)
