"""Jobs and attempts to test the store with."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from epochd.store import jobs
from epochd.store.database import Database
from epochd.store.jobs import Claim, JobRow, NewJob
from epochd.store.metrics import Block
from epochd.store.tables import BLOCK_ITERATIONS

MakeJob = Callable[..., JobRow]
_numbers = itertools.count(1)


def new_job(**overrides: Any) -> NewJob:
    values: dict[str, Any] = {
        "id": f"job_{next(_numbers)}",
        "name": None,
        "spec": {"epochs": 2},
        "plan": {"iterations_per_epoch": 10},
        "advice": [],
        "tags": {},
        "priority": 0,
        "idempotency_key": None,
        "request_digest": "digest",
    }
    return NewJob(**(values | overrides))


@pytest.fixture
def make_job(database: Database) -> MakeJob:
    """Queue a job, committed, and return it."""

    def make(**overrides: Any) -> JobRow:
        with database.write() as tx:
            return jobs.insert(tx, new_job(**overrides))

    return make


@pytest.fixture
def claim_job(database: Database) -> Callable[..., Claim]:
    """Claim the next job, committed; the test fails when there is none."""

    def claim(lease_seconds: float = 30) -> Claim:
        with database.write() as tx:
            claimed = jobs.claim(tx, worker="worker", device="cpu", lease_seconds=lease_seconds)
        assert claimed is not None
        return claimed

    return claim


@pytest.fixture
def running(make_job: MakeJob, claim_job: Callable[..., Claim]) -> Claim:
    """A job that runs in its first attempt."""
    make_job()
    return claim_job()


@pytest.fixture
def make_block() -> Callable[..., Block]:
    """Make a block whose values tell where they come from: train_loss is iteration + offset."""

    def make(number: int, iterations: int, *, offset: float = 0, first: int | None = None) -> Block:
        start = first or number * BLOCK_ITERATIONS + 1
        loss = np.arange(start, start + iterations).astype(np.float32) + np.float32(offset)
        return Block(number, loss, loss / 2, loss / 4, loss * 2, first_iteration=first)

    return make
