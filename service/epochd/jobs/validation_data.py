"""Validating on another data set: whether it fits, and how many samples there are on each side."""

from epochd.contract.spec import JobSpec
from epochd.datasets.info import DatasetInfo
from epochd.datasets.preprocessing.matching import mismatches
from epochd.errors import ParamError
from epochd.jobs.known import Known
from epochd.training.plan import split_sizes


def contradictions(spec: JobSpec, info: DatasetInfo, known: Known) -> list[ParamError]:
    """What of a filled-in spec speaks against validating as it says."""
    if spec.validation is None or spec.validation.dataset is None:
        return []
    found = [
        ParamError("validation.dataset", message, "validation_does_not_fit")
        for message in mismatches(info, known.dataset(spec.validation.dataset, "validation.dataset").info)
    ]
    if spec.validation.fraction is not None:
        message = "With validation.dataset nothing is held back: leave the fraction out, or the data set."
        found.append(ParamError("validation.fraction", message, "fraction_and_dataset"))
    return found


def sizes(spec: JobSpec, samples: int, known: Known) -> tuple[int, int]:
    """How many samples train and how many validate, as a filled-in spec says.

    Raises ValueError as ``split_sizes`` does.
    """
    if spec.validation is None:
        return samples, 0
    if spec.validation.dataset is not None:
        return samples, known.dataset(spec.validation.dataset).info.samples
    return split_sizes(samples, spec.validation.fraction or 0.0)
