"""Keeps one target up to date with all jobs.

Every two seconds the live jobs get what is new; in between, a helping at a time, what has more, and those that ended,
the oldest first. Whatever fails, the position in ``store.mirrors`` says where to go on; and what the target had
already, it is asked when a run is opened.
"""

import logging
import threading
import time
from dataclasses import asdict, dataclass, field, replace

from epochd.errors import (
    DatabaseUnavailableError,
    DuplicateKeyError,
    EpochdError,
    MirrorAwayError,
    MirrorRefusedError,
)
from epochd.mirror import reading, rewinding
from epochd.mirror.reading import Helping, Position
from epochd.mirror.rewinding import Comparison
from epochd.mirror.targets import Run, Target, mirror_key, rewound_key
from epochd.store import jobs, mirrors
from epochd.store.database import Database, Transaction
from epochd.store.jobs import JobRow
from epochd.store.mirrors import MirrorRow

log = logging.getLogger("epochd.mirror")

PACE_SECONDS = 2.0
"""Between two looks for what is new."""
PAUSE_SECONDS = 0.02
"""Between two helpings of what is old: others want the database, too."""
EVERYTHING_SECONDS = 120.0
"""Between two looks at all jobs, however old."""
MAX_DELAY_SECONDS = 30.0
REFUSED_SECONDS = 600.0
"""Before a job is tried again that the target did not take."""
RENEWALS = 8
"""A lease is renewed before anything is sent when this part of it has passed."""
IDLE_SECONDS = 600.0
"""After which a run is closed, to be opened again when there is something new."""


@dataclass(slots=True)
class _Session:
    """A run that is open, and the lease on it, renewed at ``held_at`` at the latest."""

    run: Run
    row: MirrorRow
    held_at: float
    known: dict[str, int] = field(default_factory=dict)
    compared: Comparison | None = None

    def send(self, helping: Helping) -> None:
        """Send what the target does not know, and then what the job is now."""
        new = [one.after(self.known.get(one.key, 0)) for one in helping.series]
        new = [one for one in new if len(one.steps)]
        if new:
            self.run.log(new)
        for one in new:
            self.known[one.key] = int(one.steps[-1])
        self.run.describe(helping.job)


