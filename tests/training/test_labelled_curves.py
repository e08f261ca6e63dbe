"""The diagnosis of trainings whose fault is known; ``bench/diagnosis.py --save`` trained them."""

import json
from collections import Counter
from pathlib import Path

import pytest

from epochd.training.diagnosis import diagnose
from epochd.training.loss_curve import EpochPoint

CURVES = json.loads(Path(__file__).with_name("curves.json").read_text(encoding="utf-8"))
FITTED = [one for one in CURVES if one["is_for_fitting"]]
REPORTED = [one for one in CURVES if not one["is_for_fitting"]]
LABELS = ("underfitting", "good_fit", "overfitting", "diverging", "plateau", "noisy")
DATASETS = {"digits", "iris", "wine", "breast_cancer", "diabetes", "clusters", "line"}


def diagnosed(one):
    columns = zip(one["epoch"], one["train_loss"], one["validation_loss"], strict=True)
    curve = [EpochPoint(*column) for column in columns]
    return diagnose(curve, baseline_loss=one["trivial"], epochs=one["epochs"])


def right(curves):
    return sum(diagnosed(one).verdict == one["label"] for one in curves)


def test_there_are_enough_of_every_fault_over_every_data_set():
    assert len(CURVES) >= 60
    assert {one["name"].split(":")[0] for one in CURVES} == DATASETS
    for half in (FITTED, REPORTED):
        assert min(Counter(one["label"] for one in half)[label] for label in LABELS) >= 5


def test_those_that_thresholds_were_not_fitted_to_are_diagnosed_rightly():
    assert right(REPORTED) >= 0.84 * len(REPORTED)


@pytest.mark.parametrize("label", LABELS)
def test_no_fault_is_diagnosed_at_the_cost_of_another(label):
    of_it = [one for one in CURVES if one["label"] == label]
    assert right(of_it) >= 0.8 * len(of_it)


def test_confident_verdicts_are_right_more_often():
    found = [(one["label"], diagnosed(one)) for one in CURVES]
    assert all(one.confidence is None or 0 < one.confidence < 1 for _, one in found)
    sure = [label == one.verdict for label, one in found if (one.confidence or 0) >= 0.7]
    unsure = [label == one.verdict for label, one in found if (one.confidence or 0) < 0.7]
    assert sum(sure) >= 0.92 * len(sure)
    assert sum(unsure) / len(unsure) < sum(sure) / len(sure)
