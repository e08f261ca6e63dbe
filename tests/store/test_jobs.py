import subprocess
import sys
import threading
from dataclasses import fields

import pytest

from epochd.errors import DuplicateKeyError, InvalidRequestError, NotFoundError
from epochd.store import amendments, artifacts, attempts, events, jobs, metrics, tables
from epochd.store.database import Database
from epochd.store.types import now, seconds_from_now


def test_rows_have_the_columns_of_their_tables_in_order():
    for row, table in [
        (jobs.JobRow, tables.jobs),
        (attempts.AttemptRow, tables.attempts),
        (events.EventRow, tables.events),
        (artifacts.ArtifactRow, tables.artifacts),
        (amendments.AmendmentRow, tables.amendments),
        (metrics.EpochRow, tables.epoch_metrics),
    ]:
        assert [field.name for field in fields(row)] == [column.name for column in table.columns]


def test_an_inserted_job_is_read_back_as_it_was(database, make_job):
    made = make_job(
        id="job_a",
        name="digits-mlp",
        spec={"epochs": 3, "seed": 2**63 - 1, "tags": {"ü": "ß€"}},
        plan={"total_iterations": 69},
        advice=[{"code": "c", "param": "p", "message": "m"}],
        tags={"team": "vision"},
        priority=5,
        idempotency_key="key",
        request_digest="d" * 64,
    )
    with database.read() as tx:
        read = jobs.get(tx, "job_a")
        assert jobs.by_number(tx, made.number) == read
        assert jobs.find_by_idempotency_key(tx, "key") == read
        assert jobs.find_by_idempotency_key(tx, "other") is None
    assert read == made
    assert (read.status, read.attempt, read.version, read.last_event) == ("queued", 0, 0, 0)
    assert (read.name, read.tags, read.priority) == ("digits-mlp", {"team": "vision"}, 5)
    assert read.spec == {"epochs": 3, "seed": 2**63 - 1, "tags": {"ü": "ß€"}}
    assert read.progress is None
    assert read.created_at.utcoffset().total_seconds() == 0


def test_a_job_that_is_not_there_is_not_found(database):
    with database.read() as tx, pytest.raises(NotFoundError) as caught:
        jobs.get(tx, "job_none")
    assert caught.value.code == "job_not_found"


def test_the_same_idempotency_key_twice_is_a_duplicate_and_changes_nothing(database, make_job):
    make_job(idempotency_key="key")
    with pytest.raises(DuplicateKeyError):
        make_job(idempotency_key="key")
    make_job()
    with database.read() as tx:
        page, _ = jobs.page(tx, limit=10)
    assert [job.idempotency_key for job in page] == [None, "key"]


def test_two_submitters_with_one_key_create_one_job(database, make_job):
    barrier = threading.Barrier(8)
    outcomes = []

    def submit():
        barrier.wait()
        try:
            make_job(idempotency_key="key")
            outcomes.append("created")
        except DuplicateKeyError:
            outcomes.append("duplicate")

    _in_threads([submit] * 8)
    assert sorted(outcomes) == ["created"] + ["duplicate"] * 7


def test_pages_are_newest_first_and_cover_every_job_once(database, make_job):
    made = [make_job().id for _ in range(7)]
    seen, after, sizes = [], None, []
    while True:
        with database.read() as tx:
            page, after = jobs.page(tx, limit=3, after=after)
        sizes.append(len(page))
        seen += [job.id for job in page]
        if after is None:
            break
        make_job()  # a newer job does not shift the pages that follow
    assert sizes == [3, 3, 1]
    assert seen == made[::-1]


def test_the_last_full_page_has_no_next(database, make_job):
    for _ in range(4):
        make_job()
    with database.read() as tx:
        _, after = jobs.page(tx, limit=2)
        page, end = jobs.page(tx, limit=2, after=after)
    assert len(page) == 2
    assert end is None


def test_filters_go_together(database, make_job, claim_job):
    first = make_job(name="a", tags={"team": "vision", "x.y-z": "1"}, priority=9)
    make_job(name="a", tags={"team": "speech"})
    make_job(name="b", tags={"team": "vision"})
    claim_job()

    def found(**filters):
        with database.read() as tx:
            return len(jobs.page(tx, limit=10, **filters)[0])

    assert found(name="a") == 2
    assert found(tags={"team": "vision"}) == 2
    assert found(tags={"x.y-z": "1", "team": "vision"}) == 1
    assert found(tags={"none": "1"}) == 0
    assert found(statuses=["queued"]) == 2
    assert found(statuses=["queued", "running"]) == 3
    assert found(statuses=["running"], name="a", tags={"team": "vision"}) == 1
    assert found(statuses=["failed"]) == 0
    assert first.name == "a"


