from itertools import chain

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from epochd.training import data as data_module
from epochd.training.data import (
    CHUNK_BYTES,
    DeviceSamples,
    MiniBatches,
    Samples,
    epoch_permutation,
    samples_per_chunk,
    split_indices,
)
from epochd.training.plan import split_sizes

CPU = torch.device("cpu")


def numbered(count: int) -> Samples:
    """Samples whose feature and class are both their number."""
    numbers = np.arange(count)
    return Samples(numbers.reshape(-1, 1).astype(np.float32), numbers)


def mini_batches(count: int, batch_size: int, *, drop_last: bool = False, seed: int = 0, chunk_size=None):
    samples = DeviceSamples(numbered(count), "classification", CPU)
    return MiniBatches(
        samples, batch_size, seed=seed, drop_last=drop_last, chunk_size=chunk_size or 10 * batch_size
    )


def batches_of(source: MiniBatches, epoch: int) -> list[list[int]]:
    batches = []
    for chunk in source.chunks(epoch):
        for x, y in chunk.mini_batches:
            assert x[:, 0].long().tolist() == y.tolist()  # features and targets stay together
            batches.append(y.tolist())
        assert torch.cat([y for _, y in chunk.mini_batches]).equal(chunk.y)
    return batches


@given(
    counts=st.lists(st.integers(1, 60), min_size=2, max_size=8),
    fraction=st.floats(0.01, 0.99),
    seed=st.integers(0, 2**63 - 1),
)
def test_a_split_is_stratified_and_exactly_as_large_as_planned(counts, fraction, seed):
    y = np.repeat(np.arange(len(counts)), counts)
    train, validation = split_indices(y, "classification", fraction, seed)
    assert (len(train), len(validation)) == split_sizes(len(y), fraction)
    assert np.array_equal(np.sort(np.concatenate([train, validation])), np.arange(len(y)))
    for label, count in enumerate(counts):
        exact = count * len(validation) / len(y)
        assert abs((y[validation] == label).sum() - exact) < 1


def test_a_split_is_a_function_of_the_seed():
    y = np.arange(200) % 7
    for task in ("classification", "regression"):
        first = split_indices(y, task, 0.2, 3)
        np.random.seed(99)  # noqa: NPY002 - whatever the global state is, the split is the same
        assert all(np.array_equal(a, b) for a, b in zip(first, split_indices(y, task, 0.2, 3), strict=True))
        assert not np.array_equal(first[1], split_indices(y, task, 0.2, 4)[1])


def test_a_regression_split_has_the_planned_size():
    train, validation = split_indices(np.linspace(0, 1, 1797), "regression", 0.2, 0)
    assert (len(train), len(validation)) == (1438, 359)
    assert not set(train) & set(validation)


def test_one_sample_cannot_be_split():
    with pytest.raises(ValueError, match="2 are needed"):
        split_indices(np.array([0]), "classification", 0.5, 0)


def test_the_order_is_a_function_of_seed_and_epoch():
    order = epoch_permutation(100, seed=1, epoch=1)
    assert sorted(order.tolist()) == list(range(100))
    torch.manual_seed(5)
    assert order.equal(epoch_permutation(100, seed=1, epoch=1))
    assert not order.equal(epoch_permutation(100, seed=1, epoch=2))
    assert not order.equal(epoch_permutation(100, seed=2, epoch=1))
    # (1, 2) and (2, 1) would collide if the seeds were merely added
    assert not epoch_permutation(100, seed=1, epoch=2).equal(epoch_permutation(100, seed=2, epoch=1))


@pytest.mark.parametrize(("count", "batch_size", "sizes"), [
    (1000, 100, [100] * 10),
    (10, 4, [4, 4, 2]),
    (3, 8, [3]),
    (5, 1, [1] * 5),
])  # fmt: skip
def test_an_epoch_takes_every_sample_once(count, batch_size, sizes):
    batches = batches_of(mini_batches(count, batch_size), epoch=1)
    assert [len(batch) for batch in batches] == sizes
    assert sorted(chain.from_iterable(batches)) == list(range(count))


def test_drop_last_leaves_the_smaller_mini_batch_out_of_each_epoch():
    source = mini_batches(10, 4, drop_last=True)
    assert source.samples_per_epoch == 8
    left_out = []
    for epoch in (1, 2, 3, 4):
        batches = batches_of(source, epoch)
        assert [len(batch) for batch in batches] == [4, 4]
        left_out.append(frozenset(range(10)) - frozenset(chain.from_iterable(batches)))
    assert len(set(left_out)) > 1  # other samples in other epochs


def test_mini_batches_follow_the_permutation_whatever_the_chunk():
    expected = [part.tolist() for part in epoch_permutation(50, 7, 2).split(8)]
    for chunk_size in (8, 16, 400):
        assert batches_of(mini_batches(50, 8, seed=7, chunk_size=chunk_size), epoch=2) == expected


def test_an_epoch_can_be_taken_up_at_any_chunk():
    for samples, drop_last in ((50, False), (50, True), (48, False)):
        source = mini_batches(samples, 8, drop_last=drop_last, chunk_size=16)
        whole = list(source.chunks(3))
        for after in range(len(whole)):
            rest = list(source.chunks(3, after=2 * after))
            assert len(rest) == len(whole) - after
            for chunk, expected in zip(rest, whole[after:], strict=True):
                assert [x.tolist() for x, _ in chunk.mini_batches] == [
                    x.tolist() for x, _ in expected.mini_batches
                ]
                assert chunk.y.equal(expected.y)
        count = sum(len(chunk.mini_batches) for chunk in whole)
        assert list(source.chunks(3, after=count)) == []


def test_chunks_are_bounded_whole_mini_batches():
    assert samples_per_chunk(64, 256) * 256 <= CHUNK_BYTES
    assert samples_per_chunk(64, 256) % 64 == 0
    assert samples_per_chunk(64, CHUNK_BYTES) == 64  # a mini-batch larger than the bound is still one


def test_images_keep_their_values_in_the_faster_layout():
    x = np.random.default_rng(0).standard_normal((6, 3, 4, 5)).astype(np.float32)
    samples = DeviceSamples(Samples(x, np.arange(6)), "classification", CPU, channels_last=True)
    taken, y = samples.take(torch.tensor([4, 1]))
    assert np.array_equal(taken.numpy(), x[[4, 1]])
    assert taken.is_contiguous(memory_format=torch.channels_last)
    assert y.tolist() == [4, 1]
    assert np.array_equal(samples.slice(2, 4)[0].numpy(), x[2:4])


def test_regression_targets_get_a_dimension():
    y = data_module.targets_tensor(np.array([1.0, 2.0]), "regression")
    assert y.shape == (2, 1)
    assert y.dtype == torch.float32
