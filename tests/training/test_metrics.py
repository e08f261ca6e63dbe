import math

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, r2_score

from epochd.training.metrics import R2, Accuracy, metric_factory


def filled(metric, outputs, targets, sizes=(7, 1, 12)):
    for part, target in zip(outputs.split(sizes), targets.split(sizes), strict=True):
        metric.add(part, target)
    return metric.value()


def test_accuracy_weighs_samples_not_mini_batches():
    torch.manual_seed(0)
    outputs, targets = torch.randn(20, 4), torch.randint(0, 4, (20,))
    expected = accuracy_score(targets, outputs.argmax(1))
    assert 0 < expected < 1
    assert filled(Accuracy(), outputs, targets) == pytest.approx(expected)


def test_an_output_of_nan_is_never_right():
    metric = Accuracy()
    metric.add(torch.tensor([[math.nan, 0.0], [0.0, math.nan], [1.0, 0.0]]), torch.tensor([0, 1, 0]))
    assert metric.value() == pytest.approx(1 / 3)


@pytest.mark.parametrize("shift", [0.0, 1e4])
def test_r2_is_that_of_scikit_learn(shift):
    random = np.random.default_rng(0)
    targets = (random.standard_normal((20, 3)) * [1, 2, 0.5] + shift).astype(np.float32)
    outputs = (targets + 0.3 * random.standard_normal((20, 3))).astype(np.float32)
    metric = metric_factory("regression", torch.from_numpy(targets[:9]))()
    value = filled(metric, torch.from_numpy(outputs), torch.from_numpy(targets))
    expected = r2_score(targets.astype(np.float64), outputs.astype(np.float64))
    assert value == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_a_metric_continues_from_its_state(task):
    torch.manual_seed(0)
    outputs = torch.randn(20, 3)
    targets = torch.randint(0, 3, (20,)) if task == "classification" else torch.randn(20, 3)
    make = metric_factory(task, targets)
    whole, first, second = make(), make(), make()
    second.load_state_dict(first.state_dict())
    for start in range(0, 20, 4):
        whole.add(outputs[start : start + 4], targets[start : start + 4])
        first.load_state_dict(second.state_dict())
        first.add(outputs[start : start + 4], targets[start : start + 4])
        second = make()
        second.load_state_dict(first.state_dict())
    assert second.value() == whole.value()
    assert math.isfinite(whole.value())


def test_r2_of_a_bad_model_is_negative():
    metric = R2(torch.zeros(1))
    metric.add(torch.tensor([[3.0], [-3.0]]), torch.tensor([[-1.0], [1.0]]))
    assert metric.value() == pytest.approx(-15.0)


def test_a_constant_target_has_no_r2():
    metric = R2(torch.tensor([0.1]))
    metric.add(torch.tensor([[0.7], [0.3], [0.3]]), torch.full((3, 1), 0.7))
    assert math.isnan(metric.value())
    both = R2(torch.zeros(2))
    both.add(torch.tensor([[1.0, 7.0], [2.0, 8.0]]), torch.tensor([[1.0, 5.0], [2.0, 5.0]]))
    assert both.value() == 1.0


@pytest.mark.parametrize("metric", [Accuracy(), R2(torch.zeros(1))])
def test_nothing_seen_is_no_value(metric):
    assert math.isnan(metric.value())


def test_r2_of_nan_outputs_is_nan():
    metric = R2(torch.zeros(1))
    metric.add(torch.tensor([[math.nan], [1.0]]), torch.tensor([[0.0], [1.0]]))
    assert math.isnan(metric.value())
