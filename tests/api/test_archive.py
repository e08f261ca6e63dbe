"""A job whose iterations were moved out of the database answers as it did before."""

import hashlib

import httpx
import pytest

from epochd.jobs.archive import archive_job, clear_blocks
from epochd.store import jobs
from epochd.store.database import Database

SERIES = [
    {},
    {"after": 1020, "limit": 10},
    {"limit": 100_000},
    {"fields": "train_loss", "after": 700},
    {"fields": "epoch"},
    {"attempt": 1},
    {"attempt": 2, "limit": 3},
    {"points": 100},
    {"points": 3, "fields": "gradient_norm"},
    {"points": 100, "reduction": "mean"},
    {"points": 100, "attempt": 1},
    *({"format": name} for name in ("csv", "ndjson", "parquet")),
    {"format": "csv", "fields": "learning_rate", "after": 1000, "limit": 500},
    {"format": "ndjson", "attempt": 1},
    {"format": "parquet", "attempt": 2, "fields": "epoch"},
]


@pytest.fixture
def job_id(create, trainer):
    """A job that was lost, and went on from its checkpoint to its end."""
    job_id = create()["id"]
    trainer.start().iterate(1100)
    trainer.complete_epoch()
    trainer.lose()
    trainer.resume(1000).iterate(10)
    trainer.rows[-3:] = [float("nan")] * 3
    trainer.iterate(1490)
    trainer.complete_epoch(validation_accuracy=None)
    trainer.finish("failed")
    return job_id


@pytest.fixture
def move(database_url, settings):
    """Archive a job, as the worker does some time after its end."""

    def make(job_id):
        db = Database(database_url, archives=settings.artifacts_dir)
        with db.read() as tx:
            number = jobs.get(tx, job_id).number
        assert archive_job(db, number, settings.artifacts_dir)
        clear_blocks(db, lambda _: False)
        db.close()
        (path,) = settings.artifacts_dir.glob(f"{job_id}/metrics-*.parquet")
        return path

    return make


@pytest.fixture
def answers(api, job_id):
    """All answers about what was recorded: content and validators."""

    def ask():
        found = [api.get(f"/v1/jobs/{job_id}/iterations", params=params) for params in SERIES]
        found += [api.get(f"/v1/jobs/{job_id}/{what}") for what in ("epochs", "attempts", "")]
        found.append(api.get(f"/v1/jobs/{job_id}/events", headers={"Accept": "application/json"}))
        kept = ("etag", "link", "content-type")
        return [(one.status_code, one.content, [one.headers.get(name) for name in kept]) for one in found]

    return ask


def test_every_answer_is_the_same(answers, job_id, move):
    before = answers()
    move(job_id)
    assert answers() == before
    assert {status for status, *_ in before[: len(SERIES)]} == {200}
    assert b"null" in before[2][1]


def test_the_stream_is_the_same(submit, trainer, read_stream, move):
    job_id = submit()
    trainer.start().iterate(3000)
    trainer.complete_epoch()
    trainer.lose()
    trainer.resume(1500).iterate(1500)
    trainer.finish()
    before = read_stream(job_id, iterations="true")
    move(job_id)
    assert read_stream(job_id, iterations="true") == before
    assert [message.type for message in before].count("iterations") >= 3
    at = [message.type for message in before].index("iterations")
    assert read_stream(job_id, before[at].id, iterations="true") == before[at + 1 :]


def test_the_file_is_listed_and_downloaded(api, job_id, move):
    content = move(job_id).read_bytes()
    (listed,) = api.get(f"/v1/jobs/{job_id}/artifacts").json()["data"]
    assert listed["name"] == "metrics.parquet"
    assert listed["media_type"] == "application/vnd.apache.parquet"
    assert (listed["bytes"], listed["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
    url = f"/v1/jobs/{job_id}/artifacts/metrics.parquet"
    assert api.get(url).content == content
    part = api.get(url, headers={"Range": "bytes=4-99"})
    assert (part.status_code, part.content) == (206, content[4:100])
    assert 'filename="metrics.parquet"' in part.headers["content-disposition"]


@pytest.mark.parametrize("damage", ["missing", "damaged"])
def test_without_the_file_there_are_no_numbers(http, submit, trainer, move, damage):
    job_id = submit()
    trainer.start().iterate(1100)
    trainer.complete_epoch()
    trainer.finish()
    path = move(job_id)
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        footer = int.from_bytes(content[-8:-4], "little") + 8
        path.write_bytes(b"PAR1" + bytes(len(content) - footer - 4) + content[-footer:])
    for params in ({}, {"attempt": 1}, {"points": 10}, {"points": 10, "reduction": "mean"}):
        answer = http.get(f"/v1/jobs/{job_id}/iterations", params=params)
        assert (answer.status_code, answer.json()["code"]) == (503, "archive_unreadable"), params
        assert str(path) not in answer.text
        assert "retry-after" not in answer.headers, "it does not help"
        assert "database" not in answer.json()["detail"]
    with http.stream("GET", f"/v1/jobs/{job_id}/iterations", params={"format": "csv"}) as answer:
        if answer.status_code == 200:  # it is noticed when the answer has begun: then that is not completed
            with pytest.raises(httpx.RemoteProtocolError):
                answer.read()
        else:
            assert answer.status_code == 503
    stream = http.get(
        f"/v1/jobs/{job_id}/events", params={"iterations": "true"}, headers={"Accept": "text/event-stream"}
    )
    assert "archive_unreadable" in stream.text
    assert "event: iterations" not in stream.text
    assert http.get(f"/v1/jobs/{job_id}").status_code == 200
    assert len(http.get(f"/v1/jobs/{job_id}/epochs").json()["data"]) == 1
    path.write_bytes(content)
    assert http.get(f"/v1/jobs/{job_id}/iterations").status_code == 200


def test_a_deleted_job_takes_the_file_with_it(api, job_id, move):
    path = move(job_id)
    assert api.delete(f"/v1/jobs/{job_id}").status_code == 204
    assert not path.parent.exists()