class Follower:
    """Mirrors all jobs to one target, of each at most about so many ``points``."""

    def __init__(
        self, db: Database, target: Target, *, holder: str, lease_seconds: float, points: int
    ) -> None:
        self.stopping = threading.Event()
        self._db = db
        self._target = target
        self._holder = holder
        self._lease_seconds = lease_seconds
        self._points = points
        self._sessions: dict[int, _Session] = {}
        self._unfinished: list[int] = []
        self._backlog: list[int] = []
        self._page_after = 0
        self._live_at = 0.0
        self._refused_until: dict[int, float] = {}
        self._everything_at = 0.0
        self._trouble: str | None = None
        self._delay = 1.0

    def run(self) -> None:
        """Work until ``stopping`` is set; then give the leases back."""
        while not self.stopping.is_set():
            self.stopping.wait(self._round())
        self._leave()

    def _round(self) -> float:
        """Do what is to be done, and say how long to wait; troubles are told once each."""
        try:
            more = self.look() if time.monotonic() >= self._live_at else self._go_on()
        except DatabaseUnavailableError as error:
            return self._later(error.message)
        except MirrorAwayError as error:
            return self._later(f"{error.message}; jobs are mirrored again as soon as that changes")
        except Exception:
            log.exception("%s: unexpected error", self._target.name)
            return self._later(None)
        if self._trouble is not None:
            log.info("%s: jobs are mirrored again", self._target.name)
        self._trouble, self._delay = None, 1.0
        return PAUSE_SECONDS if more else max(0.0, self._live_at - time.monotonic())

    def _later(self, trouble: str | None) -> float:
        if trouble is not None and self._trouble is None:
            log.warning("%s: %s", self._target.name, trouble)
        self._trouble = trouble or self._trouble or ""
        delay, self._delay = self._delay, min(2 * self._delay, MAX_DELAY_SECONDS)
        return delay

    def look(self) -> bool:
        """Send each live job's news, and a helping of an older one; True when there is more."""
        began = time.monotonic()
        with self._db.read() as tx:
            numbers = mirrors.stale(tx, self._target.name, self._holder)
        self._unfinished = [number for number in numbers if self._help(number)]
        more = self._help_old()
        self._close_idle()
        # Not before all went well: after a trouble the next round looks again.
        self._live_at = began + PACE_SECONDS
        return more or bool(self._unfinished)

    def _go_on(self) -> bool:
        """Send another helping of what is not finished, and of an older job; True when there is more."""
        self._unfinished = [number for number in self._unfinished if self._help(number)]
        return self._help_old() or bool(self._unfinished)

    def _help_old(self) -> bool:
        self._find_old()
        if self._backlog and not self._help(self._backlog[0]):
            del self._backlog[0]
        return bool(self._backlog) or time.monotonic() >= self._everything_at

    def _find_old(self) -> None:
        """Find a page of jobs, however old; the next one at once, and after the last the first again in a while."""
        if self._backlog or time.monotonic() < self._everything_at:
            return
        with self._db.read() as tx:
            found = mirrors.stale_after(
                tx, self._target.name, self._holder, self._page_after, limit=mirrors.PAGE
            )
        self._backlog = found
        if len(found) < mirrors.PAGE:
            self._page_after, self._everything_at = 0, time.monotonic() + EVERYTHING_SECONDS
        else:
            self._page_after = found[-1]

    def _help(self, number: int) -> bool:
        """Send a helping of a job; True when there is more of it, now."""
        if self.stopping.is_set() or time.monotonic() < self._refused_until.get(number, 0.0):
            return False
        try:
            session = self._session(number)
            return session is not None and self._serve(session)
        except (DatabaseUnavailableError, MirrorAwayError):
            self._close(number)  # what the target has by now, it is asked when it is back
            raise
        except MirrorRefusedError as error:
            self._refuse(number, error.message)
        except Exception:
            log.exception("%s: unexpected error", self._target.name)
            self._refuse(number, "see above")  # one job must not keep the others from being mirrored
        return False

    def _serve(self, session: _Session) -> bool:
        with self._db.read() as tx:
            job = jobs.by_number(tx, session.row.job_number)
            if job is None or job.restarted_after != session.row.restarted_after:
                self._close(session.row.job_number)
                return job is not None
            found = session.compared = rewinding.compare(tx, job, session.row, session.compared)
            helping = self._helping(tx, job, session.row, send=found.agrees is True)
        if not self._holds(session):
            return False
        if found.agrees is False:
            return self._rewind(session, job, found.attempt)
        session.send(helping)
        row = _moved(session.row, helping)
        if found.agrees:
            row = replace(row, attempt=found.attempt)
        self._store(session, row, ended=helping.complete and job.finished_at is not None)
        return found.more if found.agrees is None else not helping.complete

    def _helping(self, tx: Transaction, job: JobRow, row: MirrorRow, *, send: bool) -> Helping:
        position = Position(row.iteration, row.epoch, row.moment)
        if not send:
            return Helping(job, (), position, complete=False)
        every = reading.every(job, self._points)
        return reading.read(tx, job, position, every=every, rows=self._target.rows)

    def _holds(self, session: _Session) -> bool:
        """Tell whether the lease is ours for as long as it may take to send something; renew it where need be."""
        age = time.monotonic() - session.held_at
        return age < self._lease_seconds / RENEWALS or self._store(session, session.row, ended=False)

    def _rewind(self, session: _Session, job: JobRow, attempt: int) -> bool:
        """Begin a run of what is the job's curve now."""
        old = session.run
        run = self._target.open(job, None, key=rewound_key(job, attempt), replaces=old.name)
        old.give_way(run.name)
        old.close()
        session.run, session.known, session.compared = run, dict(run.known), None
        row = MirrorRow(
            session.row.job_number, self._target.name, run.name, job.restarted_after, attempt=attempt
        )
        return self._store(session, row, ended=False)

    def _store(self, session: _Session, row: MirrorRow, *, ended: bool) -> bool:
        """Note the position and renew the lease; False when somebody else has it by now."""
        asked_at = time.monotonic()
        with self._db.write() as tx:
            kept = mirrors.store(tx, row, self._holder, self._lease_seconds)
            if ended:
                mirrors.release(tx, [row.job_number], row.target, self._holder)
        session.row, session.held_at = row, asked_at
        if ended or not kept:
            self._close(row.job_number)
        return kept

    def _session(self, number: int) -> _Session | None:
        """Give the open run of a job, opening it where need be; None when somebody else sends the job."""
        session = self._sessions.get(number)
        if session is not None and time.monotonic() - session.held_at < self._lease_seconds / RENEWALS:
            return session
        asked_at = time.monotonic()
        taken = self._take(number)
        if taken is None:
            self._close(number)
            return None
        row, was_mine = taken
        if session is not None and was_mine:
            session.row, session.held_at = row, asked_at
            return session
        self._close(number)
        return self._open(row, asked_at)

    def _take(self, number: int) -> tuple[MirrorRow, bool] | None:
        try:
            with self._db.write() as tx:
                return mirrors.take(tx, number, self._target.name, self._holder, self._lease_seconds)
        except DuplicateKeyError:
            return None

    def _open(self, row: MirrorRow, held_at: float) -> _Session | None:
        with self._db.read() as tx:
            job = jobs.by_number(tx, row.job_number)
        if job is None or job.restarted_after != row.restarted_after:
            return None
        run = self._target.open(job, row.run, key=mirror_key(job))
        session = _Session(run, row, held_at, dict(run.known))
        self._sessions[row.job_number] = session
        # From now on it is found by its name.
        if row.run is None and not self._store(session, replace(row, run=run.name), ended=False):
            return None
        return session

    def _refuse(self, number: int, reason: str) -> None:
        log.warning("%s: job number %s is not mirrored: %s", self._target.name, number, reason)
        self._refused_until[number] = time.monotonic() + REFUSED_SECONDS
        self._close(number)

    def _close(self, number: int) -> None:
        session = self._sessions.pop(number, None)
        if session is not None:
            session.run.close()

    def _close_idle(self) -> None:
        limit = time.monotonic() - IDLE_SECONDS
        for number in [number for number, one in self._sessions.items() if one.held_at < limit]:
            self._close(number)

    def _leave(self) -> None:
        numbers = list(self._sessions)
        for number in numbers:
            self._close(number)
        try:
            with self._db.write() as tx:
                mirrors.release(tx, numbers, self._target.name, self._holder)
        except EpochdError as error:
            log.warning("%s: the leases could not be given back: %s", self._target.name, error.message)
        self._target.close()


def _moved(row: MirrorRow, helping: Helping) -> MirrorRow:
    """Give the position after a helping; it has the job's version when that was all of it."""
    version = helping.job.version if helping.complete else row.version
    return replace(row, **asdict(helping.position), version=version)
