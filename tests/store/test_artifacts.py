import pytest

from epochd.errors import NotFoundError
from epochd.store import artifacts
from epochd.store.artifacts import NewArtifact

MODEL = NewArtifact(
    "model.safetensors", "job_a/model.safetensors", "application/octet-stream", 2**40, "ab" * 32
)
CARD = NewArtifact("model.json", "job_a/model.json", "application/json", 17, "cd" * 32)


def test_artifacts_are_listed_by_name_and_found(database, make_job):
    number, other = make_job().number, make_job().number
    with database.write() as tx:
        artifacts.insert_many(tx, number, [MODEL, CARD])
        artifacts.insert_many(tx, other, [])
    with database.read() as tx:
        assert [row.name for row in artifacts.of_job(tx, number)] == ["model.json", "model.safetensors"]
        assert artifacts.of_job(tx, other) == []
        row = artifacts.get(tx, number, "model.safetensors")
    assert (row.path, row.media_type, row.bytes, row.sha256) == (
        MODEL.path,
        MODEL.media_type,
        2**40,
        "ab" * 32,
    )


def test_a_later_attempt_replaces_what_an_earlier_one_left(database, make_job):
    number = make_job().number
    with database.write() as tx:
        artifacts.insert_many(tx, number, [MODEL])
        artifacts.insert_many(tx, number, [NewArtifact(MODEL.name, "new", MODEL.media_type, 5, "ef" * 32)])
    with database.read() as tx:
        [row] = artifacts.of_job(tx, number)
    assert (row.path, row.bytes) == ("new", 5)


def test_an_artifact_that_is_not_there(database, make_job):
    number = make_job().number
    with database.read() as tx, pytest.raises(NotFoundError) as caught:
        artifacts.get(tx, number, "../etc/passwd")
    assert caught.value.code == "artifact_not_found"
