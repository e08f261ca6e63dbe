"""Health and readiness."""

from fastapi.testclient import TestClient

from epochd.api.app import create_app
from epochd.settings import Settings
from epochd.store import workers


def register(database):
    with database.write() as tx:
        workers.register(tx, id="w1", host="here", pid=1, devices=["cpu"], slots=1)


def test_ready_when_all_is_there(api, database):
    register(database)
    answer = api.get("/readyz")
    assert answer.status_code == 200
    assert answer.json()["status"] == "ready"
    assert all(check["ok"] for check in answer.json()["checks"].values())


def test_not_ready_without_a_worker(api):
    answer = api.get("/readyz")
    body = answer.json()
    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/problem+json"
    assert body["code"] == "not_ready"
    assert [name for name, check in body["checks"].items() if not check["ok"]] == ["workers"]
    assert "epochd worker" in body["detail"]


def test_not_ready_when_not_migrated(empty_database_url, tmp_path):
    with TestClient(create_app(Settings(database_url=empty_database_url, data_dir=tmp_path))) as client:
        body = client.get("/readyz").json()
        assert body["checks"]["database"]["ok"]
        assert not body["checks"]["migrations"]["ok"]
        answer = client.get("/v1/jobs")
        assert (answer.status_code, answer.json()["code"]) == (503, "database_not_migrated")


def test_not_ready_when_the_database_is_away(tmp_path):
    url = "postgresql://someone:sesame@127.0.0.1:1/none"
    with TestClient(create_app(Settings(database_url=url, data_dir=tmp_path))) as client:
        answer = client.get("/readyz")
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) > 0
        assert not any(check["ok"] for check in answer.json()["checks"].values())
        assert answer.json()["detail"].count("does not answer") == 1
        assert "sesame" not in answer.text
        assert client.get("/healthz").json() == {"status": "ok"}
