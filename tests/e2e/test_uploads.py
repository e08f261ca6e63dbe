"""Data sets that callers bring, from the file to a trained model, and what is said of files that are none."""

import io
import json
import re
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from tests.e2e.bad_files import BAD, MAX_UNPACKED_BYTES, MAX_UPLOAD_BYTES
from tests.e2e.conftest import Service
from tests.marks import postgres_in_torture

SMALL = {
    "EPOCHD_MAX_UPLOAD_BYTES": str(MAX_UPLOAD_BYTES),
    "EPOCHD_MAX_UNPACKED_BYTES": str(MAX_UNPACKED_BYTES),
}


def _table():
    lines = ["size,colour,ripe,picked,kind"]
    for number in range(80):
        size = "" if number % 9 == 0 else f"{number % 13}.5"
        colour = ["red", "green", "", "blue"][number % 4]
        ripe = ["true", "false"][number % 3 == 0]
        lines.append(f"{size},{colour},{ripe},2026-01-{number % 28 + 1:02},{['plum', 'pear'][number % 2]}")
    return "\n".join(lines).encode()


def _images():
    target, random = io.BytesIO(), np.random.default_rng(0)
    with zipfile.ZipFile(target, "w") as archive:
        for number in range(24):
            pixels = random.integers(0, 60, (20, 16 + number % 3, 3), dtype=np.uint8)
            pixels[..., number % 2] += 150
            image = io.BytesIO()
            Image.fromarray(pixels).save(image, ["PNG", "JPEG"][number % 3 == 0])
            ending = ["png", "jpg"][number % 3 == 0]
            archive.writestr(f"{['cats', 'dogs'][number % 2]}/{number}.{ending}", image.getvalue())
    return target.getvalue()


def _texts():
    rows = [
        {"text": f"a {word} film, number {number}", "label": label}
        for number in range(30)
        for word, label in (("fine", "praise"), ("dull", "blame"))
    ]
    return "\n".join(map(json.dumps, rows)).encode()


BROUGHT = [
    ("fruit.csv", _table(), "table", ["pear", "plum"], {"name": "ft_transformer", "blocks": 1}),
    ("pets.zip", _images(), "image", ["cats", "dogs"], {"name": "cnn", "channels": [4]}),
    ("films.jsonl", _texts(), "text", ["blame", "praise"], {"name": "text_classifier"}),
]


@postgres_in_torture
def test_what_is_brought_is_trained_on(start_service, data_dir):
    service = start_service()
    jobs = [_bring_and_train(service, *one) for one in BROUGHT]
    for job_id, dataset in jobs:
        job = service.wait(job_id)
        assert job["status"] == "succeeded", job
        assert job["spec"]["dataset"] == dataset["id"]
        (epoch,) = service.epochs(job_id)
        assert np.isfinite(epoch["validation_loss"]), epoch
        assert service.client.delete(f"/v1/datasets/{dataset['name']}").status_code == 204
    assert {path.name for path in _folders(data_dir)} == {"incoming"}


def _bring_and_train(service, file_name, content, kind, classes, model):
    answer = service.client.post("/v1/datasets", files={"file": (file_name, content)})
    assert answer.status_code == 201, answer.text
    dataset = answer.json()
    assert (dataset["kind"], dataset["task"], dataset["source"]["bytes"]) == (
        kind,
        "classification",
        len(content),
    )
    assert [one["name"] for one in dataset["classes"]] == classes
    return service.submit(dataset=dataset["name"], epochs=1, batch_size=16, model=model), dataset


def _folders(data_dir):
    return [path for path in (data_dir / "datasets").iterdir() if path.is_dir()]


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """What a service says to each bad file; it stands as before when all have been sent."""
    directory = tmp_path_factory.mktemp("bad")
    data_dir = directory / "data"
    service = Service(directory, f"sqlite:///{directory / 'epochd.db'}", data_dir, "--workers", "0", **SMALL)
    try:
        with ThreadPoolExecutor(3) as pool:
            found = list(pool.map(lambda one: _send(service.url, *one), enumerate(BAD)))
        listed = service.client.get("/v1/datasets").json()["data"]
        assert all(one["built_in"] for one in listed), listed
        assert [path.name for path in _folders(data_dir)] == ["incoming"]
        assert not [path for path in (data_dir / "datasets" / "incoming").iterdir() if path.is_dir()]
        assert service.end() == 0, service.errors
    finally:
        service.client.close()
        service.kill_all()
    return found


def _send(url, number, bad):
    fields = {"name": f"bad {number}", **bad.fields}
    return httpx.post(
        f"{url}/v1/datasets", files={"file": (bad.file_name, bad.content)}, data=fields, timeout=60
    )


@pytest.mark.parametrize("number", range(len(BAD)), ids=[bad.what for bad in BAD])
def test_a_bad_file_is_told_what_is_wrong_and_where(answers, number):
    bad, answer = BAD[number], answers[number]
    problem = answer.json()
    error = problem.get("errors", [problem])[0]
    assert (answer.status_code, error["code"]) == (bad.status, bad.code), answer.text
    place = (bad.file_name if bad.file == "" else bad.file, bad.row, bad.column)
    assert (error.get("file"), error.get("row"), error.get("column")) == place, answer.text
    message = error.get("message") or problem["detail"]
    assert [part for part in bad.says if part not in message] == [], message


def test_the_page_shows_each_of_them():
    page = (Path(__file__).resolve().parents[2] / "docs" / "bad-data-sets.md").read_text()
    rows = re.findall(r"^\| (.+?) \| (\d+) \| `(\w+)` \| ", page, re.MULTILINE)
    assert rows == [(bad.what, str(bad.status), bad.code) for bad in BAD]
