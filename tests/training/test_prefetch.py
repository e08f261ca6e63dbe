import threading
from contextlib import closing
from itertools import count

import pytest

from epochd.training.prefetch import AHEAD, prefetched

SOON = 30
"""Seconds after which a test fails rather than waits."""


def prefetching() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "prefetch"]


def test_all_items_come_in_their_order():
    assert list(prefetched(number for number in range(100))) == list(range(100))
    assert list(prefetched(number for number in ())) == []
    assert prefetching() == []


def test_the_next_item_is_made_while_one_is_in_use():
    second_begun = threading.Event()

    def items():
        yield 1
        second_begun.set()
        yield 2

    with closing(prefetched(items())) as made:
        assert next(made) == 1
        assert second_begun.wait(SOON)
        assert next(made) == 2


@pytest.mark.parametrize("ahead", [1, AHEAD, 5])
def test_no_more_are_made_than_may_wait(ahead):
    asked, in_front = 0, []

    def items():
        for number in range(50):
            in_front.append(number + 1 - asked)
            yield number

    with closing(prefetched(items(), ahead)) as made:
        for asked in range(1, 51):  # noqa: B007 - the other thread reads it
            next(made)
    assert len(in_front) == 50
    assert max(in_front) <= ahead


def test_an_error_comes_after_the_items_before_it():
    def items():
        yield 1
        yield 2
        raise OSError("the disk is gone")

    made = prefetched(items())
    assert [next(made), next(made)] == [1, 2]
    with pytest.raises(OSError, match="the disk is gone"):
        next(made)
    assert prefetching() == []
    assert list(made) == []


@pytest.mark.parametrize("taken", [1, 2, 7])
def test_closing_ends_the_thread_and_closes_what_it_reads(taken):
    closed_on = []

    def items():
        try:
            yield from count()
        finally:
            closed_on.append(threading.current_thread().name)

    with closing(prefetched(items())) as made:
        for _ in range(taken):
            next(made)
        assert len(prefetching()) == 1
    assert prefetching() == []
    assert closed_on == ["prefetch"]


def test_closing_waits_for_the_item_that_is_being_made():
    begun, go_on, finished = threading.Event(), threading.Event(), threading.Event()

    def items():
        yield 1
        begun.set()
        assert go_on.wait(SOON)
        finished.set()
        yield 2

    made = prefetched(items())
    next(made)
    assert begun.wait(SOON)
    threading.Timer(0.05, go_on.set).start()
    made.close()
    assert finished.is_set()
    assert prefetching() == []


def test_an_error_that_nobody_waits_for_ends_the_thread_all_the_same():
    begun = threading.Event()

    def items():
        yield 1
        begun.set()
        raise OSError("too late")

    made = prefetched(items())
    next(made)
    assert begun.wait(SOON)
    made.close()
    assert prefetching() == []


def test_nothing_is_made_before_the_first_is_asked_for():
    begun = []

    def items():
        begun.append(1)
        yield 1

    made = prefetched(items())
    made.close()
    assert begun == []
    assert prefetching() == []
