"""What the service has that a spec may refer to: data sets, the operator's models, other jobs."""

from dataclasses import dataclass, replace
from typing import Any

from epochd.datasets import catalogue
from epochd.datasets.info import DatasetInfo
from epochd.errors import InvalidRequestError, ParamError
from epochd.jobs.source_job import SourceJob, find_source
from epochd.store import datasets, models, workers
from epochd.store.database import Transaction
from epochd.store.datasets import DatasetRow


@dataclass(frozen=True, slots=True)
class KnownDataset:
    """A data set as a resolved spec names it: a built-in one by its name, any other by its id, which never changes.

    ``number`` is its row's; None for a built-in one.
    """

    id: str
    info: DatasetInfo
    number: int | None = None


class Known:
    """Looks up what a spec refers to, a data set once. Without a transaction only what is built in is known."""

    def __init__(self, tx: Transaction | None = None) -> None:
        self._tx = tx
        # A spec is resolved and planned in several steps, each of which asks; columns and values may be thousands.
        self._datasets: dict[str, KnownDataset] = {}

    def dataset(self, name: str, param: str = "dataset") -> KnownDataset:
        """Find a data set by its id or name.

        Raises ``InvalidRequestError`` (code ``unknown_dataset``, at ``param``) when there is none.
        """
        if name not in self._datasets:
            found = self._find_dataset(name, param)
            # A resolved spec has the id where the caller's had the name.
            self._datasets |= {name: found, found.id: found}
        return self._datasets[name]

    def _find_dataset(self, name: str, param: str) -> KnownDataset:
        row = self._brought(name)
        if row is not None:
            return KnownDataset(row.id, replace(DatasetInfo.from_dict(row.info), name=row.name), row.number)
        others = () if self._tx is None or name in catalogue.names() else datasets.names(self._tx)
        try:
            return KnownDataset(name, catalogue.describe(name, others))
        except InvalidRequestError as error:
            (found,) = error.errors
            raise InvalidRequestError.of(ParamError(param, found.message, found.code)) from None

    def _brought(self, name: str) -> DatasetRow | None:
        if self._tx is None or name in catalogue.names():
            return None
        return datasets.find(self._tx, name)

    def model(self, name: str) -> dict[str, Any] | None:
        """Find what workers published of an operator's model; None when none ever did."""
        row = None if self._tx is None else models.get(self._tx, name)
        return None if row is None else row.description

    def models(self) -> list[str]:
        """Name the operator's models that were ever published."""
        return [] if self._tx is None else [row.name for row in models.every(self._tx)]

    def is_offered(self, model: str) -> bool:
        """Tell whether a worker that lives has this model of the operator's."""
        return self._tx is not None and any(model in (one.models or ()) for one in workers.alive(self._tx))

    def source_job(self, job_id: str) -> SourceJob | None:
        """Find a job to start from, and its weights; None when there is no such job."""
        return None if self._tx is None else find_source(self._tx, job_id)


BUILT_IN = Known()
"""What is known without a database."""
