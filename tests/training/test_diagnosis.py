import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epochd.training.diagnosis import diagnose
from epochd.training.loss_curve import MAX_POINTS, EpochPoint, LossCurve

BASELINE = math.log(10)
EPOCHS = np.arange(60)
NOISES = [0.0, 0.01, 0.05]


def points(train, validation, every=1):
    measured = [float(v) if e % every == 0 else None for e, v in enumerate(validation, start=1)]
    return [EpochPoint(e, float(t), v) for e, (t, v) in enumerate(zip(train, measured, strict=True), start=1)]


def judge(train, validation, *, noise=0.0, baseline=BASELINE, epochs=None, finished=False, every=1, seed=0):
    rng = np.random.default_rng(seed)
    train, validation = (np.asarray(c) + noise * rng.standard_normal(len(c)) for c in (train, validation))
    curve = points(np.maximum(train, 1e-4), np.maximum(validation, 1e-4), every)
    return diagnose(curve, baseline_loss=baseline, epochs=epochs or len(curve), finished=finished)


def overfit(epochs=EPOCHS, turn=15):
    """Falls together until ``turn``, then validation rises while training goes on falling."""
    return 2 * np.exp(-epochs / 10), 2 * np.exp(-epochs / 5) + 0.2 + 0.02 * np.clip(epochs - turn, 0, None)


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("seed", range(5))
class TestVerdicts:
    def test_overfitting_since_the_epoch_after_the_minimum(self, noise, seed):
        found = judge(*overfit(), noise=noise, seed=seed)
        assert found.verdict == "overfitting"
        assert found.since_epoch is not None
        assert abs(found.since_epoch - 18) <= 6
        assert "has risen from" in found.evidence

    def test_good_fit(self, noise, seed):
        curve = np.exp(-EPOCHS / 6)
        found = judge(2 * curve + 0.1, 2 * curve + 0.15, noise=noise, seed=seed)
        assert found.verdict == "good_fit"
        assert 10 <= found.since_epoch <= 40

    def test_underfitting_that_stands_still_at_the_trivial_predictor(self, noise, seed):
        found = judge(np.full(60, 2.25), np.full(60, 2.3), noise=noise, seed=seed)
        assert (found.verdict, found.since_epoch) == ("underfitting", 1)
        assert "2.30" in found.evidence

    def test_underfitting_that_ended_while_still_learning(self, noise, seed):
        falling = 2.2 - 0.02 * EPOCHS
        found = judge(falling, falling + 0.02, noise=noise, seed=seed)
        assert (found.verdict, found.since_epoch) == ("underfitting", 1)
        assert found.measurements["still_falling"] == 1

    def test_the_same_in_the_midst_of_training_is_undetermined(self, noise, seed):
        falling = 2.2 - 0.02 * EPOCHS
        found = judge(falling, falling + 0.02, noise=noise, seed=seed, epochs=200)
        assert (found.verdict, found.since_epoch) == ("undetermined", None)
        assert "still learning" in found.evidence

    def test_diverging(self, noise, seed):
        train = np.where(EPOCHS < 20, 2 * np.exp(-EPOCHS / 8), 0.2 * np.exp((EPOCHS - 20) / 12))
        found = judge(train, train + 0.1, noise=noise, seed=seed)
        assert found.verdict == "diverging"
        assert abs(found.since_epoch - 20) <= 5

    def test_a_large_gap_without_a_rise_is_overfitting_too(self, noise, seed):
        found = judge(2 * np.exp(-EPOCHS / 6), 2 * np.exp(-EPOCHS / 3) + 0.9, noise=noise, seed=seed)
        assert found.verdict == "overfitting"
        assert "far above the training loss" in found.evidence

    def test_labels_that_the_features_say_nothing_about_are_no_good_fit(self, noise, seed):
        found = judge(2.3 - 0.004 * EPOCHS, np.full(60, 2.3), noise=noise, seed=seed)
        assert found.verdict != "good_fit"


