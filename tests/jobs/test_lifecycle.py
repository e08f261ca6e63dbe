from typing import get_args

import pytest

from epochd.contract.job import Status
from epochd.jobs.lifecycle import DONE, TRANSITIONS, is_done, move


def test_only_a_retry_follows_a_done_status():
    assert {status: TRANSITIONS[status] for status in DONE} == {
        "succeeded": frozenset(),
        "failed": {"queued"},
        "cancelled": {"queued"},
    }


def test_every_status_but_the_first_can_be_reached():
    reached = set().union(*TRANSITIONS.values())
    assert reached == set(TRANSITIONS)


def test_statuses_are_the_contracts():
    assert set(TRANSITIONS) == set(get_args(Status))


def test_a_move_is_the_guard_of_an_update():
    assert move("queued", "running") == {"expected": ("queued",), "status": "running"}


@pytest.mark.parametrize(
    ("source", "target"), [("succeeded", "queued"), ("failed", "running"), ("paused", "running")]
)
def test_no_move_that_the_table_does_not_have(source, target):
    with pytest.raises(AssertionError):
        move(source, target)


def test_is_done():
    statuses = ("queued", "running", "paused", "succeeded", "failed", "cancelled")
    assert [is_done(status) for status in statuses] == [False, False, False, True, True, True]
