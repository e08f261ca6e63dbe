"""What is kept of a job's epochs when jobs are compared."""

import math

import numpy as np
import pytest

from epochd.jobs.compare import differences, evenly
from epochd.jobs.progression import Progression


def follow(values, target=None, mode="min", metric="validation_loss", train=None):
    seen = Progression(metric, mode, target, len(values))
    for epoch, value in enumerate(values, 1):
        seen.take(epoch, 10 * epoch, 0.5, {metric: value, "train_loss": train})
    return seen


def test_the_best_the_newest_and_when_the_target_was_reached():
    seen = follow([1.0, 0.5, 0.25, 0.25, 0.75], target=0.5, train=0.125)
    assert (seen.best_value, seen.best_epoch, seen.final_value) == (0.25, 3, 0.75)
    assert seen.reached == (2, 20, 1.0)  # a value equal to the target is as good
    assert (seen.gap, seen.epochs, seen.seconds) == (0.125, 5, 2.5)


def test_of_an_accuracy_more_is_better():
    seen = follow([0.5, 0.9, 0.8], target=0.85, mode="max", metric="validation_accuracy")
    assert (seen.best_value, seen.best_epoch, seen.reached) == (0.9, 2, (2, 20, 1.0))
    assert seen.gap is None  # there is no validation loss


def test_missing_and_infinite_values_are_passed_over():
    seen = follow([None, math.nan, 2.0, math.inf, None], target=3.0)
    assert (seen.best_value, seen.final_value, seen.reached) == (2.0, 2.0, (3, 30, 1.5))
    assert follow([None, None]).best_value is None
    assert follow([1.0, 2.0], target=0.5).reached is None


def test_a_straight_line_has_no_noise_and_too_few_values_have_none():
    assert follow(list(np.linspace(5, 1, 20))).noise == pytest.approx(0, abs=1e-12)
    assert follow([3.0, 2.0, 1.0]).noise is None  # the later half has two values


@pytest.mark.parametrize("deviation", [0.01, 0.3])
def test_noise_is_the_deviation_about_the_trend(deviation):
    epochs = np.arange(1, 8001)
    trend = 2 * np.exp(-epochs / 2000) + 0.1
    noise = np.random.default_rng(1).normal(0, deviation, len(epochs))
    # The variance of the mean of n squared second differences is about 35/18 · 2/n: 1.8 % of s here, as 1 sigma is.
    assert follow(list(trend + noise)).noise == pytest.approx(deviation, rel=0.06)


@pytest.mark.parametrize(("last", "points"), [(0, 2), (1, 2), (7, 7), (8, 7), (1000, 2), (999_999, 500)])
def test_the_chosen_epochs_are_even_and_hold_the_first_and_the_last(last, points):
    chosen = evenly(last, points)
    assert len(chosen) == min(last, points)
    assert chosen == sorted(set(chosen))
    if last:
        assert (chosen[0], chosen[-1]) == (1, last)
    gaps = np.diff(chosen)
    assert not len(gaps) or max(gaps) - min(gaps) <= 1


def test_specs_are_compared_leaf_by_leaf():
    specs = [
        {
            "name": "a",
            "model": {"name": "mlp", "hidden_sizes": [1]},
            "early_stopping": {"patience": 3},
            "seed": 0,
        },
        {"name": "b", "model": {"name": "cnn"}, "early_stopping": None, "seed": 0},
    ]
    assert {one.path: one.values for one in differences(specs)} == {
        "model.name": ["mlp", "cnn"],
        "model.hidden_sizes": [[1], None],
        "early_stopping.patience": [3, None],
    }
