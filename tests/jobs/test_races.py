"""What callers ask for, and what happens to attempts, at the same moment."""

import random
import threading
import time
from functools import partial

import pytest

from epochd.contract.job import JobPatch
from epochd.errors import (
    AttemptLostError,
    ConflictError,
    DataError,
    InfrastructureError,
    InvalidRequestError,
)
from epochd.jobs.amend import amend
from epochd.jobs.cancel import cancel
from epochd.jobs.complete import Outcome, complete, error_dict, give_back, lose
from epochd.jobs.lifecycle import DONE, TRANSITIONS
from epochd.jobs.pause import pause, resume
from epochd.jobs.retry import retry
from epochd.store import amendments, attempts, events, jobs

ROUNDS = 8
CLAIMS = 12
BROKEN = Outcome("failed", "failed", error=error_dict(DataError("bad")))
AWAY = Outcome("failed", "failed", error=error_dict(InfrastructureError("away")))


def at_once(*calls):
    """Run the calls at the same moment; give what each returned, or the error that it may raise."""
    barrier, results = threading.Barrier(len(calls)), [None] * len(calls)

    def run(index, call):
        barrier.wait()
        try:
            results[index] = call()
        except (ConflictError, AttemptLostError) as error:
            results[index] = error

    threads = [threading.Thread(target=run, args=(index, call)) for index, call in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def report(database, taken, outcome):
    return lambda: complete(database, taken.attempt_id, outcome, retry_delay_seconds=0)


def check(database, job):
    """Check all that must be true of a job at every moment; return its row."""
    with database.read() as tx:
        row, made = jobs.get(tx, job.id), attempts.of_job(tx, job.number)
        log, asked = events.after(tx, job.number, 0, 10_000), amendments.of_job(tx, job.number)
    assert [one.number for one in made] == list(range(1, row.attempt + 1))
    running = [one.number for one in made if one.finished_at is None]
    assert running == ([row.attempt] if row.status == "running" else []), (
        "whoever runs it has its newest attempt"
    )
    if row.pause_requested_at is not None:
        assert (row.status, row.cancel_requested_at) == ("running", None)
    if row.status == "paused":
        assert row.cancel_requested_at is None, "a cancellation is not forgotten by a pause"
    assert (row.finished_at is not None) == (row.stop_reason is not None) == (row.status in DONE)
    assert [event.seq for event in log] == list(range(1, row.last_event + 1))
    stamps = [(event.attempt, event.iteration) for event in log]
    assert stamps == sorted(stamps), "no event goes back"
    assert replayed(log) == row.status
    assert [one.number for one in asked] == list(range(1, row.amendments + 1))
    return row


def replayed(log):
    """Follow the events from status to status, as a subscriber would; each must be allowed to follow."""
    status, types = None, [event.type for event in log]
    for kind, following in zip(types, [*types[1:], ""], strict=True):
        target = {
            "job.queued": "queued",
            "job.started": "running",
            "job.resumed": "queued",
            "attempt.lost": "running" if following == "job.paused" else "queued",
        }.get(kind, kind.removeprefix("job."))
        if kind == "spec.amended":
            continue
        assert status in (None, target) or target in TRANSITIONS[status], f"{kind} follows {status}"
        status = target
    return status


@pytest.fixture
def rounds(database, queue):
    """Give a fresh job, the only one, several times."""

    def each(**changes):
        for _ in range(ROUNDS):
            job = queue(**changes)
            yield job
            with database.write() as tx:
                jobs.delete(tx, job.id)

    return each


def test_a_claim_and_a_pause(database, rounds, take):
    for job in rounds():
        taken, _ = at_once(take, partial(pause, database, job.id))
        row = check(database, job)
        if taken is None:
            assert row.status == "paused"
        else:
            assert (row.status, row.pause_requested_at is not None) == ("running", True)


def test_a_claim_and_a_cancellation(database, rounds, take):
    for job in rounds():
        taken, _ = at_once(take, partial(cancel, database, job.id, keep="best", grace_seconds=1))
        row = check(database, job)
        assert (row.status, row.cancel_requested_at is not None) == (
            "running" if taken else "cancelled",
            True,
        )


def test_a_claim_and_an_amendment(database, rounds, take):
    for job in rounds():
        taken, _ = at_once(take, partial(amend, database, job.id, JobPatch.model_validate({"epochs": 9})))
        taken = taken or take()  # the amendment may have held the row
        row = check(database, job)
        begins_with = taken.job.initial_spec or taken.job.spec
        assert row.spec["epochs"] == 9
        # The training begins with it, or hears of it, and not both.
        assert (begins_with["epochs"], row.amendments) in {(9, 0), (3, 1)}
        assert (row.initial_spec or row.spec)["epochs"] == begins_with["epochs"]


def test_a_pause_that_happens_and_its_withdrawal(database, rounds, take, train):
    for job in rounds():
        taken = take()
        train(taken)
        pause(database, job.id)
        ended, _ = at_once(report(database, taken, Outcome("paused")), partial(resume, database, job.id))
        assert ended is True
        assert check(database, job).status == "queued"
        assert take().recorded.iteration == 16


@pytest.mark.parametrize("keep", ["best", "nothing"])
def test_a_pause_that_happens_and_a_cancellation(database, rounds, take, train, keep):
    for job in rounds():
        taken = take()
        train(taken)
        pause(database, job.id)
        calls = (
            report(database, taken, Outcome("paused")),
            partial(cancel, database, job.id, keep=keep, grace_seconds=1),
        )
        at_once(*calls)
        row = check(database, job)
        assert (row.status, row.cancel_keep) == ("queued" if keep == "best" else "cancelled", keep)


def test_a_lost_attempt_and_a_pause(database, rounds, take, train):
    for job in rounds():
        taken = take()
        train(taken)
        at_once(
            partial(lose, database, taken.attempt_id, "It died.", retry_delay_seconds=0),
            partial(pause, database, job.id),
        )
        assert check(database, job).status == "paused"


def test_a_lost_attempt_a_pause_and_a_cancellation(database, rounds, take, train):
    for job in rounds():
        taken = take()
        train(taken)
        at_once(
            partial(lose, database, taken.attempt_id, "It died.", retry_delay_seconds=0),
            partial(pause, database, job.id),
            partial(cancel, database, job.id, keep="last", grace_seconds=1),
        )
        row = check(database, job)
        assert (row.status, row.cancel_keep) == ("queued", "last")


def test_a_success_a_pause_and_an_amendment(database, rounds, take, train):
    for job in rounds():
        taken = take()
        train(taken, epochs=3)
        at_once(
            report(database, taken, Outcome("succeeded", "completed")),
            partial(pause, database, job.id),
            partial(amend, database, job.id, JobPatch.model_validate({"epochs": 9})),
        )
        row = check(database, job)
        assert (row.status, row.spec["epochs"], row.plan) == ("succeeded", 3, job.plan)


def test_the_reaper_and_the_worker(database, rounds, take, train):
    for job in rounds(max_attempts=1):
        taken = take(lease_seconds=0)
        ended = at_once(
            partial(lose, database, taken.attempt_id, "It died.", retry_delay_seconds=0, only_expired=True),
            report(database, taken, Outcome("paused")),
        )
        assert sorted(ended) == [False, True]
        assert check(database, job).status == ("failed" if ended[0] else "queued")


def test_two_retries_and_a_claim(database, rounds, take, train):
    for job in rounds():
        taken = take()
        train(taken)
        complete(database, taken.attempt_id, BROKEN, retry_delay_seconds=0)
        *retried, second = at_once(
            partial(retry, database, job.id, "checkpoint"), partial(retry, database, job.id, "scratch"), take
        )
        assert sum(isinstance(one, ConflictError) for one in retried) == 1
        row, second = check(database, job), second or take()
        assert (row.attempt, second.attempt) == (second.attempt if row.status == "running" else 1, 2)
        assert second.recorded.iteration == (0 if row.restarted_after else 16)


def test_two_amendments(database, rounds, take):
    for job in rounds():
        take()
        at_once(
            partial(amend, database, job.id, JobPatch.model_validate({"epochs": 9})),
            partial(amend, database, job.id, JobPatch.model_validate({"optimizer": {"learning_rate": 0.5}})),
        )
        row = check(database, job)
        assert (row.spec["epochs"], row.spec["optimizer"]["learning_rate"], row.amendments) == (9, 0.5, 2)
        assert row.initial_spec["epochs"] == 3


class Chaos:
    """Callers, workers and the reaper, who all do what they please with one job."""

    def __init__(self, database, job, take, train):
        self.database, self.job, self.take, self.train = database, job, take, train
        self.taken = []
        self.unexpected = []
        self.over = threading.Event()

    def act(self, kind, seed):
        chance = random.Random(seed)
        wishes = self.wishes_of_callers() if kind == "caller" else self.wishes_of_workers()
        while not self.over.wait(chance.uniform(0, 0.02)):
            try:
                chance.choice(wishes)(chance)
            except (ConflictError, AttemptLostError, InvalidRequestError):
                pass
            except BaseException as error:
                self.unexpected.append(error)
                raise

    def wishes_of_callers(self):
        db, id_ = self.database, self.job.id

        def change(**body):
            return amend(db, id_, JobPatch.model_validate(body))

        return [
            lambda _: pause(db, id_),
            *[lambda _: resume(db, id_)] * 2,
            lambda chance: cancel(
                db, id_, keep=chance.choice(["best", "last", "nothing"]), grace_seconds=chance.uniform(0, 9)
            ),
            *[lambda chance: retry(db, id_, chance.choice(["checkpoint", "checkpoint", "scratch"]))] * 4,
            lambda chance: change(epochs=chance.randrange(1, 90), name="n"),
            lambda chance: change(optimizer={"learning_rate": chance.choice([0.1, 0.2])}),
        ]

    def wishes_of_workers(self):
        db = self.database

        def end(outcome):
            return self.to_one_taken(
                lambda taken: complete(db, taken.attempt_id, outcome, retry_delay_seconds=0)
            )

        def give_up(how, **options):
            return self.to_one_taken(lambda taken: how(db, taken.attempt_id, "Chance.", **options))

        return [
            *[self.claim] * 5,
            *[self.to_one_taken(self.record)] * 3,
            end(Outcome("paused")),
            end(Outcome("released")),
            end(Outcome("cancelled", "cancelled")),
            end(AWAY),
            end(BROKEN),
            give_up(lose, retry_delay_seconds=0),
            give_up(lose, retry_delay_seconds=0, only_expired=True),
            give_up(give_back),
        ]

    def claim(self, chance):
        taken = self.take(lease_seconds=chance.choice([0, 30]))
        if taken is not None:
            self.taken.append(taken)

    def to_one_taken(self, call):
        """Make what happens to one of the newest attempts, which may have ended long ago."""
        return lambda chance: call(chance.choice(self.taken[-2:])) if self.taken else None

    def record(self, taken):
        with self.database.write() as tx:
            control = attempts.renew(tx, taken.attempt_id, 30)
            amendments.applied(tx, taken.job.number, control.amendments, 1, 8)
        first = taken.recorded.iteration + 1
        if first < 500:
            self.train(taken, epochs=first // 8 + 1, first_iteration=first)


@pytest.mark.parametrize("seed", range(2))
def test_whatever_happens_at_once_a_job_stays_whole(database, queue, take, train, seed):
    job = queue(max_attempts=4)
    chaos = Chaos(database, job, take, train)
    threads = [
        threading.Thread(target=chaos.act, args=(kind, f"{seed} {kind} {n}"))
        for kind in ("caller", "worker")
        for n in range(3)
    ]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 60
    while len(chaos.taken) < CLAIMS and not chaos.unexpected and time.monotonic() < deadline:
        check(database, job)
        time.sleep(0.05)
    chaos.over.set()
    for thread in threads:
        thread.join()
    assert chaos.unexpected == []
    check(database, job)
    assert len(chaos.taken) >= CLAIMS
