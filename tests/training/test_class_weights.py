from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional

from epochd.training.class_weights import normalised
from epochd.training.config import DataShape, ModelConfig, OptimizerConfig, TrainingConfig
from epochd.training.data import Samples, TrainingData
from epochd.training.loss_gradients import loss_gradient
from epochd.training.losses import WeightedCrossEntropy, training_loss, trivial_training_loss
from epochd.training.trainer import Trainer

Y = np.array([0] * 12 + [1] * 5 + [2] * 3)
WEIGHTS = (0.5, 2.0, 7.0)
CPU = torch.device("cpu")


def config(**fields) -> TrainingConfig:
    model = ModelConfig("linear", DataShape("table", (2,), 3))
    return TrainingConfig("classification", model, epochs=1, batch_size=8, **fields)


@pytest.mark.parametrize("weights", [WEIGHTS, "balanced", None])
def test_on_average_a_sample_counts_one(weights):
    assert normalised(weights, Y, 3)[Y].mean() == pytest.approx(1)


def test_balanced_weights_are_those_of_scikit_learn():
    assert normalised("balanced", Y, 3) == pytest.approx(
        compute_class_weight("balanced", classes=np.arange(3), y=Y)
    )
    assert normalised("balanced", Y, 4)[3] == 1  # no sample of it to train on


def test_given_weights_keep_their_ratios():
    found = normalised(WEIGHTS, Y, 3)
    assert found / found[0] == pytest.approx(np.array(WEIGHTS) / WEIGHTS[0])


def test_weights_alone_are_torchs_times_the_mean_weight_of_the_mini_batch():
    """torch divides by the weights of the mini-batch; here it is the number of samples."""
    outputs, y = torch.randn(20, 3), torch.from_numpy(Y)
    loss = training_loss(config(class_weights=WEIGHTS), Y, CPU)
    expected = functional.cross_entropy(outputs, y, weight=torch.tensor(WEIGHTS))
    assert loss(outputs, y).item() == pytest.approx(
        expected.item(), rel=1e-5
    )  # on all samples their mean is 1
    few = loss(outputs[:2], y[:2])  # of the commonest class, which counts little
    assert few.item() < functional.cross_entropy(outputs[:2], y[:2]).item() * 0.5


def test_smoothing_alone_is_torchs():
    outputs, y = torch.randn(20, 3), torch.from_numpy(Y)
    found = training_loss(config(label_smoothing=0.2), Y, CPU)(outputs, y)
    expected = functional.cross_entropy(outputs, y, label_smoothing=0.2)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("weights", [WEIGHTS, "balanced", None])
def test_the_written_out_gradient_is_autograds(weights, smoothing):
    loss = WeightedCrossEntropy(torch.tensor(normalised(weights, Y, 3), dtype=torch.float32), smoothing)
    outputs, y = torch.randn(20, 3, requires_grad=True), torch.from_numpy(Y)
    expected = loss(outputs, y)
    expected.backward()
    slot = torch.zeros(())
    gradient = loss_gradient(loss)(outputs.detach(), y, slot)
    torch.testing.assert_close(gradient, outputs.grad)
    torch.testing.assert_close(slot, expected.detach())


@pytest.mark.parametrize("fields", [
    {"class_weights": WEIGHTS}, {"class_weights": "balanced"}, {"label_smoothing": 0.2},
    {"class_weights": WEIGHTS, "label_smoothing": 0.2}, {},
], ids=str)  # fmt: skip
def test_the_trivial_loss_is_the_least_that_one_prediction_for_all_can_have(fields):
    loss = training_loss(config(**fields), Y, CPU)
    logits = torch.zeros(3, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=100, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        value = loss(logits.expand(20, 3), torch.from_numpy(Y))
        value.backward()
        return value

    optimizer.step(closure)
    assert trivial_training_loss(config(**fields), Y) == pytest.approx(closure().item(), rel=1e-4)


def test_balancing_finds_the_rare_class():
    """A hundred to one, and overlapping: without weights, saying always the common class is best."""
    random = np.random.default_rng(0)
    y = (np.arange(2020) >= 2000).astype(np.int64)
    x = (random.standard_normal((2020, 1)) + 1.5 * y[:, None]).astype(np.float32)
    recall = {}
    for weights in (None, "balanced"):
        weighted = config(class_weights=weights, metrics=("recall",))
        model, optimizer = ModelConfig("linear", DataShape("table", (1,), 2)), OptimizerConfig("adam", 0.05)
        trained = replace(weighted, model=model, optimizer=optimizer, epochs=60, batch_size=256)
        trainer = Trainer(trained, TrainingData(Samples(x, y), Samples(x, y)))
        list(trainer.run())
        recall[weights] = trainer.evaluate()["validation_recall"]
    assert recall[None] < 0.55
    assert recall["balanced"] > 0.7


@pytest.mark.parametrize(("fields", "message"), [
    ({"class_weights": (1.0, 2.0)}, "2 class_weights; the model has 3 classes"),
    ({"metrics": ("rmse",)}, "metrics rmse do not fit the task classification"),
])  # fmt: skip
def test_a_contradiction_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Trainer(config(**fields), TrainingData(Samples(np.zeros((20, 2), np.float32), Y)))
