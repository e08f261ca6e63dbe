"""How a runner process hears that it is to leave: the worker, or the machine, shuts down."""

from types import FrameType


class Drain:
    """Whether somebody asked this process to save what it has trained, and to end.

    ``ask`` is a signal handler. A plain flag: a lock, such as an Event's, might be held by the very thread that the
    signal interrupts.
    """

    def __init__(self) -> None:
        self.asked = False

    def ask(self, _signal: int = 0, _frame: FrameType | None = None) -> None:
        """Ask for it; asking again changes nothing."""
        self.asked = True
