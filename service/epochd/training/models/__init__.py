"""Models built from their description (``architecture``), and what one costs to run."""

from epochd.training.architecture import layers
from epochd.training.models.building import build, draws_randomness, parameter_count
from epochd.training.models.cost import cost, parts_to_share

__all__ = ["build", "cost", "draws_randomness", "layers", "parameter_count", "parts_to_share"]
