"""Which data sets a job needs: they stay as long as the job is not done."""

from collections.abc import Mapping
from typing import Any, Final

from epochd.errors import ConflictError, InvalidRequestError, ParamError
from epochd.store import datasets
from epochd.store.database import Transaction

ID_PREFIX: Final = "dataset_"


def ids_in(spec: Mapping[str, Any]) -> dict[str, str]:
    """Give the ids of data sets in a resolved spec, each with its parameter; built-in ones have none."""
    validation = spec["validation"] or {}
    named = {"dataset": spec["dataset"], "validation.dataset": validation.get("dataset")}
    return {
        param: value
        for param, value in named.items()
        if isinstance(value, str) and value.startswith(ID_PREFIX)
    }


def note(tx: Transaction, job_number: int, spec: Mapping[str, Any]) -> None:
    """Note what a new job needs.

    Raises ``InvalidRequestError`` (``unknown_dataset``) when a data set was removed since the spec was resolved.
    """
    needed = ids_in(spec)
    numbers = datasets.hold(tx, list(needed.values())) if needed else {}
    gone = [
        ParamError(param, f"The data set {one} was just removed.", "unknown_dataset")
        for param, one in needed.items()
        if one not in numbers
    ]
    if gone:
        raise InvalidRequestError.of(*gone)
    datasets.use(tx, job_number, list(numbers.values()))


def hold(tx: Transaction, job_id: str, spec: Mapping[str, Any]) -> None:
    """Keep what a job that is to be tried again needs.

    Raises ``ConflictError`` (``dataset_gone``) when a data set was removed.
    """
    needed = list(ids_in(spec).values())
    there = datasets.hold(tx, needed) if needed else {}
    gone = [one for one in needed if one not in there]
    if gone:
        message = (
            f"{gone[0]}, which {job_id} trains on, was removed: bring the data set again and send a new job."
        )
        raise ConflictError(message, code="dataset_gone")
