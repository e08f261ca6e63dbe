"""What the service has that a spec may refer to: data sets, the operator's models, other jobs."""

from dataclasses import dataclass

from epochd.datasets import catalogue
from epochd.datasets.info import DatasetInfo
from epochd.store.database import Transaction


@dataclass(frozen=True, slots=True)
class KnownDataset:
    """A data set as a resolved spec names it: a built-in one by its name, any other by its id, which never changes.

    ``number`` is its row's; None for a built-in one.
    """

    id: str
    info: DatasetInfo
    number: int | None = None


class Known:
    """Looks up what a spec refers to. Without a transaction only what is built in is known."""

    def __init__(self, tx: Transaction | None = None) -> None:
        self._tx = tx

    def dataset(self, name: str) -> KnownDataset:
        """Find a data set by its id or name.

        Raises ``InvalidRequestError`` (code ``unknown_dataset``) when there is none.
        """
        return KnownDataset(name, catalogue.describe(name))


BUILT_IN = Known()
"""What is known without a database."""
