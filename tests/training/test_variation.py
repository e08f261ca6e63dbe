import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epochd.training.variation import LEAST, WINDOW, Variation


def of(values):
    variation = Variation()
    for epoch, value in enumerate(values, start=1):
        variation.add(epoch, float(value))
    return variation


def estimates(trend, deviation, length, count=400):
    rng = np.random.default_rng(7)
    noise = rng.normal(scale=deviation, size=(count, length))
    return np.array([of(trend + row).standard_deviation for row in noise])


@pytest.mark.parametrize(
    "trend",
    [
        np.zeros(WINDOW),
        np.linspace(3, 1, WINDOW),
        np.linspace(2, 0, WINDOW) ** 2,
        2 * np.exp(-np.arange(WINDOW) / 20),
    ],
    ids=["none", "line", "parabola", "exponential"],
)
@pytest.mark.parametrize("deviation", [1e-4, 0.05, 20.0])
def test_it_finds_the_noise_beneath_a_trend(trend, deviation):
    if deviation < 1e-3 and trend[0] == 2 and trend[-1] > 0:
        trend = trend / 100  # of an exponential a little of the curvature stays
    found = estimates(trend, deviation, WINDOW)
    assert found.mean() / deviation == pytest.approx(1.02, abs=0.04)
    assert found.std() / deviation == pytest.approx(0.20, abs=0.03)


def test_its_error_with_the_least_values_is_what_the_docstring_says():
    found = estimates(np.zeros(LEAST), 1.0, LEAST, 2000)
    assert (found.mean(), found.std()) == (pytest.approx(1.11, abs=0.05), pytest.approx(0.55, abs=0.05))


def test_noise_exceeds_the_least_gain_over_its_level_in_about_5_percent_of_cases():
    rng = np.random.default_rng(3)
    exceeded = 0
    for _ in range(2000):
        *before, value = rng.normal(size=WINDOW + 1)
        exceeded += value < -of(before).least_gain  # the level, 0, is the reference
    assert exceeded / 2000 == pytest.approx(0.055, abs=0.015)


def test_a_smooth_curve_has_no_noise():
    assert of(np.linspace(0, 5, 40) ** 2).standard_deviation == pytest.approx(0, abs=1e-12)
    assert of([0.5] * 40).least_gain == 0


def test_too_few_values_tell_nothing():
    assert of(range(LEAST - 1)).standard_deviation is None
    assert of(range(LEAST - 1)).least_gain is None
    assert of(range(LEAST)).standard_deviation == 0


def test_values_that_are_not_finite_are_left_out():
    values = list(np.random.default_rng(1).normal(size=20))
    gaps = [*values[:7], math.nan, math.inf, *values[7:], -math.inf]
    assert of(gaps).standard_deviation == of(values).standard_deviation


def test_values_whose_differences_overflow_tell_nothing():
    assert of([1.7e308, -1.7e308] * 10).standard_deviation is None


def test_a_single_jump_counts_little():
    values = np.random.default_rng(2).normal(size=WINDOW)
    values[10] += 1000
    assert of(values).standard_deviation < 2


def test_only_the_newest_values_count():
    rng = np.random.default_rng(5)
    loud, quiet = rng.normal(size=100), rng.normal(scale=1e-3, size=WINDOW)
    assert of([*loud, *quiet]).standard_deviation == of(quiet).standard_deviation
    assert len(of([*loud, *quiet]).state()) == WINDOW


def test_it_may_start_later():
    values = list(np.random.default_rng(6).normal(size=20))
    assert of(values).starting(11).state() == [[epoch, values[epoch - 1]] for epoch in range(11, 21)]


@given(
    values=st.lists(st.floats(-1e6, 1e6), min_size=LEAST, max_size=50),
    power=st.integers(-10, 10),
)
def test_it_is_measured_in_the_unit_of_the_metric(values, power):
    scaled = [value * 2.0**power for value in values]
    assert of(scaled).standard_deviation == pytest.approx(
        of(values).standard_deviation * 2.0**power, rel=1e-9
    )


@given(values=st.lists(st.floats(allow_nan=True), max_size=50))
def test_it_continues_from_its_state(values):
    variation = of(values)
    again = Variation.of_state(variation.state())
    assert again.standard_deviation == variation.standard_deviation
    assert again.state() == variation.state()
