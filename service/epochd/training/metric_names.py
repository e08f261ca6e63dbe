"""What epoch metrics are called, which task each is for, and which way is better. No torch: specs are checked by it."""

from typing import Final, Literal

from epochd.training.config import Task

METRIC_NAMES: Final[dict[Task, str]] = {"classification": "accuracy", "regression": "r2"}
"""What is measured on each split, beside the loss."""
EXTRA_METRICS: Final[dict[Task, tuple[str, ...]]] = {
    "classification": ("balanced_accuracy", "precision", "recall", "f1", "auroc", "average_precision"),
    "regression": ("mae", "rmse", "mape"),
}
"""What can be measured on the validation split besides, see ``extra_metrics``."""
ERRORS: Final = frozenset({"loss", "mae", "rmse", "mape"})


def better(metric: str) -> Literal["min", "max"]:
    """Whether a lower or a higher value of an epoch metric such as ``validation_loss`` is better."""
    return "min" if metric.removeprefix("train_").removeprefix("validation_") in ERRORS else "max"
