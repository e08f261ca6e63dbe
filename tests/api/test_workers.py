"""GET /v1/workers."""

from epochd.api.workers import EXAMPLE
from epochd.contract.worker_list import WorkerList
from epochd.jobs import batch_size
from epochd.store import workers


def test_the_example_is_an_answer():
    assert WorkerList.model_validate(EXAMPLE).model_dump(mode="json") == EXAMPLE


def test_nobody_is_there(api):
    assert api.get("/v1/workers").json() == {"data": [], "next": None}


def test_a_worker_with_its_devices_and_what_runs_there(api, create, trainer, database):
    with database.write() as tx:
        memory = {"cuda:0": {"used": 5, "total": 10}}
        workers.register(
            tx,
            id="worker-1",
            host="box",
            pid=7,
            devices=["cpu", "cuda:0"],
            slots=2,
            memory=memory,
            models=["mine"],
        )
    job = create()
    trainer.start()
    asked = api.post("/v1/batch-size", params={"wait_seconds": 0}, json={"dataset": "iris"}).json()
    batch_size.claim(database, worker="worker-1", device="cpu", lease_seconds=60)
    (shown,) = api.get("/v1/workers").json()["data"]
    assert shown["devices"] == [
        {"name": "cpu", "memory_used_bytes": None, "memory_total_bytes": None},
        {"name": "cuda:0", "memory_used_bytes": 5, "memory_total_bytes": 10},
    ]
    (running,) = shown["running"]
    assert (running["job"], running["attempt"], running["device"]) == (job["id"], 1, "cpu")
    assert (shown["measuring"], shown["models"], shown["slots"]) == ([asked["id"]], ["mine"], 2)
    trainer.finish()
    assert api.get("/v1/workers").json()["data"][0]["running"] == []


def test_a_worker_that_is_gone_is_not_there(api, database):
    with database.write() as tx:
        workers.register(tx, id="worker-1", host="box", pid=7, devices=["cpu"], slots=1)
        tx.execute(workers.workers.update().values(last_seen_at=workers.seconds_from_now(-60)))
    assert api.get("/v1/workers").json()["data"] == []
