"""What an epoch adds up: the noise between its mini-batches."""

import numpy as np
import pytest
import torch

from epochd.training.epoch_sums import EpochSums
from epochd.training.metrics import Accuracy

CPU = torch.device("cpu")


@pytest.fixture
def make():
    return lambda: EpochSums(Accuracy(), 0.0)


def falling(deviation, count=4_000):
    """Losses of mini-batches that fall by 1 within the epoch, and are this noisy."""
    noise = deviation * np.random.default_rng(3).standard_normal(count)
    return (3 - np.linspace(0, 1, count) + noise).astype(np.float32)


@pytest.mark.parametrize("deviation", [0.05, 0.4])
def test_noise_is_the_deviation_beside_the_fall(make, deviation):
    sums = make()
    sums.add(falling(deviation), [32] * 4_000)
    assert sums.mini_batch_noise() == pytest.approx(deviation, rel=0.05)


def test_one_mini_batch_has_no_noise(make):
    sums = make()
    assert sums.mini_batch_noise() is None
    sums.add(falling(0.1, 1), [32])
    assert sums.mini_batch_noise() is None


@pytest.mark.parametrize("cut", [1, 2, 999, 1_999])
def test_blocks_and_a_resumption_change_no_bit_of_it(make, cut):
    losses, whole, first, second = falling(0.1, 2_000), make(), make(), make()
    whole.add(losses, [32] * 2_000)
    first.add(losses[:cut], [32] * cut)
    second.load_state_dict(first.state_dict(), CPU)
    second.add(losses[cut:], [32] * (2_000 - cut))
    assert second.mini_batch_noise() == whole.mini_batch_noise()


def test_the_state_of_an_earlier_version_measures_from_there_on(make):
    losses, first, second, rest = falling(0.1, 100), make(), make(), make()
    first.add(losses[:50], [32] * 50)
    state = first.state_dict()
    del state["jumps"]
    second.load_state_dict(state, CPU)
    assert second.mini_batch_noise() is None
    for sums in (second, rest):
        sums.add(losses[50:], [32] * 50)
    assert second.mini_batch_noise() == rest.mini_batch_noise()