@pytest.mark.parametrize("cursor", ["", "x", "-1", "1.5", "٣", "9" * 30])
def test_a_cursor_from_elsewhere_is_an_error(database, cursor):
    with database.read() as tx, pytest.raises(InvalidRequestError) as caught:
        jobs.page(tx, limit=1, after=cursor)
    assert caught.value.errors[0].param == "after"


def test_claims_go_by_priority_then_age(make_job, claim_job):
    low, old, new, high = (make_job(priority=p).id for p in (-1, 0, 0, 7))
    assert [claim_job().job.id for _ in range(4)] == [high, old, new, low]


def test_a_claim_begins_an_attempt(database, make_job, claim_job):
    job = make_job()
    claim = claim_job(lease_seconds=30)
    assert (claim.job.id, claim.attempt, claim.job.status) == (job.id, 1, "running")
    assert claim.job.version == job.version + 1
    assert claim.job.started_at >= job.created_at
    with database.read() as tx:
        [attempt] = attempts.of_job(tx, job.number)
    assert (attempt.id, attempt.number, attempt.worker, attempt.device) == (
        claim.attempt_id,
        1,
        "worker",
        "cpu",
    )
    assert 29 < (attempt.lease_expires_at - attempt.claimed_at).total_seconds() < 31


def test_nothing_to_claim(database):
    with database.write() as tx:
        assert jobs.claim(tx, worker="w", device="cpu", lease_seconds=30) is None


def test_a_job_is_not_claimed_before_it_is_available(database, make_job, claim_job):
    job = make_job()
    with database.write() as tx:
        assert jobs.transition(
            tx, job.number, expected=("queued",), status="queued", available_at=seconds_from_now(60)
        )
        assert jobs.claim(tx, worker="w", device="cpu", lease_seconds=30) is None
    with database.write() as tx:
        jobs.transition(
            tx, job.number, expected=("queued",), status="queued", available_at=seconds_from_now(-0.5)
        )
    assert claim_job().job.id == job.id


def test_a_second_attempt_shows_what_the_first_one_reached_until_it_knows_better(
    database, running, claim_job
):
    with database.write() as tx:
        jobs.record_progress(
            tx,
            running.job.number,
            attempt=1,
            epoch=3,
            iteration=30,
            progress={"iteration": 30},
            metrics={"train_loss": 1.0},
        )
        assert jobs.get(tx, running.job.id).recorded_at is not None
        assert jobs.transition(
            tx, running.job.number, expected=("running",), status="queued", error={"code": "lost"}
        )
    second = claim_job()
    assert (second.attempt, second.job.epoch, second.job.metrics) == (2, 3, {"train_loss": 1.0})
    # The iteration is the attempt's own; nothing tells yet how old its record is.
    assert (second.job.iteration, second.job.shown_iteration) == (0, 30)
    assert (second.job.error, second.job.recorded_at) == (None, None)
    assert second.job.started_at == running.job.started_at


def test_a_transition_is_won_once(database, running):
    number = running.job.number
    with database.write() as tx:
        assert jobs.transition(tx, number, expected=("running",), status="succeeded", finished_at=now())
    with database.write() as tx:
        assert not jobs.transition(tx, number, expected=("running", "queued"), status="failed")
    with database.read() as tx:
        job = jobs.get(tx, running.job.id)
    assert job.status == "succeeded"
    assert job.version == running.job.version + 1


def test_progress_of_an_older_attempt_is_refused(database, running, claim_job):
    number = running.job.number
    with database.write() as tx:
        jobs.transition(tx, number, expected=("running",), status="queued")
    with database.write() as tx:
        assert not jobs.record_progress(tx, number, attempt=1, iteration=5)
    claim_job()
    with database.write() as tx:
        assert not jobs.record_progress(tx, number, attempt=1, iteration=5)
        assert jobs.record_progress(tx, number, attempt=2, iteration=7)
    with database.read() as tx:
        assert jobs.get(tx, running.job.id).iteration == 7


def test_cancelling_is_for_running_jobs_and_keeps_the_first_moment(database, make_job, claim_job):
    job = make_job()
    with database.write() as tx:
        assert not jobs.request_cancel(tx, job.id, "best", 30)
    claim = claim_job()
    with database.write() as tx:
        assert jobs.request_cancel(tx, job.id, "best", 30)
    with database.read() as tx:
        first = jobs.get(tx, job.id)
    with database.write() as tx:
        assert jobs.request_cancel(tx, job.id, "nothing", 0)
        assert attempts.renew(tx, claim.attempt_id, 30).cancel_keep == "nothing"
    with database.read() as tx:
        second = jobs.get(tx, job.id)
    assert first.cancel_requested_at == second.cancel_requested_at
    assert (second.cancel_keep, second.cancel_grace_seconds) == ("nothing", 0)


