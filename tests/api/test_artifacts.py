"""The files that a job left."""

import base64
import hashlib

import pytest

from epochd.store.artifacts import NewArtifact

CONTENT = bytes(range(256)) * 1000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def job_id(create, trainer, settings):
    job_id = create()["id"]
    folder = settings.artifacts_dir / job_id
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(CONTENT)
    (folder / "empty.json").write_bytes(b"")
    trainer.start().finish(
        artifacts=[
            NewArtifact(
                "model.safetensors",
                f"{job_id}/model.safetensors",
                "application/octet-stream",
                256_000,
                DIGEST,
            ),
            NewArtifact(
                "empty.json", f"{job_id}/empty.json", "application/json", 0, hashlib.sha256().hexdigest()
            ),
            NewArtifact("gone.bin", f"{job_id}/gone.bin", "application/octet-stream", 1, DIGEST),
        ]
    )
    return job_id


@pytest.fixture
def get(api, job_id):
    def fetch(name="model.safetensors", method="GET", **headers):
        sent = {key.replace("_", "-"): value for key, value in headers.items()}
        return api.request(method, f"/v1/jobs/{job_id}/artifacts/{name}", headers=sent)

    return fetch


def test_the_list(api, job_id):
    data = api.get(f"/v1/jobs/{job_id}/artifacts").json()["data"]
    assert [one["name"] for one in data] == ["empty.json", "gone.bin", "model.safetensors"]
    assert (data[2]["bytes"], data[2]["sha256"]) == (256_000, DIGEST)


def test_a_job_without_any(api, create):
    assert api.get(f"/v1/jobs/{create()['id']}/artifacts").json() == {"data": [], "next": None}


def test_a_download(get):
    answer = get()
    assert answer.content == CONTENT
    assert answer.headers["etag"] == f'"{DIGEST}"'
    assert answer.headers["repr-digest"] == f"sha-256=:{base64.b64encode(bytes.fromhex(DIGEST)).decode()}:"
    assert answer.headers["content-disposition"] == 'attachment; filename="model.safetensors"'
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["accept-ranges"] == "bytes"


def test_head(get):
    answer = get(method="HEAD")
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-length"] == "256000"
    assert answer.headers["etag"] == f'"{DIGEST}"'


@pytest.mark.parametrize(
    ("asked", "expected", "content_range"),
    [
        ("bytes=0-99", CONTENT[:100], "bytes 0-99/256000"),
        ("bytes=255000-", CONTENT[255000:], "bytes 255000-255999/256000"),
        ("bytes=-10", CONTENT[-10:], "bytes 255990-255999/256000"),
        ("bytes=100-999999", CONTENT[100:], "bytes 100-255999/256000"),
    ],
)
def test_ranges(get, asked, expected, content_range):
    answer = get(Range=asked)
    assert answer.status_code == 206
    assert answer.content == expected
    assert answer.headers["content-range"] == content_range


def test_several_ranges(get):
    answer = get(Range="bytes=0-1,10-11")
    assert answer.status_code == 206
    assert answer.headers["content-type"].startswith("multipart/byteranges")
    assert CONTENT[10:12] in answer.content


@pytest.mark.parametrize("asked", ["bytes=256000-", "bytes=999999-1000000", "bytes=-0"])
def test_ranges_out_of_bounds(get, asked):
    answer = get(Range=asked)
    assert (answer.status_code, answer.json()["code"]) == (416, "range_not_satisfiable")
    assert answer.headers["content-range"] == "bytes */256000"


@pytest.mark.parametrize("asked", ["lines=1-2", "bytes", "bytes=", "bytes=a-b", "bytes=5", "bytes=9-3", ""])
def test_malformed_ranges_are_ignored(get, asked):
    answer = get(Range=asked)
    assert (answer.status_code, answer.content) == (200, CONTENT)


def test_a_range_of_the_very_file(get):
    assert get(Range="bytes=0-9", If_Range=f'"{DIGEST}"').status_code == 206
    assert get(Range="bytes=0-9", If_Range='"other"').status_code == 200
    assert get(Range="bytes=999999-", If_Range='"other"').status_code == 200


@pytest.mark.parametrize("known", [f'"{DIGEST}"', f'"x", W/"{DIGEST}"', "*"])
def test_who_has_it_already_gets_nothing(get, known):
    answer = get(If_None_Match=known)
    assert (answer.status_code, answer.content) == (304, b"")
    assert answer.headers["etag"] == f'"{DIGEST}"'


def test_an_empty_file(get):
    assert get("empty.json").content == b""
    assert get("empty.json", Range="bytes=0-").status_code == 416


@pytest.mark.parametrize(
    "name", ["other.bin", "%2e%2e%2fepochd.db", "..%2f..%2fetc%2fpasswd", "%00", "a" * 300, "mod%20el"]
)
def test_names_that_are_none(get, name):
    answer = get(name)
    assert answer.status_code in {404, 405}
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_file_that_is_gone(get):
    answer = get("gone.bin")
    assert (answer.status_code, answer.json()["code"]) == (404, "artifact_file_missing")


def test_deleting_the_job_deletes_the_files(api, job_id, settings, get):
    assert api.delete(f"/v1/jobs/{job_id}").status_code == 204
    assert not (settings.artifacts_dir / job_id).exists()
    assert get().json()["code"] == "job_not_found"
