"""Hearing of commits, one listener a process: what pollers, streams and long-polls wait on."""

import selectors
import socket
import sqlite3
import threading
import time
from collections.abc import Callable
from typing import Protocol

import psycopg

from epochd.store.database import Database

SQLITE_POLL_SECONDS = 0.025
RECONNECT_SECONDS = 0.5


class ChangeFeed:
    """Tells when anybody, in whatever process, has committed something to the database.

    It keeps one connection of its own. ``wait`` is for one thread; ``close`` may be called from any other and
    ends a wait at once. SQLite has to be asked, which is done every ``sqlite_poll_seconds``: a commit is heard of
    so much later, and asking costs some 20 µs.
    """

    def __init__(self, db: Database, *, sqlite_poll_seconds: float = SQLITE_POLL_SECONDS) -> None:
        self._db = db
        self._poll_seconds = sqlite_poll_seconds
        self._closed = threading.Event()
        self._waiting = threading.Lock()
        # Written to by close(), so that a thread that waits on sockets wakes.
        self._wake, self._woken = socket.socketpair()
        self._listener: _Listener | None = None

    def wait(self, timeout: float) -> bool:
        """Wait at most ``timeout`` seconds for a commit; False when there was none, or after ``close``.

        What was committed since the last call counts, so nothing is missed between two calls. The first call
        returns True at once, and so does the first one after the database was away: something may have been
        missed then. While the database is away it never raises: it sleeps, returns False, and goes on trying
        to connect.
        """
        deadline = time.monotonic() + timeout
        if not self._waiting.acquire(timeout=max(timeout, 0)):
            return False
        try:
            return self._wait(deadline)
        finally:
            self._waiting.release()

    def close(self) -> None:
        """End a wait that is under way, and give the connection back."""
        self._closed.set()
        self._wake.close()
        with self._waiting:
            self._disconnect()
            self._woken.close()

    def _wait(self, deadline: float) -> bool:
        while not self._closed.is_set():
            try:
                if self._listener is None:
                    self._listener = self._connect()
                    return True
                return self._listener.wait(deadline) and not self._closed.is_set()
            except (psycopg.Error, sqlite3.Error, OSError):
                self._disconnect()
            left = deadline - time.monotonic()
            if left <= 0:
                break
            self._closed.wait(min(RECONNECT_SECONDS, left))
        return False

    def _connect(self) -> "_Listener":
        if self._db.dialect == "sqlite":
            return _SqliteListener(self._db.dedicated_connection(), self._closed.wait, self._poll_seconds)
        return _PostgresListener(self._db.dedicated_connection(), self._woken)

    def _disconnect(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None


class _Listener(Protocol):
    def wait(self, deadline: float) -> bool: ...

    def close(self) -> None: ...


class _SqliteListener:
    """``PRAGMA data_version`` changes when another connection commits; nothing tells of that, so poll."""

    def __init__(
        self, connection: sqlite3.Connection, sleep: Callable[[float], bool], poll_seconds: float
    ) -> None:
        self._sleep = sleep
        self._poll_seconds = poll_seconds
        self._connection = connection
        self._version = self._read()

    def wait(self, deadline: float) -> bool:
        while True:
            version = self._read()
            if version != self._version:
                self._version = version
                return True
            left = deadline - time.monotonic()
            if left <= 0 or self._sleep(min(self._poll_seconds, left)):
                return False

    def close(self) -> None:
        self._connection.close()

    def _read(self) -> int:
        return int(self._connection.execute("PRAGMA data_version").fetchone()[0])


class _PostgresListener:
    """``LISTEN`` on a connection of its own; ``Database.write()`` notifies."""

    def __init__(self, connection: psycopg.Connection, woken: socket.socket) -> None:
        self._connection = connection
        self._connection.autocommit = True
        self._connection.execute("LISTEN epochd")
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._connection.fileno(), selectors.EVENT_READ)
        self._selector.register(woken, selectors.EVENT_READ)

    def wait(self, deadline: float) -> bool:
        while not self._heard():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            ready = self._selector.select(left)
            if any(key.fileobj != self._connection.fileno() for key, _ in ready):
                return False
        return True

    def close(self) -> None:
        self._selector.close()
        self._connection.close()

    def _heard(self) -> bool:
        return len(list(self._connection.notifies(timeout=0))) > 0
