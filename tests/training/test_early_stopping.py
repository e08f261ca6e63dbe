import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epochd.training.config import EarlyStoppingConfig
from epochd.training.early_stopping import BestEpoch, EarlyStopping

VALUES = st.lists(st.one_of(st.none(), st.floats(allow_nan=True, width=32)), min_size=1, max_size=60)


def feed(values, **config):
    """Update epoch by epoch until it stops; values start at epoch 1."""
    stopping = EarlyStopping(EarlyStoppingConfig(**config))
    for epoch, value in enumerate(values, start=1):
        if stopping.update(epoch, value).stopped:
            break
    return stopping


def test_stops_after_patience_epochs_without_improvement():
    stopping = feed([0.5, 0.4, 0.41, 0.42, 0.43, 0.3], patience=3)
    state = stopping.state
    assert stopping.stop_reason == "early_stopped"
    assert (state.stopped, state.stopped_epoch, state.best_epoch, state.best_value) == (True, 5, 2, 0.4)
    assert state.epochs_without_improvement == 3
    assert state.message == "validation_loss has not improved for 3 epochs; best 0.4 at epoch 2"


def test_improving_goes_on_and_says_nothing():
    stopping = feed([0.5, 0.4, 0.3], patience=1)
    assert not stopping.state.stopped
    assert stopping.stop_reason is None
    assert stopping.state.message is None
    assert stopping.state.epochs_without_improvement == 0


def test_counts_down_in_words_while_waiting():
    state = feed([0.5, 0.6], patience=5).state
    assert state.message == (
        "validation_loss has not improved for 1 epoch; best 0.5 at epoch 1; "
        "stops after 4 more without improvement"
    )


@pytest.mark.parametrize("patience", [0, 1])
def test_patience_0_acts_as_1(patience):
    assert feed([0.5, 0.5, 0.1], patience=patience).state.stopped_epoch == 2


def test_mode_max():
    state = feed([0.8, 0.9, 0.85, 0.9], monitor="validation_accuracy", mode="max", patience=2).state
    assert (state.best_value, state.best_epoch, state.stopped_epoch) == (0.9, 2, 4)


def test_an_equal_value_is_no_improvement_and_the_earliest_stays_best():
    state = feed([0.5, 0.5, 0.5], patience=10).state
    assert (state.best_epoch, state.epochs_without_improvement) == (1, 2)


def test_min_delta_governs_patience_but_not_the_best_epoch():
    # Each value is better than the one before, none by more than 0.1 over the reference of epoch 1.
    state = feed([1.0, 0.97, 0.94, 0.91], patience=3, min_delta=0.1).state
    assert (state.best_value, state.best_epoch) == (0.91, 4)
    assert (state.stopped_epoch, state.epochs_without_improvement) == (4, 3)
    assert state.message == (
        "validation_loss has not improved by more than 0.1 for 3 epochs; best 0.91 at epoch 4"
    )


def test_small_gains_add_up_against_the_reference():
    # 0.88 is 0.12 below the reference 1.0, though only 0.06 below the epoch before.
    state = feed([1.0, 0.94, 0.88, 0.9], patience=3, min_delta=0.1).state
    assert not state.stopped
    assert state.epochs_without_improvement == 1


def test_exactly_min_delta_is_no_improvement():
    assert feed([1.0, 0.5], patience=1, min_delta=0.5).state.stopped_epoch == 2


def test_epochs_before_start_epoch_are_not_looked_at():
    state = feed([0.1, 0.2, 0.9, 0.8, 0.85, 0.85], start_epoch=3, patience=2).state
    assert (state.best_value, state.best_epoch, state.stopped_epoch) == (0.8, 4, 6)


def test_nothing_is_counted_before_start_epoch():
    state = feed([0.1, 0.2, 0.3], start_epoch=4, patience=1).state
    assert (state.best_epoch, state.epochs_without_improvement, state.stopped) == (None, 0, False)


