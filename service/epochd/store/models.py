"""The operator's models: what workers have published of each, so that the API knows them without torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select

from epochd.store.database import Transaction
from epochd.store.rows import upsert
from epochd.store.tables import models
from epochd.store.types import now


@dataclass(frozen=True, slots=True)
class ModelRow:
    """A model as it is stored: the columns of ``tables.models``, in their order.

    A row stays when its package is gone from all workers: jobs that ask for it wait for one that has it.
    """

    name: str
    description: dict[str, Any]
    published_at: datetime


def publish(tx: Transaction, descriptions: Sequence[Mapping[str, Any]]) -> None:
    """Store what a worker says of its models, each with its ``name``; of two that differ the newer one counts."""
    moment = tx.execute(select(now())).scalar_one()
    # In one order: two workers that start at the same moment would otherwise wait for each other's rows.
    ordered = sorted(descriptions, key=lambda one: str(one["name"]))
    rows = [{"name": one["name"], "description": dict(one), "published_at": moment} for one in ordered]
    upsert(tx, models, rows)


def get(tx: Transaction, name: str) -> ModelRow | None:
    """Read one; None when no worker has ever published it."""
    row = tx.execute(select(*models.c).where(models.c.name == name)).one_or_none()
    return None if row is None else ModelRow(*row)


def every(tx: Transaction) -> list[ModelRow]:
    """Read all, by name."""
    return [ModelRow(*row) for row in tx.execute(select(*models.c).order_by(models.c.name))]
