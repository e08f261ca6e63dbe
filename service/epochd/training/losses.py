"""Losses by name, and what the trivial predictor would lose."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from torch import Tensor
from torch.nn import functional

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
