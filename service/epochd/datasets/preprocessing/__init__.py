"""From measured samples to what a model gets: fitted on the training split alone, kept with the weights."""

from epochd.datasets.preprocessing.fitted import Preprocessing, Reading
from epochd.datasets.preprocessing.rows import CHUNK_VALUES

__all__ = ["CHUNK_VALUES", "Preprocessing", "Reading"]
