import json
import math
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epochd.training.exact_sum import ExactSum

LOSSES = st.one_of(
    st.floats(width=32, allow_nan=False, allow_infinity=False),
    st.floats(2**-10, 8, width=32),  # as they usually are: near each other
)
ITERATIONS = st.lists(st.tuples(LOSSES, st.integers(1, 2**20)), min_size=1, max_size=60)
SMALLEST, LARGEST = float(np.finfo(np.float32).smallest_subnormal), float(np.finfo(np.float32).max)


def add(total: ExactSum, iterations) -> None:
    losses, samples = zip(*iterations, strict=True)
    total.add(np.array(losses, dtype=np.float32), np.array(samples, dtype=np.int64))


def exact_mean(iterations) -> float:
    count = sum(samples for _, samples in iterations)
    return float(sum(Fraction(loss) * samples for loss, samples in iterations) / count)


@given(iterations=ITERATIONS, cuts=st.lists(st.integers(0, 60)))
def test_the_mean_is_the_nearest_float_however_blocks_are_cut(iterations, cuts):
    total = ExactSum()
    places = sorted({0, len(iterations), *(cut for cut in cuts if cut < len(iterations))})
    for start, stop in pairwise(places):
        add(total, iterations[start:stop])
    assert total.mean(sum(samples for _, samples in iterations)) == exact_mean(iterations)


@pytest.mark.parametrize("losses", [
    [0.0],
    [0.0, 0.1],
    [-0.0, -2.5],
    [SMALLEST, LARGEST],
    [LARGEST] * 1024,
    [SMALLEST] * 3,
    [1e-8, 1.0, 1e8],
], ids=str)  # fmt: skip
def test_losses_at_the_edges(losses):
    iterations = [(float(np.float32(loss)), 2**20 - 1) for loss in losses]
    total = ExactSum()
    add(total, iterations)
    assert total.mean((2**20 - 1) * len(losses)) == exact_mean(iterations)


def test_a_rounded_sum_would_depend_on_the_blocks():
    """The reason for all this: two losses that are lost beside 1, unless one block adds them up before."""
    small = 2.0**-53
    assert (1 + small) + small != 1 + (small + small)
    means = set()
    for blocks in ([[1.0, small], [small]], [[1.0], [small, small]], [[1.0], [small], [small]]):
        total = ExactSum()
        for block in blocks:
            add(total, [(loss, 3) for loss in block])
        means.add(total.mean(3))
    assert means == {1 + 2 * small}


@given(iterations=ITERATIONS, cut=st.integers(0, 60))
def test_continues_from_its_state_dict(iterations, cut):
    whole, first, second = ExactSum(), ExactSum(), ExactSum()
    add(whole, iterations)
    if iterations[:cut]:
        add(first, iterations[:cut])
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    if iterations[cut:]:
        add(second, iterations[cut:])
    assert second.mean(7) == whole.mean(7)
    assert math.isfinite(second.mean(2**30))
