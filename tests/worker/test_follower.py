"""How a slot follows its process, with a stand-in that does what the test says instead of training."""

import threading

import pytest
from tests.worker.conftest import DIGITS

from epochd.jobs.cancel import cancel
from epochd.jobs.claim import claim
from epochd.worker.slots import Follower, Slot, SlotConfig
from epochd.worker.waker import Waker


class Hanging:
    """A process that never ends by itself: each wait does the next thing of a script instead."""

    def __init__(self, *script):
        self._script = list(script)
        self.waits = 0
        self.killed_after = None

    def wait(self, _timeout):
        self.waits += 1
        assert self._script, "it was not killed"
        self._script.pop(0)()
        return False

    def kill(self):
        self.killed_after = self.waits

    def outcome(self):
        return None


def nothing():
    pass


@pytest.fixture
def config(database_url, data_dir):
    return SlotConfig("worker", database_url, data_dir, 1, 60, 0, "info")


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
