"""Losses by name, and what the trivial predictor would lose.

Where classes have weights w, or labels are smoothed by s, a sample of class y loses

    w[y] * ((1 - s) * -log p[y] + s * mean over all classes c of -log p[c])

and the loss of a mini-batch is the mean of that over its samples: divided by their number, not by their weights. So the
mean over mini-batches is that over the samples. The weights are those of ``class_weights.normalised``, 1 on average
over the training split, which leaves the loss about as large as it was and learning rates what they are.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from epochd.training.class_weights import normalised
from epochd.training.config import TrainingConfig

Loss = Callable[[Tensor, Tensor], Tensor]
HUBER_DELTA = 1.0

LOSSES: dict[str, Loss] = {
    "cross_entropy": functional.cross_entropy,
    "mse": functional.mse_loss,
    "mae": functional.l1_loss,
    "huber": functional.huber_loss,
}
"""Each maps outputs (n, classes or targets) and targets to the mean over the mini-batch, a scalar tensor."""


def loss_function(name: str) -> Loss:
    """The loss called ``name``; outputs of lower precision are lifted to float32 by the caller."""
    return LOSSES[name]


class WeightedCrossEntropy:
    """Cross-entropy of logits (n, classes) and class numbers (n,), with weights and smoothing as above.

    ``weights`` are float32 (classes,), on the device of what it is called with.
    """

    def __init__(self, weights: Tensor, smoothing: float) -> None:
        self.weights = weights
        self.smoothing = smoothing

    def __call__(self, outputs: Tensor, y: Tensor) -> Tensor:
        """The mean over the mini-batch, a scalar tensor."""
        log_probabilities = outputs.log_softmax(dim=1)
        of_label = log_probabilities.gather(1, y.unsqueeze(1)).squeeze(1)
        gained = of_label * (1 - self.smoothing)
        if self.smoothing:
            gained = gained + log_probabilities.mean(dim=1) * self.smoothing
        return -(gained * self.weights[y]).mean()


def training_loss(config: TrainingConfig, y: npt.NDArray[Any], device: torch.device) -> Loss:
    """The loss that ``config`` asks for, given the targets of the training split."""
    if config.class_weights is None and not config.label_smoothing:
        return loss_function(config.loss)
    weights = normalised(config.class_weights, y, config.model.data.outputs)
    return WeightedCrossEntropy(
        torch.as_tensor(weights, dtype=torch.float32, device=device), config.label_smoothing
    )


def trivial_training_loss(config: TrainingConfig, y: npt.NDArray[Any]) -> float:
    """The least that ``training_loss`` can be when every sample gets the same prediction.

    With weights and smoothing it is the entropy of what each class makes up of all weighted, smoothed labels.
    """
    if config.class_weights is None and not config.label_smoothing:
        return trivial_loss(config.loss, y)
    classes = config.model.data.outputs
    weights = normalised(config.class_weights, y, classes)
    share = weights * np.bincount(y, minlength=classes) / len(y)
    smoothed = (1 - config.label_smoothing) * share + config.label_smoothing * share.sum() / classes
    positive = smoothed[smoothed > 0]
    return float(-(positive * np.log(positive)).sum())


def trivial_loss(name: str, y: npt.NDArray[np.generic]) -> float:
    """The loss of always predicting the class frequencies, or the mean of each target, of ``y`` itself.

    For cross_entropy this is the entropy of the class frequencies in nats.
    """
    if name == "cross_entropy":
        _, counts = np.unique(y, return_counts=True)
        frequencies = counts / counts.sum()
        return float(-(frequencies * np.log(frequencies)).sum())
    targets = y.astype(np.float64)
    distance = np.abs(targets - targets.mean(axis=0))
    return float(_POINTWISE[name](distance).mean())


def _huber(distance: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    near = 0.5 * distance**2
    return np.where(distance <= HUBER_DELTA, near, HUBER_DELTA * (distance - 0.5 * HUBER_DELTA))


_POINTWISE: dict[str, Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]] = {
    "mse": np.square,
    "mae": np.abs,
    "huber": _huber,
}