def test_a_pause_is_asked_of_running_jobs_and_can_be_withdrawn(database, make_job, claim_job):
    job = make_job()
    with database.write() as tx:
        assert not jobs.request_pause(tx, job.id)
    claim = claim_job()
    with database.write() as tx:
        assert not attempts.control(tx, claim.attempt_id).pause
        assert not jobs.withdraw_pause(tx, job.id)
        assert jobs.request_pause(tx, job.id)
    with database.write() as tx:
        first = jobs.get(tx, job.id).pause_requested_at
        assert attempts.renew(tx, claim.attempt_id, 30).pause
        assert jobs.request_pause(tx, job.id)
        assert jobs.get(tx, job.id).pause_requested_at == first
        assert jobs.withdraw_pause(tx, job.id)
        assert not attempts.renew(tx, claim.attempt_id, 30).pause


def test_a_cancellation_overtakes_a_pause(database, running):
    with database.write() as tx:
        jobs.request_pause(tx, running.job.id)
        jobs.request_cancel(tx, running.job.id, "best", 30)
        control = attempts.renew(tx, running.attempt_id, 30)
        assert (control.cancel_keep, control.pause) == ("best", False)
        assert not jobs.request_pause(tx, running.job.id)


def test_watching_shows_every_change_and_leaves_out_the_deleted(database, make_job, claim_job):
    job, other = make_job(), make_job()

    def watched():
        with database.read() as tx:
            return {row.number: row for row in jobs.watch(tx, [job.number, other.number])}

    before = watched()
    claim_job()
    with database.write() as tx:
        events.append(tx, job.number, "job.started", {})
    after = watched()
    assert after[other.number] == before[other.number]
    number, version, last_event, epoch, status, iteration, attempt = after[job.number]
    assert (number, last_event, epoch, status, iteration, attempt) == (job.number, 1, 0, "running", 0, 1)
    assert version > before[job.number].version
    with database.write() as tx:
        jobs.delete(tx, other.id)
    assert set(watched()) == {job.number}


def test_deleting_removes_everything(database, running, make_block):
    number = running.job.number
    with database.write() as tx:
        metrics.record_iterations(tx, running.attempt_id, 10, [make_block(0, 5)])
        metrics.record_epochs(tx, running.attempt_id, [metrics.NewEpoch(1, 5, {}, 0.1, 1.0, True)])
        events.append(tx, number, "job.started", {})
        artifacts.insert_many(
            tx, number, [artifacts.NewArtifact("model.json", "p", "application/json", 1, "0")]
        )
        amendments.insert_many(tx, number, 0, [("epochs", 9)])
    with database.write() as tx:
        jobs.delete(tx, running.job.id)
        for table in tables.metadata.sorted_tables:
            assert tx.execute(table.select()).all() == [], table.name
        with pytest.raises(NotFoundError):
            jobs.delete(tx, running.job.id)


def test_the_number_of_a_deleted_job_never_comes_again(database, make_job):
    first = make_job()
    with database.write() as tx:
        jobs.delete(tx, first.id)
    assert make_job().number > first.number


CLAIMER = """
import sys
from epochd.store import jobs
from epochd.store.database import Database
db = Database(sys.argv[1])
db.ping()
print("ready", flush=True)
sys.stdin.readline()
while True:
    with db.write() as tx:
        claim = jobs.claim(tx, worker=sys.argv[2], device="cpu", lease_seconds=30)
    if claim is None:
        break
    print(claim.job.id, claim.attempt, flush=True)
"""


def test_four_processes_never_claim_a_job_twice(database, database_url, make_job):
    made = {make_job().id for _ in range(200)}
    claimers = [
        subprocess.Popen(
            [sys.executable, "-c", CLAIMER, database_url, f"worker-{n}"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for n in range(4)
    ]  # fmt: skip
    for claimer in claimers:
        assert claimer.stdout.readline() == "ready\n"
    for claimer in claimers:
        claimer.stdin.write("go\n")
        claimer.stdin.flush()
    claimed = [
        line.split() for claimer in claimers for line in claimer.communicate(timeout=60)[0].splitlines()
    ]
    assert all(claimer.returncode == 0 for claimer in claimers)
    assert sorted(claimed) == sorted([id_, "1"] for id_ in made)
    with database.read() as tx:
        assert {job.status for job in jobs.page(tx, limit=200)[0]} == {"running"}


def test_threads_never_claim_a_job_twice(database: Database, make_job):
    made = {make_job().id for _ in range(40)}
    claimed = []

    def claim_all():
        while True:
            with database.write() as tx:
                claim = jobs.claim(tx, worker="w", device="cpu", lease_seconds=30)
            if claim is None:
                return
            claimed.append(claim.job.id)

    _in_threads([claim_all] * 4)
    assert sorted(claimed) == sorted(made)


def _in_threads(targets):
    threads = [threading.Thread(target=target) for target in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
