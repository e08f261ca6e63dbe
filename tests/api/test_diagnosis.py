"""GET /v1/jobs/{id}/diagnosis."""

import pytest

from epochd.api.diagnosis import EXAMPLE
from epochd.contract.job import JobDiagnosis
from epochd.contract.spec import JobSpec

URL = "/v1/jobs/{}/diagnosis"
RISEN = {
    "verdict": "overfitting",
    "since_epoch": 3,
    "confidence": 0.9,
    "evidence": "The validation loss has risen from 0.3 around epoch 2 to 0.8.",
    "measurements": {"best_epoch": 2.0, "last_epoch": 4.0, "validation_loss": 0.8, "trivial_loss": None},
}
OF_AN_EARLIER_VERSION = {
    "verdict": "diverging",
    "since_epoch": 2,
    "evidence": "The training loss has risen.",
    "suggestions": [{"message": "Clip the gradient.", "patch": {"gradient_clip_norm": 1.0}}],
}


@pytest.fixture
def diagnosed(create, trainer):
    """A running job of four epochs whose worker has come to this diagnosis."""

    def make(diagnosis, **changes):
        job = create(**changes)
        trainer.start().iterate(40)
        trainer.complete_epoch()
        trainer.diagnose(diagnosis)
        return job["id"]

    return make


def of(api, job):
    answer = api.get(URL.format(job))
    assert answer.status_code == 200, answer.text
    JobDiagnosis.model_validate(answer.json())
    return answer.json()


def test_the_example_is_an_answer():
    assert JobDiagnosis.model_validate(EXAMPLE).model_dump(mode="json") == EXAMPLE


def test_a_job_that_has_not_begun_is_undetermined(api, create):
    job = create()
    found = of(api, job["id"])
    assert (found["job"], found["status"], found["epoch"], found["final"]) == (job["id"], "queued", 0, False)
    assert (found["verdict"], found["since_epoch"], found["confidence"]) == ("undetermined", None, None)
    assert (found["measurements"], found["suggestions"]) == ({}, [])


def test_it_is_the_jobs_and_says_what_to_change(api, diagnosed):
    job = diagnosed(RISEN)
    found = of(api, job)
    assert found["epoch"] == 4
    assert {name: found[name] for name in RISEN} == RISEN
    shown = api.get(f"/v1/jobs/{job}").json()["diagnosis"]
    assert {name: found[name] for name in shown} == shown
    assert len(found["suggestions"]) >= 2


def test_every_patch_makes_another_valid_spec(api, diagnosed):
    job = diagnosed(RISEN, early_stopping=None)
    spec = api.get(f"/v1/jobs/{job}").json()["spec"]
    for suggestion in of(api, job)["suggestions"]:
        patched = {**spec, **suggestion["patch"]}
        assert JobSpec.model_validate(patched) != JobSpec.model_validate(spec)
        created = api.post("/v1/jobs", json=patched)
        assert created.status_code == 201, created.text
        shown = created.json()["spec"]
        for name, value in suggestion["patch"].items():
            assert shown[name] == value or value.items() <= shown[name].items()


def test_an_earlier_versions_diagnosis_gets_todays_suggestions(api, diagnosed):
    found = of(api, diagnosed(OF_AN_EARLIER_VERSION))
    assert (found["verdict"], found["confidence"], found["measurements"]) == ("diverging", None, {})
    assert [one["patch"].keys() for one in found["suggestions"]] == [{"optimizer"}, {"gradient_clip_norm"}]


def test_once_the_job_is_done_it_is_final_and_known_by_its_tag(api, diagnosed, trainer):
    job = diagnosed(RISEN)
    running = api.get(URL.format(job))
    assert "etag" not in running.headers
    trainer.finish()
    answer = api.get(URL.format(job))
    assert answer.json()["final"] is True
    again = api.get(URL.format(job), headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_what_is_not_there_and_what_is_not_asked(api, create):
    missing = api.get(URL.format("job_00000000000000000000000000"))
    assert (missing.status_code, missing.json()["code"]) == (404, "job_not_found")
    unknown = api.get(URL.format(create()["id"]), params={"epoch": 3})
    assert unknown.status_code == 422
    assert "epoch" in unknown.text
