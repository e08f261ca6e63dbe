"""Checkpoints on disk: everything that training resumes from, and proof that it is what was written.

A file ``attempt-<n>/iteration-<k>.ckpt`` holds a magic line, the header as one line of JSON, the state as
``torch.save`` writes it, and the SHA-256 of all that. It gets its name when it is complete on disk, and is loaded
only when the digest is right: a file that was torn, cut or altered is found out, and the one before it is used.
"""

import contextlib
import hashlib
import io
import json
import logging
import pickle
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import IO, Any, BinaryIO, Literal, cast

import torch

from epochd.errors import CorruptCheckpointError
from epochd.training import device as devices
from epochd.training import durable

log = logging.getLogger("epochd.training")

CheckpointReason = Literal["epoch", "time", "pause", "shutdown", "cancel"]

MAGIC = b"epochd checkpoint 1\n"
MAX_HEADER_BYTES = 65_536
DIGEST_BYTES = hashlib.sha256().digest_size
CHUNK_BYTES = 1 << 20

_ATTEMPT = re.compile(r"attempt-([0-9]{1,10})")
_FILE = re.compile(r"iteration-([0-9]{1,19})\.ckpt")
_TEMPORARY = re.compile(r"\.iteration-[0-9]+\.ckpt\.[0-9]+\.tmp")


@dataclass(frozen=True, slots=True)
class CheckpointHeader:
    """What is known of a checkpoint without loading it.

    ``attempt`` saved it after ``iteration`` iterations and ``epoch`` completed epochs. ``trained_by`` is the
    attempt that trained that iteration: an earlier one when this attempt has trained none of its own yet.
    ``is_best`` says that it was saved right at the end of the best epoch so far, ``threads`` on how many CPU threads
    it was trained, ``fingerprint`` what determined the training (spec and data). ``saved_at`` is RFC 3339 by the
    worker's clock, ``versions`` those of epochd and torch.
    """

    job_id: str
    attempt: int
    trained_by: int
    epoch: int
    iteration: int
    is_best: bool
    threads: int
    fingerprint: str
    saved_at: str
    reason: CheckpointReason
    versions: dict[str, str]


@dataclass(frozen=True, slots=True)
class SavedCheckpoint:
    """A checkpoint that is on disk; ``bytes`` is the size of the whole file."""

    path: Path
    bytes: int
    header: CheckpointHeader


