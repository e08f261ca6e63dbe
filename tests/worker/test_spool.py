import logging
import os
import resource
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epochd.training.events import IterationsCompleted
from epochd.worker.recorder import PORTION_BYTES, PORTION_NOTES
from epochd.worker.spool import Note, Spool


@dataclass(frozen=True)
class Numbered:
    number: int


def note(number):
    return Note(float(number), Numbered(number))


def numbers(notes):
    return [one.event.number for one in notes]


def drain(spool):
    found = []
    while taken := spool.take(3, 10**9):
        found += numbers(taken)
    return found


@given(
    st.lists(st.one_of(st.just("append"), st.integers(1, 7)), max_size=200),
    st.integers(1, 10),
    st.integers(0, 5),
)
def test_notes_come_back_once_and_in_their_order(tmp_path_factory, actions, max_notes, head):
    spool = Spool(tmp_path_factory.getbasetemp() / "spool", max_notes=max_notes)
    came, appended = [], 0
    for action in ["append"] * head + actions:
        if action == "append":
            spool.append(note(appended))
            appended += 1
        else:
            came += numbers(spool.take(action, 10**9))
        assert len(spool) == appended - len(came)
    assert came + drain(spool) == list(range(appended))
    spool.close()


def test_what_exceeds_the_bounds_is_on_disk_in_a_file_without_a_name(tmp_path):
    spool = Spool(tmp_path / "spool", max_notes=2)
    for number in range(5):
        spool.append(note(number))
    assert (len(spool), spool.notes_on_disk) == (5, 3)
    assert list((tmp_path / "spool").iterdir()) == []
    assert drain(spool) == [0, 1, 2, 3, 4]
    assert os.fstat(spool._file.fileno()).st_size == 0
    spool.close()


def test_arrays_count_and_come_back_as_they_were(tmp_path):
    columns = [np.arange(1000, dtype=np.float32) + index for index in range(4)]
    spool = Spool(tmp_path, max_bytes=20_000)
    for first in (1, 1001):
        spool.append(Note(0.0, IterationsCompleted(1, first, *columns)))
    assert spool.notes_on_disk == 1
    [one] = spool.take(10, 1)
    [other] = spool.take(10, 1)
    assert (one.event.first_iteration, other.event.first_iteration) == (1, 1001)
    assert np.array_equal(other.event.samples_per_second, columns[3])
    assert not spool.take(10, 1)
    spool.close()


def test_a_portion_stays_within_its_bytes_but_is_never_empty(tmp_path):
    spool = Spool(tmp_path)
    for number in range(4):
        spool.append(note(number))
    assert numbers(spool.take(10, 2 * note(0).bytes)) == [0, 1]
    assert numbers(spool.take(10, 0)) == [2]


@pytest.fixture
def file_limit():
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_is_full_keeps_notes_in_memory_and_says_so_once(tmp_path, file_limit, caplog):
    spool = Spool(tmp_path, max_notes=1)
    for number in range(3):
        spool.append(note(number))
    # Python ignores SIGXFSZ: a write beyond the limit stops short, then fails, as on a full disk.
    file_limit(os.fstat(spool._file.fileno()).st_size + 20)
    with caplog.at_level(logging.WARNING):
        for number in range(3, 6):
            spool.append(note(number))
    file_limit(resource.RLIM_INFINITY)
    assert [record.message for record in caplog.records] == [
        "the spool cannot be written; metrics wait in memory: File too large"
    ]
    assert (len(spool), spool.notes_on_disk) == (6, 2)
    spool.append(note(6))
    assert drain(spool) == list(range(7))
    for number in range(3):
        spool.append(note(number))
    assert spool.notes_on_disk == 2, "what is written after an outage goes to disk again"
    assert drain(spool) == [0, 1, 2]
    spool.close()


def test_a_folder_that_cannot_be_made_keeps_notes_in_memory(tmp_path):
    (tmp_path / "file").touch()
    spool = Spool(tmp_path / "file" / "spool", max_notes=1)
    for number in range(5):
        spool.append(note(number))
    assert drain(spool) == [0, 1, 2, 3, 4]


def test_bounds_are_exceeded_by_what_a_portion_would_leave(tmp_path):
    spool = Spool(tmp_path / "spool", max_notes=2)
    for number in range(3):
        spool.append(note(number))
    size = note(0).bytes
    assert not spool.exceeds(3, 3 * size)
    assert spool.exceeds(2, 3 * size)
    assert spool.exceeds(3, 3 * size - 1)
    assert spool.notes_on_disk == 1, "wherever they are"
    spool.take(3, 10**9)
    assert not spool.exceeds(0, 0)
    spool.close()


def test_a_portion_holds_as_many_notes_of_short_epochs_as_it_may(tmp_path):
    spool = Spool(tmp_path / "spool")
    values = np.zeros(23, np.float32)
    for number in range(PORTION_NOTES + 1):
        spool.append(Note(0.0, IterationsCompleted(1, 23 * number + 1, values, values, values, values)))
    assert spool.exceeds(PORTION_NOTES, PORTION_BYTES)
    assert len(spool.take(PORTION_NOTES, PORTION_BYTES)) == PORTION_NOTES
    assert not spool.exceeds(PORTION_NOTES, PORTION_BYTES)
