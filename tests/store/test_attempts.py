import threading
import time

import pytest

from epochd.errors import AttemptLostError, NotFoundError
from epochd.store import attempts, jobs


def test_renewing_extends_the_lease_and_tells_what_is_asked(database, running):
    with database.write() as tx:
        assert attempts.renew(tx, running.attempt_id, 300).cancel_keep is None
        jobs.request_cancel(tx, running.job.id, "last", 5)
        assert attempts.renew(tx, running.attempt_id, 600).cancel_keep == "last"
    with database.read() as tx:
        attempt = attempts.get(tx, running.attempt_id)
    assert (attempt.lease_expires_at - attempt.claimed_at).total_seconds() >= 600


def test_what_is_asked_can_be_read_without_renewing(database, running):
    with database.write() as tx:
        before = attempts.get(tx, running.attempt_id)
        assert attempts.control(tx, running.attempt_id).cancel_keep is None
        jobs.request_cancel(tx, running.job.id, "nothing", 2.5)
        control = attempts.control(tx, running.attempt_id)
        assert (control.cancel_keep, control.cancel_grace_seconds) == ("nothing", 2.5)
        assert attempts.renew(tx, running.attempt_id, 30) == control
        assert before.lease_expires_at <= attempts.get(tx, running.attempt_id).lease_expires_at
        attempts.finish(tx, running.attempt_id, outcome="cancelled")
        with pytest.raises(AttemptLostError):
            attempts.control(tx, running.attempt_id)


def test_a_lease_that_ran_out_is_told_and_can_be_renewed(database, make_job, claim_job):
    make_job()
    claim = claim_job(-1)
    with database.write() as tx:
        assert attempts.control(tx, claim.attempt_id).lease_expired
        attempts.renew(tx, claim.attempt_id, 30)
        assert not attempts.control(tx, claim.attempt_id).lease_expired


def test_an_attempt_ends_once_and_keeps_its_first_outcome(database, running):
    with database.write() as tx:
        assert attempts.finish(tx, running.attempt_id, outcome="failed", error={"code": "x"})
    with database.write() as tx:
        assert not attempts.finish(tx, running.attempt_id, outcome="succeeded")
        with pytest.raises(AttemptLostError):
            attempts.renew(tx, running.attempt_id, 30)
    with database.read() as tx:
        attempt = attempts.get(tx, running.attempt_id)
    assert (attempt.outcome, attempt.error) == ("failed", {"code": "x"})
    assert attempt.finished_at >= attempt.claimed_at


def test_of_many_who_end_an_attempt_one_does(database, running):
    won, barrier = [], threading.Barrier(8)

    def finish(n):
        barrier.wait()
        with database.write() as tx:
            won.append(attempts.finish(tx, running.attempt_id, outcome=f"by {n}") is not None)

    threads = [threading.Thread(target=finish, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == [False] * 7 + [True]


def test_only_leases_that_ran_out_are_expired(database, make_job, claim_job):
    make_job(), make_job(), make_job()
    dead, dying, alive = claim_job(-2), claim_job(-1), claim_job(60)
    with database.read() as tx:
        assert [attempt.id for attempt in attempts.expired(tx)] == [dead.attempt_id, dying.attempt_id]
    with database.write() as tx:
        assert attempts.finish(tx, dead.attempt_id, outcome="lost", only_expired=True)
        assert not attempts.finish(tx, alive.attempt_id, outcome="lost", only_expired=True)
    with database.read() as tx:
        assert [attempt.id for attempt in attempts.expired(tx)] == [dying.attempt_id]


def test_a_lease_renewed_in_time_keeps_the_reaper_off(database, make_job, claim_job):
    make_job()
    claim = claim_job(-1)
    with database.read() as tx:
        [found] = attempts.expired(tx)
    with database.write() as tx:
        attempts.renew(tx, claim.attempt_id, 30)
    with database.write() as tx:
        assert not attempts.finish(tx, found.id, outcome="lost", only_expired=True)
        attempts.renew(tx, claim.attempt_id, 30)


def test_an_attempt_begins_where_it_resumes(database, running):
    restored = {"epoch": 2, "iteration": 20, "attempt": 1, "saved_at": None, "skipped": []}
    with database.write() as tx:
        attempts.begin(tx, running.attempt_id, 21, restored)
        attempt = attempts.get(tx, running.attempt_id)
        assert (attempt.first_iteration, attempt.last_iteration, attempt.restored) == (21, 20, restored)
        attempts.begin(tx, running.attempt_id, 1)
        attempt = attempts.get(tx, running.attempt_id)
        assert (attempt.first_iteration, attempt.last_iteration, attempt.restored) == (1, 0, None)
        attempts.finish(tx, running.attempt_id, outcome="lost")
        with pytest.raises(AttemptLostError):
            attempts.begin(tx, running.attempt_id, 21, restored)
        assert attempts.get(tx, running.attempt_id).restored is None


def test_a_write_whose_commit_was_not_heard_of_is_not_made_twice(database, running):
    with database.write() as tx:
        assert attempts.first_time(tx, running.attempt_id, 1)
    with database.write() as tx:
        assert not attempts.first_time(tx, running.attempt_id, 1)
        assert attempts.first_time(tx, running.attempt_id, 2)

    def fail():
        with database.write() as tx:
            assert attempts.first_time(tx, running.attempt_id, 3)
            raise LookupError

    with pytest.raises(LookupError):
        fail()
    with database.write() as tx:
        assert attempts.first_time(tx, running.attempt_id, 3)


def test_a_write_repeated_while_the_first_one_still_commits_waits_and_is_not_made(database, running):
    # What a recorder does whose connection broke during the commit, which the server then carried out.
    begun, made = threading.Event(), []

    def first():
        with database.write() as tx:
            attempts.renew(tx, running.attempt_id, 30)
            made.append(attempts.first_time(tx, running.attempt_id, 1))
            begun.set()
            time.sleep(0.3)

    thread = threading.Thread(target=first)
    thread.start()
    assert begun.wait(10)
    with database.write() as tx:
        attempts.renew(tx, running.attempt_id, 30)
        made.append(attempts.first_time(tx, running.attempt_id, 1))
    thread.join()
    assert made == [True, False]


def test_attempts_of_a_job_are_numbered_in_order(database, running, claim_job):
    number = running.job.number
    for _ in range(2):
        with database.write() as tx:
            jobs.transition(tx, number, expected=("running",), status="queued")
        claim_job()
    with database.read() as tx:
        assert [attempt.number for attempt in attempts.of_job(tx, number)] == [1, 2, 3]


def test_an_attempt_that_is_not_there(database):
    with database.read() as tx, pytest.raises(NotFoundError) as caught:
        attempts.get(tx, 1)
    assert caught.value.code == "attempt_not_found"
    with database.write() as tx, pytest.raises(AttemptLostError):
        attempts.renew(tx, 1, 30)