@dataclass(frozen=True, slots=True)
class FoundCheckpoint:
    """A file that bears a checkpoint's name. Its content is not verified yet.

    Without a readable header ``header`` is None, and ``problem`` says why, in words for people.
    """

    path: Path
    attempt: int
    iteration: int
    header: CheckpointHeader | None
    problem: str | None

    @property
    def name(self) -> str:
        """The file within the job's folder, such as ``attempt-1/iteration-1000.ckpt``."""
        return f"{self.path.parent.name}/{self.path.name}"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the running attempt has come, for ``CheckpointFolder.prune``.

    It resumed from the checkpoint of ``origin``: (iteration, attempt that saved it), (0, 0) when it began at the
    beginning. ``epoch`` and ``iteration`` are the newest that are recorded.
    """

    attempt: int
    origin: tuple[int, int]
    epoch: int
    iteration: int

    def leads_through(self, found: FoundCheckpoint) -> bool:
        """Whether the running attempt trained through this state, so that a later one may resume from it."""
        return found.attempt == self.attempt or (found.iteration, found.attempt) <= self.origin

    def has_recorded(self, header: CheckpointHeader) -> bool:
        """Whether all that led to such a state is recorded, so that it may be resumed from even now."""
        is_own = header.attempt == self.attempt
        return not is_own or (header.iteration <= self.iteration and header.epoch <= self.epoch)


class CheckpointFolder:
    """All checkpoints of one job: ``root`` is ``<checkpoints_dir>/<job_id>``; each attempt writes its own subfolder.

    So an attempt that was lost, but does not know it yet, overwrites nothing of its successor's; and because it
    touches no later attempt's files, it deletes nothing of them either.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def save(self, header: CheckpointHeader, state: Mapping[str, Any]) -> SavedCheckpoint:
        """Write a checkpoint; once this returns, it survives a crash of the machine.

        One that the same attempt saved at the same iteration is replaced. ``state`` holds what ``torch.load`` takes
        with ``weights_only``. Raises InfrastructureError ``disk_full`` or ``data_dir_not_writable``; then nothing
        has changed.
        """
        folder = self.root / f"attempt-{header.attempt}"
        name = f"iteration-{header.iteration}.ckpt"

        size = 0

        def write(file: BinaryIO) -> None:
            nonlocal size
            size = _write(file, header, state)

        durable.write_files(folder, {name: write}, what="a checkpoint")
        return SavedCheckpoint(folder / name, size, header)

    def found(self, *, before_attempt: int | None = None) -> list[FoundCheckpoint]:
        """List the checkpoints, newest first: by iteration, then by attempt. Reads headers only.

        With ``before_attempt``, only those of earlier attempts.
        """
        paths = [
            _found(path, attempt, int(match[1]))
            for attempt, path in self._files(before_attempt)
            if (match := _FILE.fullmatch(path.name))
        ]
        return sorted(paths, key=lambda one: (one.iteration, one.attempt), reverse=True)

    def load(self, found: FoundCheckpoint) -> dict[str, Any]:
        """Verify a checkpoint and read its state, tensors on the CPU.

        Raises CorruptCheckpointError, saying what is wrong in words for people, and OutOfMemoryError.
        """
        try:
            with found.path.open("rb") as file:
                return _read_state(file)
        except OSError as error:
            raise CorruptCheckpointError(f"the file cannot be read: {error.strerror}") from error

    def delete(self, unwanted: Iterable[FoundCheckpoint]) -> None:
        """Delete checkpoints; what cannot be deleted is logged and stays."""
        for one in unwanted:
            _delete(one.path)

    def prune(self, keep: int, progress: Progress) -> None:
        """Delete what the running attempt has made superfluous; never a file of a later attempt.

        Of the states that it trained through, the ``keep`` newest stay, the newest of a best epoch, and the newest
        that is recorded: while the database is away, none of the newer ones may be resumed from. States of earlier
        attempts that it did not train through are of no use to anybody once it has recorded iterations of its own.
        """
        found = self.found(before_attempt=progress.attempt + 1)
        own = [one for one in found if progress.leads_through(one)]
        kept = _kept(own, keep, progress)
        unwanted = [one for one in own if one not in kept]
        if progress.iteration > progress.origin[0]:
            unwanted += [one for one in found if not progress.leads_through(one)]
        self.delete(unwanted)

    def discard_unfinished(self, *, before_attempt: int) -> None:
        """Delete what attempts before this one left half-written when they were killed."""
        for _, path in self._files(before_attempt):
            if _TEMPORARY.fullmatch(path.name):
                _delete(path)

    def remove(self) -> None:
        """Delete all checkpoints of the job; what cannot be deleted is logged and stays."""
        try:
            shutil.rmtree(self.root)
        except FileNotFoundError:
            pass
        except OSError:
            log.exception("the checkpoints in %s could not be removed", self.root)

    def _files(self, before_attempt: int | None) -> Iterator[tuple[int, Path]]:
        for folder in _entries(self.root):
            match = _ATTEMPT.fullmatch(folder.name)
            if match and (before_attempt is None or int(match[1]) < before_attempt):
                yield from ((int(match[1]), path) for path in _entries(folder))


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError:
        log.exception("the checkpoints in %s could not be listed", folder)
        return []


