"""Jobs and attempts to test the store with."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from epochd.store import attempts, jobs, metrics
from epochd.store.database import Database
from epochd.store.jobs import Claim, JobRow, NewJob
from epochd.store.metrics import Block
from epochd.store.tables import BLOCK_ITERATIONS

MakeJob = Callable[..., JobRow]
_numbers = itertools.count(1)

PER_EPOCH = 100
"""Iterations an epoch of what ``record`` records."""


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


@pytest.fixture
def record(database: Database, make_block: Callable[..., Block]) -> Callable[..., None]:
    """Record iterations first … last of an attempt, in blocks, with train_loss = iteration + offset."""

    def record_(attempt_id, first, last, *, offset=0.0):
        blocks, start = [], first
        while start <= last:
            number = (start - 1) // 1024
            stop = min(last, (number + 1) * 1024)
            begin = None if start == number * 1024 + 1 else start
            blocks.append(make_block(number, stop - start + 1, offset=offset, first=begin))
            start = stop + 1
        with database.write() as tx:
            metrics.record_iterations(tx, attempt_id, PER_EPOCH, blocks)

    return record_


@pytest.fixture
def next_attempt(database, claim_job):
    """Give a running job back and claim it again."""

    def next_(claim):
        with database.write() as tx:
            attempts.finish(tx, claim.attempt_id, outcome="lost")
            jobs.transition(tx, claim.job.number, expected=("running",), status="queued")
        return claim_job()

    return next_