@pytest.mark.parametrize("worthless", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("mode", ["min", "max"])
def test_a_value_that_is_not_finite_never_improves(worthless, mode):
    state = feed([0.5, worthless, worthless], patience=2, mode=mode).state
    assert (state.best_value, state.best_epoch, state.stopped_epoch) == (0.5, 1, 3)


def test_never_a_finite_value():
    state = feed([math.nan] * 3, patience=3).state
    assert (state.best_value, state.stopped_epoch) == (None, 3)
    assert state.message == "validation_loss has not improved for 3 epochs; no finite value yet"


def test_epochs_without_a_measurement_count_but_do_not_stop():
    # Validated every third epoch: patience 2 is over at epoch 5, but only epoch 6 can tell.
    stopping = feed([None, None, 0.5, None, None], patience=2)
    assert not stopping.state.stopped
    assert stopping.state.epochs_without_improvement == 2
    assert stopping.update(6, 0.6).stopped_epoch == 6


def test_a_rare_measurement_that_improves_goes_on():
    assert not feed([None, None, 0.5, None, None, 0.4], patience=1).state.stopped


@pytest.mark.parametrize(
    ("mode", "target", "values", "stopped"),
    [
        ("min", 0.1, [0.5, 0.1], 2),
        ("max", 0.9, [0.5, 0.9, 1.0], 2),
        ("min", 0.1, [0.5, math.nan, -math.inf], None),
        ("min", 0.0, [0.5, 0.2], None),
    ],
)
def test_target(mode, target, values, stopped):
    stopping = feed(values, mode=mode, target=target, patience=10)
    assert stopping.state.stopped_epoch == stopped
    assert stopping.stop_reason == ("target_reached" if stopped else None)


def test_target_is_said_in_words_and_wins_over_patience():
    stopping = feed([0.5, 0.49], target=0.495, patience=1, min_delta=0.1)
    assert stopping.stop_reason == "target_reached"
    assert stopping.state.message == "validation_loss reached 0.49 at epoch 2; target 0.495"


def test_target_before_start_epoch_does_not_count():
    assert feed([0.05, 0.2, 0.05], target=0.1, start_epoch=2).state.stopped_epoch == 3


def test_once_stopped_nothing_changes():
    stopping = feed([0.5, 0.6], patience=1)
    before = stopping.state
    assert stopping.update(3, 0.0) == before


@given(
    values=VALUES, cut=st.integers(0, 60), patience=st.integers(0, 5), min_delta=st.sampled_from([0.0, 0.1])
)
def test_continues_from_its_state_dict_as_if_nothing_had_happened(values, cut, patience, min_delta):
    config = EarlyStoppingConfig(patience=patience, min_delta=min_delta)
    whole, first, second = EarlyStopping(config), EarlyStopping(config), EarlyStopping(config)
    epochs = list(enumerate(values, start=1))
    for epoch, value in epochs:
        whole.update(epoch, value)
    for epoch, value in epochs[:cut]:
        first.update(epoch, value)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    for epoch, value in epochs[cut:]:
        second.update(epoch, value)
    assert second.state == whole.state
    assert second.stop_reason == whole.stop_reason


def test_nothing_is_counted_before_the_first_epoch_that_is_looked_at():
    stopping = EarlyStopping(EarlyStoppingConfig(patience=2), first_epoch=10)
    for epoch in (10, 11):
        stopping.update(epoch, math.nan)
    assert stopping.state.stopped_epoch == 11


def go_on(stopping, first_epoch, values):
    for epoch, value in enumerate(values, start=first_epoch):
        stopping.update(epoch, value)
    return stopping.state


def test_amended_it_keeps_best_reference_and_epochs_waited():
    config = EarlyStoppingConfig(patience=10, min_delta=0.2)
    before = feed([1.0, 0.9, 0.85], patience=10, min_delta=0.2)
    after = before.amended(replace(config, patience=4, min_delta=0.1), 4)
    state = go_on(after, 4, [0.95])  # 0.95 is no 0.1 below the reference, 1.0
    assert (state.best_value, state.best_epoch, state.epochs_without_improvement) == (0.85, 3, 3)
    assert (state.patience, state.stopped) == (4, False)
    assert go_on(after, 5, [0.95]).stopped_epoch == 5
    improving = before.amended(replace(config, patience=4, min_delta=0.1), 4)
    assert go_on(improving, 4, [0.89]).epochs_without_improvement == 0


def test_amended_to_another_metric_or_mode_it_begins_anew():
    before = feed([1.0, 0.9, 0.95], patience=10)
    for other in (EarlyStoppingConfig("train_loss", patience=2), EarlyStoppingConfig(mode="max", patience=2)):
        state = go_on(before.amended(other, 4), 4, [0.96])
        assert (state.best_value, state.best_epoch, state.epochs_without_improvement) == (0.96, 4, 0)
        assert (state.monitor, state.mode) == (other.monitor, other.mode)


def test_amended_to_start_later_it_forgets_what_was_before():
    before = feed([0.1, 0.5, 0.4], patience=10)
    assert (
        go_on(before.amended(EarlyStoppingConfig(patience=2, start_epoch=3), 4), 4, [0.5, 0.5]).best_epoch
        == 4
    )
    later = before.amended(EarlyStoppingConfig(patience=2, start_epoch=6), 4)
    assert go_on(later, 4, [0.3, 0.3]).epochs_without_improvement == 0
    assert go_on(later, 6, [0.6, 0.7, 0.7]).stopped_epoch == 8


def test_amended_to_start_earlier_it_counts_from_now_on():
    before = feed([0.5, 0.4], patience=2, start_epoch=10)
    after = before.amended(EarlyStoppingConfig(patience=2, start_epoch=1), 3)
    assert go_on(after, 3, [math.nan, math.nan]).stopped_epoch == 4


@given(values=VALUES, cut=st.integers(1, 60), patience=st.integers(1, 5))
def test_amended_to_what_it_was_nothing_changes(values, cut, patience):
    config = EarlyStoppingConfig(patience=patience)
    whole, amended = EarlyStopping(config), EarlyStopping(config)
    for epoch, value in enumerate(values, start=1):
        if epoch == cut and not whole.state.stopped:
            amended = amended.amended(config, epoch)
        assert amended.update(epoch, value) == whole.update(epoch, value)


@given(values=VALUES, mode=st.sampled_from(["min", "max"]))
def test_best_is_the_first_of_the_best_finite_values(values, mode):
    best = BestEpoch("validation_loss", mode)
    for epoch, value in enumerate(values, start=1):
        best.update(epoch, value)
    finite = [value for value in values if value is not None and math.isfinite(value)]
    if not finite:
        assert (best.epoch, best.value) == (None, None)
        return
    expected = min(finite) if mode == "min" else max(finite)
    assert best.value == expected
    assert best.epoch == 1 + next(i for i, value in enumerate(values) if value == expected)


def test_best_epoch_says_whether_it_changed():
    best = BestEpoch("validation_loss", "min", start_epoch=2)
    assert [best.update(e, v) for e, v in [(1, 0.1), (2, 0.5), (3, 0.5), (4, None), (5, 0.4)]] == [
        False,
        True,
        False,
        False,
        True,
    ]


def test_the_state_is_json():
    state = feed([0.5, 0.6], patience=1).state
    assert json.loads(json.dumps(state.as_dict()))["stopped_epoch"] == 2