def _delete(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        log.exception("%s could not be deleted", path)


def _kept(newest_first: list[FoundCheckpoint], keep: int, progress: Progress) -> list[FoundCheckpoint]:
    readable = [(one, one.header) for one in newest_first if one.header is not None]
    best = [one for one, header in readable if header.is_best]
    recorded = [one for one, header in readable if progress.has_recorded(header)]
    return [one for one, _ in readable[:keep]] + best[:1] + recorded[:1]


class _Digesting:
    """Passes what is written on to ``file``, counting and digesting it.

    After the first error of the disk it takes everything and writes nothing: torch's writer turns an error that
    it meets into one of its own, which says nothing of the disk. ``check`` raises it.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.bytes = 0
        self.digest = hashlib.sha256()
        self._file = file
        self._error: OSError | None = None

    def write(self, content: bytes) -> int:
        if self._error is None:
            try:
                self._file.write(content)
            except OSError as error:
                self._error = error
            else:
                self.bytes += len(content)
                self.digest.update(content)
        return len(content)

    def flush(self) -> None:
        """Nothing: the file is flushed when all is written."""

    def check(self) -> None:
        if self._error is not None:
            raise self._error


def _write(file: BinaryIO, header: CheckpointHeader, state: Mapping[str, Any]) -> int:
    out = _Digesting(file)
    out.write(MAGIC)
    out.write(json.dumps(asdict(header), allow_nan=False).encode() + b"\n")
    with _without_crc():
        torch.save(dict(state), cast("IO[bytes]", out))
    out.write(out.digest.digest())
    out.check()
    return out.bytes


@contextlib.contextmanager
def _without_crc() -> Iterator[None]:
    """Leave torch's own checksums out: they take twice as long as the digest, which covers the same bytes."""
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(compute_crc32=False)
    try:
        yield
    finally:
        torch.serialization.set_crc32_options(compute_crc32=before)


def _found(path: Path, attempt: int, iteration: int) -> FoundCheckpoint:
    header, problem = None, None
    try:
        with path.open("rb") as file:
            header = _read_header(file)
    except OSError as error:
        problem = f"the file cannot be read: {error.strerror}"
    except CorruptCheckpointError as error:
        problem = error.message
    if header is not None and (header.attempt, header.iteration) != (attempt, iteration):
        header, problem = None, "the header is that of another checkpoint"
    return FoundCheckpoint(path, attempt, iteration, header, problem)


def _read_header(file: BinaryIO) -> CheckpointHeader:
    if file.readline(len(MAGIC)) != MAGIC:
        raise CorruptCheckpointError("the file is not a checkpoint that this version reads")
    try:
        header = CheckpointHeader(**json.loads(file.readline(MAX_HEADER_BYTES)))
    except (ValueError, TypeError, RecursionError) as error:
        raise CorruptCheckpointError("the header is damaged") from error
    if any(not _is_of_type(getattr(header, field.name), field.type) for field in fields(header)):
        raise CorruptCheckpointError("the header is damaged")
    return header


def _is_of_type(value: object, annotation: Any) -> bool:
    if annotation in {str, int, bool}:
        return type(value) is annotation
    return isinstance(value, str if annotation is CheckpointReason else dict)


def _read_state(file: BinaryIO) -> dict[str, Any]:
    end = _verified_end(file)
    file.seek(0)
    _read_header(file)
    try:
        with devices.memory_errors(), io.BufferedReader(_Part(file, file.tell(), end)) as body:
            state: dict[str, Any] = torch.load(body, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, EOFError, RuntimeError) as error:
        raise CorruptCheckpointError("the state is not one that this version reads") from error
    return state


def _verified_end(file: BinaryIO) -> int:
    """Where the digest begins, once all before it has been verified."""
    end = file.seek(0, io.SEEK_END) - DIGEST_BYTES
    file.seek(0)
    digest = hashlib.sha256()
    for start in range(0, end, CHUNK_BYTES):
        digest.update(file.read(min(CHUNK_BYTES, end - start)))
    if file.read() != digest.digest():
        raise CorruptCheckpointError("the file is torn or damaged: its digest is wrong")
    return end


class _Part(io.RawIOBase):
    """Bytes ``start … end - 1`` of a file as a file of their own."""

    def __init__(self, file: BinaryIO, start: int, end: int) -> None:
        self._file = file
        self._start = start
        self._size = end - start
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = origin + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        self._file.seek(self._start + self._position)
        content = self._file.read(max(0, min(len(buffer), self._size - self._position)))
        buffer[: len(content)] = content
        self._position += len(content)
        return len(content)
