import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from epochd.store.blocks import Block, block_of, cut, dump, epochs_of, load

floats = st.floats(width=32, allow_nan=True, allow_infinity=True)


def column(*values):
    return np.array(values, dtype=np.float32)


def test_numbers_are_written_short_and_what_is_not_finite_as_null():
    text = dump(column(0.001, 0.1, 1.0, float("nan"), float("inf"), -float("inf"), 3.4028235e38, 1e-45))
    assert text.startswith(b"[0.001,0.1,1.0,null,null,null,")
    assert len(json.loads(text)) == 8


@given(arrays(np.float32, st.integers(1, 50), elements=floats))
def test_what_is_written_is_read_back_bit_for_bit(values):
    read = load(dump(values).decode())
    assert read.dtype == np.float32
    expected = np.where(np.isfinite(values), values, np.float32(np.nan))
    np.testing.assert_array_equal(read, expected)


@given(arrays(np.float32, st.integers(1, 30), elements=floats), st.data())
def test_a_cut_is_the_inside_of_the_slice(values, data):
    start = data.draw(st.integers(0, len(values) - 1))
    stop = data.draw(st.integers(start + 1, len(values)))
    assert f"[{cut(dump(values).decode(), start, stop)}]".encode() == dump(values[start:stop])


def test_blocks_and_epochs_are_counted_from_the_first_iteration():
    assert [block_of(n) for n in (1, 1024, 1025, 2048, 2049)] == [0, 0, 1, 1, 2]
    assert epochs_of(np.array([1, 23, 24, 46, 47]), 23).tolist() == [1, 1, 2, 2, 3]


def block(number, iterations, **kwargs):
    return Block(number, *[np.zeros(iterations, np.float32)] * 4, **kwargs)


def test_a_block_knows_its_iterations():
    assert (block(0, 1).first, block(0, 1).last) == (1, 1)
    assert (block(2, 1024).first, block(2, 1024).last) == (2049, 3072)
    assert (block(1, 5, first_iteration=1500).first, block(1, 5, first_iteration=1500).last) == (1500, 1504)


def test_a_row_takes_any_float32_array():
    strided = np.zeros((4, 10), np.float32)[:, ::2]
    row = Block(0, *strided).as_row()
    assert row["train_loss"] == "[0.0,0.0,0.0,0.0,0.0]"
    assert (row["iterations"], row["first_iteration"]) == (5, 1)


@pytest.mark.parametrize(
    ("number", "iterations", "first"),
    [(0, 1025, None), (0, 0, None), (1, 2, 1024), (1, 2, 2048), (0, 1, 1025)],
)
def test_columns_that_reach_beyond_their_block_are_refused(number, iterations, first):
    with pytest.raises(ValueError, match="cannot hold"):
        block(number, iterations, first_iteration=first)


def test_columns_of_different_lengths_are_refused():
    one, two = np.zeros(1, np.float32), np.zeros(2, np.float32)
    with pytest.raises(ValueError, match="cannot hold"):
        Block(0, one, two, one, one)