@pytest.mark.parametrize("length", range(5))
def test_fewer_than_five_epochs_are_undetermined(length):
    train, validation = overfit()
    found = diagnose(
        points(train[:length], validation[:length]), baseline_loss=BASELINE, epochs=50, finished=True
    )
    assert (found.verdict, found.since_epoch) == ("undetermined", None)


def test_without_validation_it_is_undetermined_and_says_so():
    curve = [EpochPoint(epoch, 1 / epoch, None) for epoch in range(1, 31)]
    found = diagnose(curve, baseline_loss=None, epochs=30)
    assert found.verdict == "undetermined"
    assert "Nothing was validated" in found.evidence


def test_epochs_between_validations_do_not_matter():
    found = judge(*overfit(), every=3)
    assert found.verdict == "overfitting"
    assert found.since_epoch % 3 == 0


def test_without_a_baseline_the_first_epoch_stands_in():
    assert judge(*overfit(), baseline=None).verdict == "overfitting"


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e6])
def test_the_unit_of_the_loss_does_not_matter(scale):
    train, validation = overfit()
    found = diagnose(points(train * scale, validation * scale), baseline_loss=BASELINE * scale, epochs=60)
    assert (found.verdict, found.since_epoch) == (judge(*overfit()).verdict, judge(*overfit()).since_epoch)


def test_one_bad_epoch_is_not_overfitting():
    curve = np.exp(-EPOCHS / 6)
    validation = 2 * curve + 0.15
    validation[[30, 59]] += 1.5
    assert judge(2 * curve + 0.1, validation).verdict == "good_fit"


def test_values_that_are_not_finite_are_left_out():
    train, validation = overfit()
    validation[[3, 40]] = math.nan, math.inf
    assert diagnose(points(train, validation), baseline_loss=BASELINE, epochs=60).verdict == "overfitting"


def test_a_warm_up_is_not_mistaken_for_a_good_fit():
    warm = 2.3 - 0.001 * np.arange(6)
    assert judge(warm, warm, epochs=100).verdict == "undetermined"


def test_a_slow_start_is_not_mistaken_for_a_good_fit():
    falling = 2.0 - 0.015 * np.arange(6)
    assert judge(falling, falling, epochs=100).verdict == "undetermined"


def test_a_curve_that_jumps_about_is_noisy():
    jumps = np.where(EPOCHS % 2, 0.2, 6.0)
    found = judge(np.full(60, 0.3), jumps)
    assert (found.verdict, found.since_epoch) == ("noisy", 1)
    assert found.measurements["validation_noise"] > 3


def test_a_level_loss_halfway_to_the_trivial_predictors_is_a_plateau():
    level = 1.2 + 1.1 * np.exp(-EPOCHS / 4)
    found = judge(level, level + 0.02)
    assert found.verdict == "plateau"
    assert "further epochs change nothing" in found.evidence
    assert judge(level / 10, level / 10 + 0.02).verdict == "good_fit"


def test_measurements_are_those_of_the_curve():
    train, validation = 2.0 - 0.02 * EPOCHS, 2.1 - 0.01 * EPOCHS
    seen = judge(train, validation).measurements
    assert seen["train_slope"] == pytest.approx(-0.02)
    assert seen["validation_slope"] == pytest.approx(-0.01)
    assert seen["gap_slope"] == pytest.approx(0.01)
    assert max(seen[f"{name}_slope_error"] for name in ("train", "validation", "gap")) < 1e-9
    assert seen["generalisation_gap"] == pytest.approx(validation[-1] - train[-1], abs=0.05)
    assert seen["distance_to_trivial"] == pytest.approx(1 - seen["validation_loss"] / BASELINE)
    assert (seen["best_epoch"], seen["last_epoch"], seen["validated_epochs"]) == (60, 60, 60)
    assert seen["mini_batch_noise"] is None


