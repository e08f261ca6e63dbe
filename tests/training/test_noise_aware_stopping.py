"""Early stopping with ``min_delta`` ``"auto"``."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epochd.training.config import EarlyStoppingConfig
from epochd.training.early_stopping import EarlyStopping
from epochd.training.variation import LEAST, Variation

AUTO = EarlyStoppingConfig(patience=10, min_delta="auto")


def feed(values, config=AUTO):
    stopping = EarlyStopping(config)
    for epoch, value in enumerate(values, start=1):
        if stopping.update(epoch, value).stopped:
            break
    return stopping


def plateau(seed, epochs=2000, noise=0.02):
    """A loss that has converged after some 40 epochs, measured with noise."""
    clean = 0.3 + np.exp(-np.arange(epochs) / 8)
    return [float(value) for value in clean + np.random.default_rng(seed).normal(scale=noise, size=epochs)]


def test_noise_on_a_plateau_is_not_mistaken_for_improvement():
    auto = [feed(plateau(seed)).state.stopped_epoch for seed in range(30)]
    any_gain = [feed(plateau(seed), replace(AUTO, min_delta=0.0)).state.stopped_epoch for seed in range(30)]
    assert max(auto) < 65
    assert np.mean(auto) < np.mean(any_gain) - 8


def test_it_does_not_stop_before_what_is_left_to_gain_is_as_small_as_the_noise():
    for seed in range(30):
        state = feed(plateau(seed)).state
        assert math.exp(-(state.best_epoch - 1) / 8) < 3 * 0.02


def test_gains_smaller_than_the_noise_add_up():
    # Each epoch gains half of the noise's standard deviation: within a patience of 20 that is far beyond it.
    for seed in range(10):
        noise = np.random.default_rng(seed).normal(scale=0.01, size=200)
        falling = [float(value) for value in 2 - 0.005 * np.arange(200) + noise]
        assert not feed(falling, replace(AUTO, patience=20)).state.stopped


def test_a_smooth_curve_is_followed_to_its_end():
    assert not feed([math.exp(-epoch / 5) for epoch in range(150)]).state.stopped


@pytest.mark.parametrize("mode", ["min", "max"])
def test_both_modes_are_alike(mode):
    sign = 1 if mode == "min" else -1
    values = [sign * value for value in plateau(1)]
    state = feed(values, replace(AUTO, mode=mode)).state
    assert state.stopped_epoch == feed(plateau(1)).state.stopped_epoch


def test_until_it_is_measured_any_gain_is_an_improvement():
    state = feed([1 - 1e-9 * epoch for epoch in range(LEAST)], replace(AUTO, patience=1)).state
    assert (state.min_delta, state.epochs_without_improvement) == (None, 0)


def test_a_value_is_compared_with_the_noise_of_those_before_it():
    values = plateau(2)[:20]
    before = Variation((epoch, value) for epoch, value in enumerate(values[:19], start=1))
    assert feed(values).state.min_delta == before.least_gain


def test_the_measured_min_delta_is_said_in_words():
    state = feed(plateau(3)).state
    said = f"validation_loss has not improved by more than {state.min_delta:.4g} (its noise) for 10 epochs"
    assert state.message.startswith(said)


def test_a_told_min_delta_is_in_the_state():
    assert EarlyStopping(EarlyStoppingConfig(min_delta=0.1)).state.min_delta == 0.1
    assert feed([0.5], EarlyStoppingConfig(min_delta=0.1)).state.min_delta == 0.1


def test_a_metric_that_is_never_finite_is_never_measured():
    state = feed([math.nan] * 12, replace(AUTO, patience=12)).state
    assert (state.stopped_epoch, state.min_delta) == (12, None)


def test_values_before_start_epoch_do_not_count():
    loud = [float(value) for value in np.random.default_rng(8).normal(scale=5, size=20)]
    late = feed([*loud, *plateau(9)[:15]], replace(AUTO, start_epoch=21, patience=100))
    assert late.min_delta == feed(plateau(9)[:15], replace(AUTO, patience=100)).min_delta


def test_amended_to_auto_it_knows_the_noise_already():
    before = feed(plateau(5)[:12], replace(AUTO, min_delta=0.0))
    after = before.amended(AUTO, 13)
    assert after.min_delta == feed(plateau(5)[:12]).min_delta is not None
    assert before.amended(replace(AUTO, start_epoch=10), 13).min_delta is None
    assert before.amended(replace(AUTO, monitor="train_loss"), 13).min_delta is None


@given(
    values=st.lists(st.one_of(st.none(), st.floats(allow_nan=True, width=32)), min_size=1, max_size=60),
    cut=st.integers(0, 60),
    patience=st.integers(0, 8),
)
def test_it_resumes_exactly(values, cut, patience):
    config = replace(AUTO, patience=patience)
    whole, first, second = EarlyStopping(config), EarlyStopping(config), EarlyStopping(config)
    epochs = list(enumerate(values, start=1))
    for epoch, value in epochs:
        whole.update(epoch, value)
    for epoch, value in epochs[:cut]:
        first.update(epoch, value)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    for epoch, value in epochs[cut:]:
        second.update(epoch, value)
    assert second.state_dict() == whole.state_dict()


def test_a_checkpoint_of_an_earlier_version_is_continued():
    config = EarlyStoppingConfig(patience=3)
    state = feed([0.5, 0.4, 0.45], config).state_dict()
    del state["recent"], state["state"]["min_delta"]
    stopping = EarlyStopping(config)
    stopping.load_state_dict(state)
    stopping.update(4, 0.45)
    assert stopping.update(5, 0.45).stopped_epoch == 5


@given(
    values=st.lists(st.one_of(st.none(), st.floats(allow_nan=True, width=32)), min_size=1, max_size=60),
    min_delta=st.sampled_from([0.0, 0.1, "auto"]),
    target=st.sampled_from([None, 0.0]),
)
def test_decisions_alone_are_those_of_updates(values, min_delta, target):
    config = EarlyStoppingConfig(patience=4, min_delta=min_delta, target=target)
    updated, decided = feed(values, config), EarlyStopping(config)
    for epoch, value in enumerate(values, start=1):
        if decided.decide(epoch, value) is not None:
            break
    assert decided.stop_reason == updated.stop_reason
    assert (decided.best.epoch, decided.best.value) == (updated.best.epoch, updated.best.value)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (EarlyStoppingConfig(patience=5), 7),
        (EarlyStoppingConfig(patience=1), 6),
        (EarlyStoppingConfig(patience=5, target=0.0), 6),
        (EarlyStoppingConfig(patience=5, start_epoch=20), 24),
    ],
)
def test_the_earliest_stop_is_where_it_stops_if_nothing_improves(config, expected):
    stopping = (
        feed([1.0, 0.5, 0.6, 0.6, 0.6], config) if config.patience > 1 else feed([5.0, 4, 3, 2, 1], config)
    )
    assert stopping.earliest_stop(5) == expected
    if config.target is None:
        epoch = 6
        while stopping.decide(epoch, 9.0 if config.start_epoch == 1 else math.nan) is None:
            epoch += 1
        assert epoch == expected
