from sqlalchemy import update

from epochd.store import workers
from epochd.store.tables import workers as table
from epochd.store.types import seconds_from_now


def register(tx, id_="w1", **overrides):
    workers.register(tx, **({"id": id_, "host": "h", "pid": 7, "devices": ["cpu"], "slots": 1} | overrides))


def set_back(tx, id_, seconds):
    tx.execute(update(table).where(table.c.id == id_).values(last_seen_at=seconds_from_now(-seconds)))


def test_alive_is_who_was_seen_lately(database):
    with database.write() as tx:
        register(tx, "w1")
        register(tx, "w2")
        set_back(tx, "w1", 31)
    with database.read() as tx:
        assert [row.id for row in workers.alive(tx, 30)] == ["w2"]
        assert {row.id for row in workers.alive(tx, 60)} == {"w1", "w2"}
    with database.write() as tx:
        assert workers.seen(tx, "w1")
    with database.read() as tx:
        assert {row.id for row in workers.alive(tx, 30)} == {"w1", "w2"}


def test_registering_again_is_a_new_start(database):
    with database.write() as tx:
        register(tx)
        set_back(tx, "w1", 100)
        register(tx, pid=8, devices=["cuda:0", "cuda:1"], slots=2)
    with database.read() as tx:
        [row] = workers.alive(tx, 30)
    assert (row.pid, row.devices, row.slots) == (8, ["cuda:0", "cuda:1"], 2)


def test_a_removed_worker_has_to_register(database):
    with database.write() as tx:
        register(tx)
        workers.remove(tx, "w1")
        workers.remove(tx, "w1")
        assert not workers.seen(tx, "w1")
        assert workers.alive(tx, 1e6) == []