@pytest.mark.parametrize("deviation", [0.02, 0.1])
def test_noise_is_the_standard_deviation_from_epoch_to_epoch(deviation):
    rng = np.random.default_rng(1)
    falling = 2.0 - 0.005 * np.arange(128)
    seen = judge(falling, falling + deviation * rng.standard_normal(128)).measurements
    assert seen["validation_noise"] == pytest.approx(deviation, rel=0.3)
    assert seen["train_noise"] < 0.001
    slope, error = seen["validation_slope"], seen["validation_slope_error"]
    assert abs(slope + 0.005) < 3 * error
    assert error == pytest.approx(deviation * math.sqrt(12 / 33**3), rel=0.4)


def test_a_clear_case_is_surer_than_a_doubtful_one():
    train, _ = overfit()
    lift = np.linspace(0, 0.3, 60) * (EPOCHS > 20)
    found = [judge(train, np.exp(-EPOCHS / 5) + 0.2 + part * lift) for part in np.linspace(0.2, 1, 60)]
    sure = [one.confidence for one in found if one.verdict == "overfitting"]
    assert sure == sorted(sure)
    assert sure[0] < 0.75 * sure[-1]
    assert sure[-1] < 1


def test_training_cut_short_is_underfitting():
    falling = 2.2 - 0.02 * EPOCHS
    found = judge(falling, falling, epochs=200, finished=True)
    assert found.verdict == "underfitting"
    assert (found.measurements["epochs"], found.measurements["last_epoch"]) == (200, 60)


@settings(max_examples=200)
@given(
    curve=st.lists(st.tuples(st.floats(0, 1e6), st.none() | st.floats(0, 1e6)), min_size=0, max_size=40),
    baseline=st.none() | st.floats(0, 1e6) | st.just(math.nan),
    finished=st.booleans(),
)
def test_any_curve_gives_a_verdict(curve, baseline, finished):
    given_points = [EpochPoint(epoch, *losses) for epoch, losses in enumerate(curve, start=1)]
    found = diagnose(given_points, baseline_loss=baseline, epochs=40, finished=finished)
    assert (found.since_epoch is None) == (found.verdict == "undetermined")
    assert found.since_epoch is None or 1 <= found.since_epoch <= len(curve)
    assert found.evidence
    assert "nan" not in found.evidence
    assert json.loads(json.dumps(found.as_dict()))["verdict"] == found.verdict


class TestLossCurve:
    def test_a_short_curve_is_kept_as_it_is(self):
        given_points = points(*overfit(), every=2)
        assert list(LossCurve(given_points)) == given_points

    def test_a_long_curve_is_bounded_and_keeps_its_means(self):
        given_points = points(np.arange(1000.0), np.arange(1000.0) * 2, every=3)
        curve = LossCurve(given_points)
        assert MAX_POINTS / 2 <= len(curve) <= MAX_POINTS
        assert curve[-1].epoch == 1000
        assert curve[0].train_loss == pytest.approx(np.mean(np.arange(8.0)))
        assert curve[0].validation_loss == pytest.approx(2 * np.mean([2, 5]))

    def test_epochs_ascend_at_every_length(self):
        curve = LossCurve()
        for epoch in range(1, 600):
            curve.append(EpochPoint(epoch, 1.0, None))
            assert curve[-1].epoch == epoch
        assert all(a.epoch < b.epoch for a, b in itertools.pairwise(curve))

    def test_a_long_training_gets_the_verdict_of_a_short_one(self):
        train, validation = overfit(np.arange(6000) / 100)
        found = diagnose(LossCurve(points(train, validation)), baseline_loss=BASELINE, epochs=6000)
        assert found.verdict == "overfitting"
        assert abs(found.since_epoch - 1800) <= 200

    def test_continues_from_its_state_dict(self):
        given_points = points(*overfit(np.arange(500) / 10), every=3)
        curve = LossCurve(given_points[:333])
        resumed = LossCurve()
        resumed.load_state_dict(json.loads(json.dumps(curve.state_dict())))
        for point in given_points[333:]:
            resumed.append(point)
        assert list(resumed) == list(LossCurve(given_points))
