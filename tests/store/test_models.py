from epochd.store import models, workers


def test_the_newest_description_counts_and_none_is_forgotten(database):
    with database.write() as tx:
        models.publish(tx, [])
        assert models.every(tx) == []
        models.publish(tx, [{"name": "b", "kinds": ["table"]}, {"name": "a"}])
        models.publish(tx, [{"name": "b", "kinds": ["text"]}])
    with database.read() as tx:
        assert [row.name for row in models.every(tx)] == ["a", "b"]
        row = models.get(tx, "b")
        assert row.description == {"name": "b", "kinds": ["text"]}
        assert row.published_at >= models.get(tx, "a").published_at
        assert models.get(tx, "c") is None


def test_a_worker_tells_which_models_it_has(database):
    with database.write() as tx:
        workers.register(tx, id="w", host="h", pid=1, devices=["cpu"], slots=1, models=["a", "b"])
        workers.register(tx, id="v", host="h", pid=2, devices=["cpu"], slots=1)
    with database.read() as tx:
        assert {row.id: row.models for row in workers.alive(tx)} == {"w": ["a", "b"], "v": []}
