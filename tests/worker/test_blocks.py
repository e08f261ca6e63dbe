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
