from epochd.store import amendments, attempts, jobs

POLICY = {"monitor": "validation_loss", "patience": 3}


def test_amendments_are_numbered_counted_and_read_in_order(database, running):
    number = running.job.number
    with database.write() as tx:
        assert amendments.insert_many(tx, number, 0, [("learning_rate", 0.5), ("epochs", 9)]) == 2
        assert attempts.renew(tx, running.attempt_id, 30).amendments == 2
        assert amendments.insert_many(tx, number, 2, [("early_stopping", POLICY)]) == 3
        assert amendments.insert_many(tx, number, 3, [("early_stopping", None)]) == 4
        assert amendments.insert_many(tx, number, 4, []) == 4
    with database.read() as tx:
        assert jobs.get(tx, running.job.id).amendments == 4
        found = amendments.of_job(tx, number)
        assert amendments.of_job(tx, number, after_number=3) == found[3:]
    assert [(one.number, one.changes) for one in found] == [
        (1, {"optimizer.learning_rate": 0.5}),
        (2, {"epochs": 9}),
        (3, {"early_stopping": POLICY}),
        (4, {"early_stopping": None}),
    ]
    assert {(one.epoch, one.iteration, one.applied_at) for one in found} == {(None, None, None)}


def test_where_an_amendment_took_effect_is_noted_once(database, running):
    number = running.job.number
    with database.write() as tx:
        amendments.insert_many(tx, number, 0, [("epochs", 9), ("epochs", 8)])
        assert amendments.applied(tx, number, 1, 3, 30)
        assert not amendments.applied(tx, number, 1, 4, 40)
        assert not amendments.applied(tx, number, 7, 4, 40)
    with database.read() as tx:
        first, second = amendments.of_job(tx, number)
    assert (first.epoch, first.iteration, first.applied_at >= first.requested_at) == (3, 30, True)
    assert second.applied_at is None


def test_a_claim_brings_the_amendments_along(database, running, claim_job):
    number = running.job.number
    with database.write() as tx:
        amendments.insert_many(tx, number, 0, [("epochs", 9)])
        attempts.finish(tx, running.attempt_id, outcome="lost")
        jobs.transition(tx, number, expected=("running",), status="queued")
    second = claim_job()
    assert [(one.field, one.value) for one in second.amendments] == [("epochs", 9)]
    with database.write() as tx:
        amendments.remove(tx, number)
        assert amendments.of_job(tx, number) == []
