import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from epochd.training.events import IterationsCompleted
from epochd.worker.blocks import BlockBuffer


def run(first, count):
    values = np.arange(first, first + count, dtype=np.float32)
    return IterationsCompleted(1, first, values, values * 2, values * 3, values * 4)


@given(
    st.one_of(st.just(0), st.integers(0, 3000)),
    st.lists(st.tuples(st.integers(1, 3000), st.booleans()), min_size=1, max_size=12),
)
def test_every_iteration_ends_up_in_its_aligned_block(after, runs):
    buffer, stored, first = BlockBuffer(after), {}, after + 1
    for count, commit in runs:
        buffer.add(run(first, count))
        first += count
        if commit:
            stored |= {block.number: block for block in buffer.unwritten()}
            buffer.written()
    stored |= {block.number: block for block in buffer.unwritten()}
    blocks = [stored[number] for number in sorted(stored)]
    assert sorted(stored) == list(range(after // 1024, (first - 2) // 1024 + 1))
    assert np.array_equal(
        np.concatenate([block.train_loss for block in blocks]), np.arange(after + 1, first, dtype=np.float32)
    )
    assert blocks[0].first == after + 1
    assert all(block.first == block.number * 1024 + 1 for block in blocks[1:])
    assert all(block.last == (block.number + 1) * 1024 for block in blocks[:-1])


def test_what_is_committed_is_not_written_again_but_for_the_growing_block():
    buffer = BlockBuffer()
    buffer.add(run(1, 2500))
    assert [block.number for block in buffer.unwritten()] == [0, 1, 2]
    buffer.written()
    assert [block.number for block in buffer.unwritten()] == [2]
    buffer.add(run(2501, 1))
    assert [len(block.gradient_norm) for block in buffer.unwritten()] == [2501 - 2048]


def test_a_full_block_is_not_kept():
    buffer = BlockBuffer()
    buffer.add(run(1, 1024))
    buffer.written()
    assert buffer.unwritten() == []


def rows_of(buffer):
    return [(row.level, row.part, row.buckets.tobytes()) for row in buffer.unwritten_levels()]


@given(
    st.one_of(st.just(0), st.integers(0, 9000)),
    st.lists(st.tuples(st.integers(1, 9000), st.booleans()), min_size=1, max_size=8),
)
def test_rows_of_levels_are_the_same_however_iterations_come(after, runs):
    buffer, written, first = BlockBuffer(after), [], after + 1
    for count, commit in runs:
        buffer.add(run(first, count))
        first += count
        if commit:
            written += rows_of(buffer)
            buffer.written()
    at_once = BlockBuffer(after)
    at_once.add(run(after + 1, first - after - 1))
    assert written + rows_of(buffer) == rows_of(at_once)
    parts = [part for level, part, _ in rows_of(at_once) if level == 0]
    assert parts == list(range(-(-after // 4096), (first - 1) // 4096))


def test_a_row_of_a_level_is_written_until_it_is_committed_and_never_again():
    buffer = BlockBuffer()
    buffer.add(run(1, 4095))
    assert buffer.unwritten_levels() == []
    buffer.add(run(4096, 1))
    for _ in range(2):  # the second time after a write that failed
        assert [(row.level, row.part) for row in buffer.unwritten_levels()] == [(0, 0)]
    offered = buffer.unwritten_levels()
    buffer.written()
    assert len(offered) == 1
    assert buffer.unwritten_levels() == []
    buffer.add(run(4097, 4096))
    assert [(row.level, row.part) for row in buffer.unwritten_levels()] == [(0, 1)]


def test_what_is_written_with_a_block_holds_the_same_iterations():
    buffer, blocks, rows = BlockBuffer(), {}, {}
    for first in range(1, 20_000, 700):
        buffer.add(run(first, 700))
        blocks |= {block.number: block.last for block in buffer.unwritten()}
        rows |= {(row.level, row.part): None for row in buffer.unwritten_levels()}
        last = max(blocks.values())
        assert {part for level, part in rows if level == 0} == set(range(last // 4096))
        assert {part for level, part in rows if level == 1} == set(range(last // 16_384))
        buffer.written()
