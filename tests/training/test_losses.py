import numpy as np
import pytest
import torch

from epochd.training.losses import LOSSES, loss_function, trivial_loss


def test_the_trivial_classifier_predicts_the_class_frequencies():
    y = np.array([0] * 5 + [1] * 3 + [2] * 2)
    logits = torch.tensor([0.5, 0.3, 0.2]).log().expand(10, 3)
    expected = loss_function("cross_entropy")(logits, torch.from_numpy(y)).item()
    assert trivial_loss("cross_entropy", y) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("shape", [(50,), (50, 3)])
@pytest.mark.parametrize("name", ["mse", "mae", "huber"])
def test_the_trivial_regressor_predicts_the_mean(name, shape):
    y = (np.random.default_rng(0).standard_normal(shape) * 2 + 3).astype(np.float32)
    targets = torch.from_numpy(y).reshape(50, -1)
    expected = loss_function(name)(targets.mean(dim=0).expand_as(targets), targets).item()
    assert trivial_loss(name, y) == pytest.approx(expected, rel=1e-5)


def test_one_class_is_certain():
    assert trivial_loss("cross_entropy", np.zeros(4, dtype=np.int64)) == 0


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_a_loss_is_a_mean(name):
    """Repeating every sample changes nothing."""
    outputs = torch.randn(6, 3)
    targets = torch.randint(0, 3, (6,)) if name == "cross_entropy" else torch.randn(6, 3)
    once = loss_function(name)(outputs, targets)
    twice = loss_function(name)(outputs.repeat(2, 1), torch.cat([targets, targets]))
    assert once.shape == ()
    assert twice.item() == pytest.approx(once.item(), rel=1e-6)
