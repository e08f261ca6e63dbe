"""A database server that is away must fail requests, not hang them: it may be frozen, or behind a cut cable."""

import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import psycopg
from psycopg.waiting import Ready
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

T = TypeVar("T")

PING_SECONDS: Final = 3.0
"""How long the first sign of life of a connection from the pool may take."""
PROBE_PATIENCE_SECONDS: Final = 0.5
"""How long others wait for the one who tries whether the database is back."""


class SilentServerError(psycopg.OperationalError):
    """The server holds the connection open, but says nothing."""


class TimedConnection(psycopg.Connection[Any]):
    """A connection that is closed when the server says nothing for ``silence_seconds`` during a statement.

    The kernel of a machine whose server is frozen answers for it, so neither keep-alives nor ``tcp_user_timeout``
    notice; and no time limit that the server keeps, such as ``statement_timeout``, can help.
    """

    silence_seconds: float | None = None

    def wait(self, gen: Generator[Any, Any, T], *args: Any, **kwargs: Any) -> T:
        """Run one exchange with the server.

        Raises:
            SilentServerError: the connection is closed then; whether the statement was carried out is not known.

        """
        if self.silence_seconds is None:
            return super().wait(gen, *args, **kwargs)
        try:
            return super().wait(_within(gen, self.silence_seconds), *args, **kwargs)
        except SilentServerError:
            self.pgconn.finish()
            raise


def _within(exchange: Generator[Any, Any, T], silence_seconds: float) -> Generator[Any, Any, T]:
    """Pass an exchange on; ten times a second psycopg tells it that nothing (``Ready.NONE``) has come."""
    deadline = time.monotonic() + silence_seconds
    try:
        ready = yield next(exchange)
        while ready != Ready.NONE or time.monotonic() < deadline:
            if ready != Ready.NONE:
                deadline = time.monotonic() + silence_seconds
            ready = yield exchange.send(ready)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]  # a generator's value is not typed
    raise SilentServerError(f"no answer within {silence_seconds:g} s")


class StillAwayError(Exception):
    """The database was away a moment ago, and somebody is trying whether it is back."""


class Availability:
    """Lets one thread at a time try to connect while the database is away; the others are told at once.

    Otherwise each of them would wait for a time-out of its own, and requests that come faster than threads are
    through with waiting would queue up for minutes.
    """

    def __init__(self) -> None:
        self._is_away = False
        self._probing = threading.Lock()

    def lost(self) -> None:
        """Note that a connection broke: whoever comes next tries alone."""
        self._is_away = True

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Try to connect in the block.

        Raises:
            StillAwayError: somebody else is trying, and does not succeed.

        """
        probing = self._is_away and self._begin_probe()
        try:
            yield
        except PoolTimeoutError:  # all connections are in use, so the database need not be away
            raise
        except SQLAlchemyError:
            self._is_away = True
            raise
        else:
            self._is_away = False
        finally:
            if probing:
                self._probing.release()

    def _begin_probe(self) -> bool:
        """Wait for one's turn; False when the database is back by then, so that no probe is needed."""
        if not self._probing.acquire(timeout=PROBE_PATIENCE_SECONDS):
            raise StillAwayError
        still_away = self._is_away
        if not still_away:
            self._probing.release()
        return still_away
