import pytest

from epochd.jobs.claim import claim
from epochd.store import events, workers


def test_jobs_come_by_priority_then_age(queue, take):
    old, new, urgent = queue(), queue(), queue(priority=5)
    assert [take().job.id for _ in range(3)] == [urgent.id, old.id, new.id]
    assert take() is None


def test_a_claim_is_an_attempt_and_an_event(database, queue, take):
    job = queue()
    taken = take("worker-7")
    assert (taken.attempt, taken.job.status, taken.job.worker) == (1, "running", "worker-7")
    with database.read() as tx:
        last = events.after(tx, job.number, 0, 10)[-1]
    assert (last.type, last.attempt, last.iteration) == ("job.started", 1, 0)
    assert last.data == {"attempt": 1, "worker": "worker-7", "device": "cpu"}


@pytest.fixture
def workers_with(database):
    def register(*devices):
        with database.write() as tx:
            for number, names in enumerate(devices):
                workers.register(
                    tx, id=f"w{number}", host="host", pid=number, devices=names, slots=len(names)
                )

    return register


@pytest.mark.parametrize(
    ("slot", "taken"),
    [
        ("cpu", ["auto", "cpu", "cuda:7"]),
        ("cuda:0", ["auto", "cpu", "cuda", "cuda:0", "cuda:7"]),
        ("cuda:1", ["auto", "cpu", "cuda", "cuda:1", "cuda:7"]),
    ],
)
def test_a_slot_leaves_to_others_what_only_they_have(database, queue, workers_with, slot, taken):
    workers_with(["cpu"], ["cuda:0", "cuda:1"])
    for device in ("auto", "cpu", "cuda", "cuda:0", "cuda:1", "cuda:7"):
        queue(device=device)
    claimed = iter(lambda: claim(database, worker="w", device=slot, lease_seconds=30), None)
    assert [one.job.spec["device"] for one in claimed] == taken


def test_what_nobody_has_is_left_to_nobody(database, queue, workers_with):
    workers_with(["cpu"])
    queue(device="cuda")
    assert claim(database, worker="w0", device="cpu", lease_seconds=30).job.spec["device"] == "cuda"
