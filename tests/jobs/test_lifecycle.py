from typing import get_args

import pytest

from epochd.contract.job import Status
from epochd.jobs.lifecycle import DONE, TRANSITIONS, is_done, move


def test_nothing_follows_a_done_status():
    assert all(not TRANSITIONS[status] for status in DONE)


def test_every_status_but_the_first_can_be_reached():
    reached = set().union(*TRANSITIONS.values())
    assert reached == set(TRANSITIONS)


def test_statuses_are_the_contracts():
    assert set(TRANSITIONS) | {"paused"} == set(get_args(Status))


def test_a_move_is_the_guard_of_an_update():
    assert move("queued", "running") == {"expected": ("queued",), "status": "running"}


@pytest.mark.parametrize("done", sorted(DONE))
def test_no_move_leaves_a_done_status(done):
    with pytest.raises(AssertionError):
        move(done, "queued")


def test_is_done():
    assert [is_done(status) for status in ("queued", "running", "succeeded")] == [False, False, True]
