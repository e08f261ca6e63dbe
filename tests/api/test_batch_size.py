"""POST and GET /v1/batch-size."""

import threading
import time

import pytest

from epochd.api.batch_size import EXAMPLE
from epochd.contract.batch_size import BatchSizeMeasurement
from epochd.jobs import batch_size
from epochd.store import measurements
from epochd.training.batch_size_choice import BatchSizeMeasured, NoiseScale

URL = "/v1/batch-size"
SIZES = [BatchSizeMeasured(2**n, True, 1000, 100.0 * 2**n, 0.5, 30).as_dict() for n in range(7)]
NOISE = NoiseScale(9.0, 7.0, 12.0, 0.1, 0.9, 4, 64, 20).as_dict()


@pytest.fixture
def post(api):
    def make(wait_seconds=0, **body):
        return api.post(URL, params={"wait_seconds": wait_seconds}, json={"dataset": "iris", **body})

    return make


@pytest.fixture
def measure(database):
    """Measure the oldest one that waits, as a worker does."""

    def make(sizes=SIZES, noise=NOISE, error=None):
        row = batch_size.claim(database, worker="worker-1", device="cpu", lease_seconds=60)
        with database.write() as tx:
            assert measurements.record(tx, row, lease_seconds=60, sizes=sizes, noise_scale=noise)
            assert measurements.finish(tx, row, error)

    return make


def refused(answer):
    assert answer.status_code == 422, answer.text
    return [(error["param"], error["code"]) for error in answer.json()["errors"]]


def test_the_example_is_an_answer():
    assert BatchSizeMeasurement.model_validate(EXAMPLE).model_dump(mode="json") == EXAMPLE


def test_what_is_still_measured_is_found_at_its_location(api, post, measure):
    answer = post()
    assert answer.status_code == 202
    queued = answer.json()
    assert (queued["status"], queued["done"], queued["sizes"], queued["recommended"]) == (
        "queued",
        False,
        [],
        None,
    )
    measure()
    done = api.get(answer.headers["location"]).json()
    BatchSizeMeasurement.model_validate(done)
    assert (done["id"], done["status"], done["done"]) == (queued["id"], "succeeded", True)
    assert (done["fits"], done["fastest"], done["recommended"]) == (64, 64, 8)
    assert "9.0 samples" in done["reasons"]["recommended"]
    assert (done["sizes"], done["noise_scale"]) == (SIZES, NOISE)


def test_it_waits_for_the_answer(post, measure):
    later = threading.Timer(0.3, measure)
    later.start()
    answer = post(wait_seconds=30)
    later.join()
    assert answer.status_code == 200, answer.text
    assert answer.json()["recommended"] == 8


def test_waiting_ends_in_time(api, post):
    started = time.monotonic()
    answer = post(wait_seconds=0.5)
    assert answer.status_code == 202
    assert time.monotonic() - started >= 0.5
    assert api.get(answer.headers["location"], params={"wait_seconds": 0.5}).json()["status"] == "queued"


def test_without_a_noise_scale_the_fastest_is_recommended(api, post, measure):
    location = post().headers["location"]
    measure(noise=None)
    done = api.get(location).json()
    assert (done["noise_scale"], done["recommended"]) == (None, 64)


def test_a_data_set_is_shown_by_its_name_and_stays_while_it_is_measured(api, post, measure):
    file = ("flowers.csv", b"a,b,y\n" + b"1,2,x\n3,4,z\n" * 10, "text/csv")
    assert api.post("/v1/datasets", files={"file": file}).status_code == 201
    answer = post(dataset="flowers")
    assert answer.json()["dataset"] == "flowers"
    in_use = api.delete("/v1/datasets/flowers")
    assert (in_use.status_code, in_use.json()["code"]) == (409, "dataset_in_use")
    assert answer.json()["id"] in in_use.text
    measure()
    assert api.delete("/v1/datasets/flowers").status_code == 204
    assert api.get(answer.headers["location"]).json()["dataset"].startswith("dataset_")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"dataset": "iriss"}, ("dataset", "unknown_dataset")),
        ({"model": {"name": "cnn"}}, ("model.name", "model_needs_images")),
        ({"batch_size": 3}, ("batch_size", "unknown_parameter")),
        ({"seconds": 0.5}, ("seconds", "out_of_range")),
        ({"seconds": 1e9}, ("seconds", "out_of_range")),
        (
            {"dataset": {"name": "synthetic", "samples": 1, "targets": 1}, "validation": None},
            ("dataset", "too_few_samples"),
        ),
    ],
)
def test_what_cannot_be_measured_is_refused(post, database, body, expected):
    assert refused(post(**body)) == [expected]
    assert batch_size.claim(database, worker="w", device="cpu", lease_seconds=10) is None


def test_there_is_no_other(api):
    missing = api.get(f"{URL}/batchsize_none")
    assert (missing.status_code, missing.json()["code"]) == (404, "measurement_not_found")
