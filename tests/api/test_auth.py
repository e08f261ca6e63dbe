"""API keys."""

import pytest
from fastapi.testclient import TestClient

from epochd.api.app import create_app


@pytest.fixture
def database_kind():
    return "sqlite"


@pytest.fixture
def guarded(settings):
    from pydantic import SecretStr

    keys = SecretStr("first-key, second-key")
    with TestClient(create_app(settings.model_copy(update={"api_keys": keys}))) as client:
        yield client


@pytest.mark.parametrize("key", ["first-key", "second-key"])
def test_each_key_opens(guarded, key):
    assert guarded.get("/v1/jobs", headers={"Authorization": f"Bearer {key}"}).status_code == 200


@pytest.mark.parametrize(
    "authorization", [None, "Bearer", "Bearer ", "Bearer first", "Bearer first-key,second-key", "Basic Zmlyc3Qta2V5",
                      "first-key", b"Bearer \xff", "Bearer first-key second-key"],
)  # fmt: skip
def test_nothing_else_opens(guarded, authorization):
    headers = {"Authorization": authorization} if authorization else {}
    for answer in (
        guarded.get("/v1/jobs", headers=headers),
        guarded.post("/v1/jobs", json={}, headers=headers),
    ):
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.json()["code"] == "unauthorized"
        assert "first-key" not in answer.text


MESSAGES = {
    "malformed": (b'{"epochs":', {"Content-Type": "application/json"}),
    "of another type": (b"epochs=4", {"Content-Type": "text/plain"}),
    "compressed": (b"{}", {"Content-Type": "application/json", "Content-Encoding": "gzip"}),
    "none": (b"", {}),
}


@pytest.mark.parametrize(("body", "headers"), MESSAGES.values(), ids=MESSAGES)
def test_the_key_is_asked_for_before_anything_else(guarded, body, headers):
    """Whoever has none learns nothing of what is wrong with a request, or of which jobs there are."""
    operations = [
        (method.upper(), path)
        for path, methods in guarded.app.openapi()["paths"].items()
        for method in methods
        if path.startswith("/v1/")
    ]
    assert ("PATCH", "/v1/jobs/{job_id}") in operations
    for method, path in operations:
        url = path.format(
            a="job_none",
            b="job_none",
            job_id="job_none",
            dataset="digits",
            name="model.json",
            measurement_id="x",
        )
        answer = guarded.request(method, f"{url}?limit=1&limit=2&x=y", content=body, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized"), (method, path)


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/docs", "/openapi.json"])
def test_what_is_open_to_all(guarded, path):
    assert guarded.get(path).status_code != 401


def test_without_keys_all_are_let_in(api):
    assert api.get("/v1/jobs", headers={"Authorization": "Bearer whatever"}).status_code == 200


def test_keys_are_in_no_answer(guarded):
    assert "first-key" not in guarded.get("/openapi.json").text
