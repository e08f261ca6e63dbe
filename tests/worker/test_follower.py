"""How a slot follows its process, with a stand-in that does what the test says instead of training."""

import threading
from dataclasses import replace

import pytest
from tests.worker.conftest import DIGITS

from epochd.jobs.cancel import cancel
from epochd.jobs.claim import claim
from epochd.jobs.complete import Outcome
from epochd.store import attempts
from epochd.worker.follower import Follower, SlotConfig
from epochd.worker.slots import Slot
from epochd.worker.waker import Waker


class Hanging:
    """A process that never ends by itself: each wait does the next thing of a script instead."""

    def __init__(self, *script):
        self._script = list(script)
        self.waits = 0
        self.killed_after = None
        self.drained = 0

    def wait(self, _timeout):
        self.waits += 1
        assert self._script, "it was not killed"
        self._script.pop(0)()
        return False

    def is_suspended(self):
        return False

    def drain(self):
        self.drained += 1

    def kill(self):
        self.killed_after = self.waits

    def outcome(self):
        return None


def nothing():
    pass


@pytest.fixture
def config(database_url, folders):
    return SlotConfig("worker", database_url, folders, 1, 60, 0, 7, "info")


@pytest.fixture
def taken(database, queue):
    queue(DIGITS)
    return claim(database, worker="worker", device="cpu", lease_seconds=60)


def test_who_asks_again_may_shorten_the_grace(database, config, taken, job_row):
    def ask(grace_seconds):
        return lambda: cancel(database, taken.job.id, keep="best", grace_seconds=grace_seconds)

    running = Hanging(nothing, ask(3600), nothing, nothing, ask(0))
    conclude = Follower(database, taken.attempt_id, running, threading.Event(), config).follow()
    assert running.killed_after == 5
    assert conclude()
    assert job_row(taken.job).status == "cancelled"


def test_a_worker_that_stops_gives_its_process_time_to_save_and_asks_until_it_hears(
    database, config, taken, job_row
):
    stopping = threading.Event()

    class Leaving(Hanging):
        def wait(self, timeout):
            return super().wait(timeout) or self.drained == 3

        def outcome(self):
            return Outcome("released")

    running = Leaving(nothing, stopping.set, nothing, nothing, nothing)
    conclude = Follower(database, taken.attempt_id, running, stopping, config).follow()
    assert (running.drained, running.killed_after) == (3, None)
    assert conclude()
    assert job_row(taken.job).status == "queued"


def test_a_process_that_takes_too_long_to_save_is_killed_and_its_job_given_back(
    database, config, taken, job_row
):
    stopping = threading.Event()
    stopping.set()
    running = Hanging(nothing)
    late = replace(config, drain_seconds=0.0)
    assert Follower(database, taken.attempt_id, running, stopping, late).follow()()
    assert running.killed_after == 1
    with database.read() as tx:
        assert attempts.get(tx, taken.attempt_id).outcome == "released"
    assert job_row(taken.job).status == "queued"


def test_a_process_that_ends_without_a_word_while_it_is_drained_is_nobodys_failure(database, config, taken):
    stopping = threading.Event()

    class Ending(Hanging):
        def wait(self, timeout):
            return super().wait(timeout) or self.drained == 1

    running = Ending(stopping.set, nothing)
    assert Follower(database, taken.attempt_id, running, stopping, config).follow()()
    with database.read() as tx:
        assert attempts.get(tx, taken.attempt_id).outcome == "released"


def test_a_process_that_can_no_longer_be_followed_does_not_go_on_unseen(database, config, taken):
    def fail():
        raise RuntimeError("a mistake of ours")

    class Executor:
        def launch(self, _order):
            return running

    running = Hanging(fail)
    waker = Waker(database)
    slot = Slot(database, Executor(), config, "cpu", waker)
    with pytest.raises(RuntimeError, match="a mistake of ours"):
        slot._train(taken)
    waker.close()
    assert running.killed_after == 1
