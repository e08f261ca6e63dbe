import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from sklearn import metrics as reference

from epochd.training.extra_metrics import ExtraMetrics, extra_metrics
from epochd.training.metric_names import EXTRA_METRICS, better
from epochd.training.trainer import Trainer, TrainingData

CPU = torch.device("cpu")
CLASSIFICATION, REGRESSION = EXTRA_METRICS["classification"], EXTRA_METRICS["regression"]


def measured(names, outputs, targets, **unit) -> dict[str, float]:
    found = ExtraMetrics(names, outputs.shape[1], device=CPU, **unit)
    for part, target in zip(outputs.split([7, 1, 72]), targets.split([7, 1, 72]), strict=True):
        found.add(part, target)
    return found.values()


@pytest.mark.parametrize("classes", [2, 4])
def test_they_are_those_of_scikit_learn(classes):
    torch.manual_seed(0)
    outputs, targets = torch.randn(80, classes), torch.randint(0, classes, (80,))
    outputs[torch.arange(80), targets] += 1
    predicted, probabilities = outputs.argmax(1), outputs.softmax(1)
    one_hot = torch.nn.functional.one_hot(targets, classes)
    macro = {"average": "macro"}
    assert measured(CLASSIFICATION, outputs, targets) == pytest.approx({
        "balanced_accuracy": reference.balanced_accuracy_score(targets, predicted),
        "precision": reference.precision_score(targets, predicted, **macro),
        "recall": reference.recall_score(targets, predicted, **macro),
        "f1": reference.f1_score(targets, predicted, **macro),
        "auroc": reference.roc_auc_score(one_hot, probabilities, **macro),
        "average_precision": reference.average_precision_score(one_hot, probabilities, **macro),
    }, abs=1e-5)  # fmt: skip


@pytest.mark.parametrize("targets", [1, 3])
def test_errors_are_in_the_unit_of_the_target(targets):
    torch.manual_seed(0)
    outputs, y = torch.randn(80, targets), torch.randn(80, targets)
    scale, mean = np.arange(1, targets + 1) * 10.0, np.full(targets, 100.0)
    there, here = y.double().numpy() * scale + mean, outputs.double().numpy() * scale + mean
    assert measured(REGRESSION, outputs, y, scale=scale, mean=mean) == pytest.approx({
        "mae": reference.mean_absolute_error(there, here),
        "rmse": math.sqrt(reference.mean_squared_error(there, here)),
        "mape": reference.mean_absolute_percentage_error(there, here),
    })  # fmt: skip


def test_a_class_that_is_not_there_is_left_out():
    outputs, targets = torch.randn(80, 3), torch.randint(0, 2, (80,))
    found = measured(CLASSIFICATION, outputs, targets)
    predicted = outputs.argmax(1)
    recalls = reference.recall_score(targets, predicted, average=None, labels=[0, 1], zero_division=0)
    assert found["balanced_accuracy"] == pytest.approx(recalls.mean())
    areas = [reference.roc_auc_score(targets == label, outputs.softmax(1)[:, label]) for label in (0, 1)]
    assert found["auroc"] == pytest.approx(np.mean(areas))


def test_outputs_that_are_not_finite_have_no_metrics():
    outputs, targets = torch.randn(80, 3), torch.randint(0, 3, (80,))
    outputs[3, 1] = math.nan
    assert all(math.isnan(value) for value in measured(CLASSIFICATION, outputs, targets).values())


def test_they_come_with_each_epoch(make_config, classification, regression):
    trainer = Trainer(make_config(metrics=("f1", "auroc")), classification)
    assert trainer.metric_names[-2:] == ("validation_f1", "validation_auroc")
    list(trainer.run())
    metrics = trainer.last_epoch.metrics
    logits = trainer.model.eval()(torch.from_numpy(classification.validation.x))
    expected = reference.f1_score(classification.validation.y, logits.argmax(1), average="macro")
    assert metrics["validation_f1"] == pytest.approx(expected, abs=1e-6)
    scaled = TrainingData(regression.train, regression.validation, np.full(2, 10.0), np.full(2, 5.0))
    values = []
    for data in (regression, scaled):
        trainer = Trainer(make_config(task="regression", metrics=("mae",)), data)
        list(trainer.run())
        values.append(trainer.last_epoch.metrics["validation_mae"])
    assert values[1] == pytest.approx(10 * values[0])


def test_without_any_torchmetrics_is_not_imported():
    assert extra_metrics((), 3, device=CPU) is None
    code = "import sys, epochd.training.trainer; sys.exit('torchmetrics' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_errors_are_better_when_lower():
    names = ["validation_loss", "train_loss", "validation_rmse", "validation_f1", "train_r2"]
    assert [better(name) for name in names] == ["min", "min", "min", "max", "max"]
