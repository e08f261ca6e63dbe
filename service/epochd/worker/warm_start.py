"""Where a job with ``start_from`` begins: the weights and the preprocessing of another job."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from epochd.contract.spec import JobSpec, StartFrom
from epochd.datasets.preprocessing import Preprocessing
from epochd.errors import DataError
from epochd.jobs.source_job import DESCRIPTION, WEIGHTS, find_source
from epochd.store.database import Database
from epochd.training import weights


@dataclass(frozen=True, slots=True)
class WarmStart:
    """What to begin with: ``tensors`` in the order of the model's own, and what its data was preprocessed with.

    ``digest`` is the SHA-256 of the file of the weights, in hex: part of what determines the training.
    """

    tensors: tuple[Tensor, ...]
    preprocessing: Preprocessing
    digest: str

    def put_into(self, model: nn.Module) -> None:
        """Give a model these weights; raises DataError when it is another one."""
        mine = list(model.state_dict().values())
        if [one.shape for one in mine] != [one.shape for one in self.tensors]:
            raise DataError(
                "The weights to start from are of a model with other layers: leave start_from out.",
                code="start_from_mismatch",
            )
        with torch.no_grad():
            for tensor, given in zip(mine, self.tensors, strict=True):
                tensor.copy_(given)


def warm_start(spec: JobSpec, db: Database) -> WarmStart | None:
    """Read what a spec starts from; None when it starts from nothing.

    Raises DataError (``start_from_gone``) when it is not there any more.
    """
    start = spec.start_from
    if start is None:
        return None
    with db.read() as tx:
        source = find_source(tx, start.job)
    if source is None or source.folder is None:
        raise _gone(start, "it was deleted, or is being trained again")
    try:
        _require_unchanged(source.folder, source.digests)
        return _read(start, source.folder)
    except (OSError, ValueError, KeyError, RuntimeError) as error:  # torch says so of tensors that do not fit
        raise _gone(start, f"its files cannot be read ({type(error).__name__})") from error


def _require_unchanged(folder: Path, digests: Mapping[str, str]) -> None:
    """Raise ValueError when the files are not those that the job left: weights off by a bit look like any others."""
    for name in (WEIGHTS, DESCRIPTION):
        if hashlib.sha256((folder / name).read_bytes()).hexdigest() != digests[name]:
            raise ValueError(f"{name} is not what it was")


def _read(start: StartFrom, folder: Path) -> WarmStart:
    model, description = weights.load(folder)
    path = folder / weights.WEIGHTS
    # Without a file of their own the last weights are the selected ones.
    if start.checkpoint == "last" and (folder / weights.LAST).exists():
        path = folder / weights.LAST
        model.load_state_dict(weights.load_tensors(path))
    shape = {"input_shape": description["input_shape"]}
    return WarmStart(
        tuple(model.state_dict().values()),
        Preprocessing.from_dict({**shape, **description["preprocessing"]}),
        hashlib.sha256(path.read_bytes()).hexdigest(),
    )


def _gone(start: StartFrom, why: str) -> DataError:
    message = f"The weights of {start.job}, which this job starts from, are not to be had: {why}."
    return DataError(message, code="start_from_gone")
