"""Seconds that go on counting where another process left off. No torch."""

import time


class Stopwatch:
    """A context that counts the seconds spent in it. ``seconds`` may be set before it is entered."""

    def __init__(self) -> None:
        self._counted = 0.0
        self._since: float | None = None

    @property
    def seconds(self) -> float:
        """What has been counted until now."""
        running = 0.0 if self._since is None else time.perf_counter() - self._since
        return self._counted + running

    @seconds.setter
    def seconds(self, counted: float) -> None:
        self._counted = counted

    def __enter__(self) -> None:
        """Count from now on."""
        self._since = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        """Count no longer."""
        self._counted, self._since = self.seconds, None
