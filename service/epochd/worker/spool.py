"""What the engine yields while the database is away: a queue that takes little memory, however long that lasts.

The oldest notes stay in memory. What exceeds the bounds goes to a temporary file, in order, and comes back in
portions. The file has no name: only this process can read it, and the system frees it when the process is gone.
"""

import logging
import os
import pickle
import tempfile
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from epochd.contract.metrics import ITERATION_FIELDS
from epochd.training.events import IterationsCompleted

log = logging.getLogger("epochd.runner")

MAX_NOTES = 4000
MAX_BYTES = 64 * 2**20
OVERHEAD_BYTES = 2048
"""What a note takes beside its arrays, roughly: an epoch with its metrics, its states and their texts."""
LENGTH_BYTES = 8


class Note:
    """Something that is to be recorded, and when it came, by the monotonic clock; ``bytes`` is its size, roughly."""

    # No dataclass, which takes longer to make: training makes thousands a second.
    __slots__ = ("at", "bytes", "event")

    def __init__(self, at: float, event: Any) -> None:
        self.at = at
        self.event = event
        arrays = (
            len(ITERATION_FIELDS) * event.train_loss.nbytes if isinstance(event, IterationsCompleted) else 0
        )
        self.bytes = OVERHEAD_BYTES + arrays


class Spool:
    """A first-in, first-out queue of notes, of which at most ``max_notes`` and ``max_bytes`` are in memory.

    Not safe for threads by itself: who shares it holds a lock. The file lies in ``folder``, which is made when it is
    first needed. While it cannot be written, notes stay in memory: to lose them would be worse.
    """

    def __init__(self, folder: Path, *, max_notes: int = MAX_NOTES, max_bytes: int = MAX_BYTES) -> None:
        self._folder = folder
        self._max_notes = max_notes
        self._max_bytes = max_bytes
        self._head: deque[Note] = deque()
        self._head_bytes = 0
        self._bytes = 0  # of all notes, wherever they are
        self._file: IO[bytes] | None = None
        self._read_to = self._written_to = 0
        self._in_file = 0
        # Newer than what the file holds: used only while that cannot be written.
        self._tail: deque[Note] = deque()

    def __len__(self) -> int:
        return len(self._head) + self._in_file + len(self._tail)

    @property
    def notes_on_disk(self) -> int:
        """How many notes the file holds."""
        return self._in_file

    def append(self, note: Note) -> None:
        """Add the newest note."""
        self._bytes += note.bytes
        if not self._in_file and not self._tail and self._fits(note):
            self._push(note)
        elif self._tail or not self._write(note):
            self._tail.append(note)

    def take(self, max_notes: int, max_bytes: int) -> list[Note]:
        """Take the oldest notes: one at least, if there is any, and then as many as stay within both bounds."""
        taken: list[Note] = []
        left = max_bytes
        while len(taken) < max_notes and (note := self._oldest()) is not None:
            if taken and note.bytes > left:
                break
            self._head.popleft()
            self._head_bytes -= note.bytes
            self._bytes -= note.bytes
            left -= note.bytes
            taken.append(note)
        return taken

    def exceeds(self, max_notes: int, max_bytes: int) -> bool:
        """Tell whether ``take`` with these bounds would leave something for sure."""
        return self._bytes > max_bytes or len(self) > max_notes

    def close(self) -> None:
        """Let go of the file, and of what is in it."""
        if self._file is not None:
            self._file.close()

    def _fits(self, note: Note) -> bool:
        return len(self._head) < self._max_notes and self._head_bytes + note.bytes <= self._max_bytes

    def _push(self, note: Note) -> None:
        self._head.append(note)
        self._head_bytes += note.bytes

    def _oldest(self) -> Note | None:
        if not self._head and self._in_file:
            self._push(self._read())
        if not self._head:
            while self._tail:
                self._push(self._tail.popleft())
        return self._head[0] if self._head else None

    def _write(self, note: Note) -> bool:
        data = pickle.dumps(note, protocol=pickle.HIGHEST_PROTOCOL)
        try:
            self._write_all(len(data).to_bytes(LENGTH_BYTES) + data)
        except OSError as error:
            # Said once an outage: what follows goes to the tail untried.
            log.warning("the spool cannot be written; metrics wait in memory: %s", error.strerror)
            return False
        self._in_file += 1
        return True

    def _write_all(self, data: bytes) -> None:
        if self._file is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._file = tempfile.TemporaryFile(buffering=0, dir=self._folder)  # noqa: SIM115 - kept until the end
        at, left = self._written_to, memoryview(data)
        while left:
            written = os.pwrite(self._file.fileno(), left, at)
            at, left = at + written, left[written:]
        # Only now does it count: what a full disk cut off is overwritten by the next note.
        self._written_to = at

    def _read(self) -> Note:
        length = int.from_bytes(self._read_exactly(LENGTH_BYTES))
        note: Note = pickle.loads(self._read_exactly(length))  # noqa: S301 - written by this very process
        self._in_file -= 1
        if not self._in_file:
            self._start_over()
        return note

    def _read_exactly(self, count: int) -> bytes:
        assert self._file is not None, "what is read was written"
        data = b""
        while len(data) < count:
            more = os.pread(self._file.fileno(), count - len(data), self._read_to)
            assert more, "the file is as long as what was written to it"
            data += more
            self._read_to += len(more)
        return data

    def _start_over(self) -> None:
        assert self._file is not None, "what was read was written"
        self._read_to = self._written_to = 0
        with suppress(OSError):  # then the next outage overwrites what is left
            self._file.truncate(0)
