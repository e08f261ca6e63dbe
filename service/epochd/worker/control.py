"""What the database asks of a running attempt: learned by the recorder, read by the training loop."""

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Literal

from epochd.store import attempts
from epochd.store.amendments import AmendmentRow

Leave = Literal["cancel", "pause"]


class Control:
    """Shared by two threads: each value is set by one and read by the other."""

    def __init__(self, cancel_keep: str | None = None) -> None:
        self.lost = False
        self.cancel_keep = cancel_keep
        self.pause = False
        self._amendments: deque[AmendmentRow] = deque()

    @property
    def leave(self) -> Leave | None:
        """Why training should end now; None: it goes on. One that is ``lost`` has nothing to end any more."""
        if self.cancel_keep is not None:
            return "cancel"
        return "pause" if self.pause else None

    def heard(self, control: attempts.Control, amendments: Sequence[AmendmentRow]) -> None:
        """Take in what a write has learned."""
        self.cancel_keep = control.cancel_keep
        self.pause = control.pause
        self._amendments.extend(amendments)

    def new_amendments(self) -> Iterator[AmendmentRow]:
        """Take the amendments that have come since the last time, in their order."""
        while self._amendments:
            yield self._amendments.popleft()
