"""Amend, cancel, pause, resume and retry jobs over HTTP, and see what became of each attempt."""

import pytest

from epochd.api.errors import PROBLEM_MEDIA_TYPE
from epochd.contract.attempts import Attempt, AttemptList
from epochd.contract.job import AMENDABLE, Job, JobPatch


@pytest.fixture
def job_id(create):
    return create()["id"]


@pytest.fixture
def act(api, job_id):
    """Send a POST or PATCH to the job, check the answer's status, and return its body."""

    def send(action, status=202, body=None):
        if action == "amend":
            answer = api.patch(f"/v1/jobs/{job_id}", json=body)
        else:
            answer = api.post(f"/v1/jobs/{job_id}/{action}", json=body)
        assert answer.status_code == status, answer.text
        return answer.json()

    return send


@pytest.fixture
def events(api, job_id):
    """Read the job's events as (type, data)."""

    def read():
        page = api.get(f"/v1/jobs/{job_id}/events", params={"limit": 200}).json()
        return [(event["type"], event["data"]) for event in page["data"]]

    return read


def test_a_queued_job_pauses_at_once_and_waits_to_be_resumed(act, events):
    paused = act("pause")
    assert Job.model_validate(paused).status == "paused"
    assert (paused["done"], paused["pause_requested_at"]) == (False, None)
    assert act("pause")["status"] == "paused", "asking again does no harm"
    assert act("resume")["status"] == "queued"
    assert act("resume")["status"] == "queued"
    assert [kind for kind, _ in events()] == ["job.queued", "job.paused", "job.resumed"]


def test_a_running_job_pauses_when_its_worker_has_saved_it(api, act, job_id, trainer, events):
    trainer.start().iterate(14)
    asked = act("pause")
    assert asked["status"] == "running"
    assert asked["pause_requested_at"] is not None
    trainer.finish("paused")
    job = api.get(f"/v1/jobs/{job_id}").json()
    assert (job["status"], job["done"], job["pause_requested_at"]) == ("paused", False, None)
    assert job["progress"]["iteration"] == 14
    resumed = act("resume")
    assert (resumed["status"], resumed["progress"]["iteration"]) == ("queued", 14)
    trainer.resume(14).iterate(6)
    trainer.finish()
    assert api.get(f"/v1/jobs/{job_id}").json()["progress"]["iteration"] == 20
    kinds = [kind for kind, _ in events()]
    assert kinds[2:] == ["job.paused", "job.resumed", "job.started", "checkpoint.restored", "job.succeeded"]


def test_a_pause_that_has_not_come_yet_can_be_withdrawn(act, trainer):
    trainer.start()
    act("pause")
    resumed = act("resume")
    assert (resumed["status"], resumed["pause_requested_at"]) == ("running", None)


def test_a_failed_job_is_tried_again(act, trainer, events):
    trainer.start().iterate(25)
    trainer.finish("failed")
    job = act("retry")
    assert (job["status"], job["done"], job["stop_reason"]) == ("queued", False, None)
    assert (job["error"], job["finished_at"], job["selected_checkpoint"]) == (None, None, None)
    assert job["progress"]["iteration"] == 25
    assert events()[-1] == ("job.queued", {"reason": "retry", "from": "checkpoint"})


def test_a_cancelled_job_begins_anew(act, trainer, events):
    trainer.start().iterate(25)
    act("cancel", body={"keep": "nothing"})
    trainer.finish("cancelled")
    job = act("retry", body={"from": "scratch"})
    assert (job["status"], job["progress"]["iteration"], job["cancel_requested_at"]) == ("queued", 0, None)
    assert events()[-1] == ("job.queued", {"reason": "retry", "from": "scratch"})


def test_a_patch_of_a_job_that_has_not_begun_holds_at_once(act, events):
    job = act("amend", 200, {"epochs": 8, "optimizer": {"learning_rate": 0.5}, "name": None})
    assert (job["name"], job["spec"]["epochs"], job["plan"]["total_iterations"]) == (None, 8, 80)
    assert (job["spec"]["optimizer"]["name"], job["spec"]["optimizer"]["learning_rate"]) == ("adamw", 0.5)
    kind, data = events()[-1]
    assert (kind, data["epoch"], data["iteration"]) == ("spec.amended", 0, 0)
    assert data["changes"] == {"epochs": 8, "optimizer.learning_rate": 0.5, "name": None}


def test_a_patch_of_a_running_job_is_shown_at_once(api, act, job_id, trainer):
    trainer.start().iterate(14)
    job = act("amend", 200, {"epochs": 6, "tags": {"stage": "final"}, "early_stopping": {"patience": 2}})
    assert (job["status"], job["spec"]["epochs"], job["progress"]["epochs"]) == ("running", 6, 6)
    assert job["spec"]["early_stopping"]["monitor"] == "validation_loss"
    assert [one["id"] for one in api.get("/v1/jobs", params={"tag": "stage:final"}).json()["data"]] == [
        job_id
    ]
    off = act("amend", 200, {"early_stopping": None})
    assert off["spec"]["early_stopping"] is None
    assert off["spec"]["tags"] == {"stage": "final"}, "what is left out stays"


WRONG = [
    ({}, "", "invalid", AMENDABLE),
    ({"epochs": None}, "epochs", "invalid", "leave it out"),
    ({"tags": None}, "tags", "invalid", "leave it out"),
    ({"optimizer": None}, "optimizer", "invalid", "leave it out"),
    ({"epochs": "8"}, "epochs", "wrong_type", "whole number"),
    ({"batch_size": 8}, "batch_size", "not_amendable", "send a new job"),
    ({"model": {"name": "linear"}}, "model", "not_amendable", AMENDABLE),
    ({"optimizer": {"learning_rate": 1, "name": "sgd"}}, "optimizer.name", "not_amendable", "optimizer.learning_rate"),
    ({"optimizer": {"learning_rate": 1, "momentum": 0}}, "optimizer.momentum", "not_amendable", "cannot"),
    ({"optimizer": {}}, "optimizer.learning_rate", "required", "required"),
    ({"optimizer": {"rate": 1, "learning_rate": 1}}, "optimizer.rate", "unknown_parameter", "learning_rate"),
    ({"epoch": 8}, "epoch", "unknown_parameter", "'epochs'"),
    ({"early_stopping": {"patience": -1}}, "early_stopping.patience", "out_of_range", "at least 0"),
    ({"early_stopping": {"monitor": "r2"}}, "early_stopping.monitor", "unknown_metric", "validation_accuracy"),
    ({"early_stopping": {"start_epoch": 5}}, "early_stopping.start_epoch", "start_epoch_after_last_epoch", "epoch"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("body", "param", "code", "words"), WRONG, ids=[f"{w[1]}-{w[2]}-{n}" for n, w in enumerate(WRONG)]
)
def test_a_wrong_patch_changes_nothing(api, act, job_id, body, param, code, words):
    before = api.get(f"/v1/jobs/{job_id}").json()
    errors = act("amend", 422, body)["errors"]
    assert [(error["param"], error["code"]) for error in errors] == [(param, code)]
    assert words in errors[0]["message"]
    assert api.get(f"/v1/jobs/{job_id}").json() == before


def test_a_wrong_part_spoils_the_whole_patch(api, act, job_id):
    errors = act("amend", 422, {"name": "other", "epochs": 0, "seed": 1})["errors"]
    assert {error["param"] for error in errors} == {"epochs", "seed"}
    assert api.get(f"/v1/jobs/{job_id}").json()["name"] == "first"


def test_epochs_that_are_completed_cannot_be_taken_back(act, trainer):
    trainer.start().iterate(20)
    trainer.complete_epoch()
    for epochs in (1, 2):
        assert act("amend", 422, {"epochs": epochs})["errors"][0]["param"] == "epochs"
    assert act("amend", 200, {"epochs": 3})["spec"]["epochs"] == 3


def test_null_is_a_value_where_the_schema_says_so():
    schema = JobPatch.model_json_schema()
    nullable = {
        name for name, field in schema["properties"].items() if {"type": "null"} in field.get("anyOf", [])
    }
    assert nullable == {"name", "early_stopping"}
    assert not any("default" in field for field in schema["properties"].values())


def queued(_act, _trainer):
    pass


def running(_act, trainer):
    trainer.start()


def cancelling(act, trainer):
    trainer.start()
    act("cancel")


def succeeded(_act, trainer):
    trainer.start().finish()


def failed(_act, trainer):
    trainer.start().finish("failed")


def cancelled(act, _trainer):
    act("cancel")


CONFLICTS = [
    ("pause", succeeded, "job_done"),
    ("pause", failed, "job_done"),
    ("pause", cancelled, "job_done"),
    ("pause", cancelling, "cancel_requested"),
    ("resume", succeeded, "job_done"),
    ("resume", cancelled, "job_done"),
    ("retry", queued, "job_not_done"),
    ("retry", running, "job_not_done"),
    ("retry", succeeded, "job_succeeded"),
    ("cancel", succeeded, "job_done"),
    ("cancel", failed, "job_done"),
    ("amend", succeeded, "job_done"),
    ("amend", failed, "job_done"),
    ("amend", cancelled, "job_done"),
]


@pytest.mark.parametrize(
    ("action", "prepare", "code"),
    CONFLICTS,
    ids=[f"{action}-{prepare.__name__}" for action, prepare, _ in CONFLICTS],
)
def test_what_the_state_of_a_job_does_not_allow(api, app, act, job_id, trainer, action, prepare, code):
    prepare(act, trainer)
    before = api.get(f"/v1/jobs/{job_id}").json()
    body = {"name": "other"} if action == "amend" else None
    conflict = act(action, 409, body)
    assert conflict["code"] == code
    assert before["status"] in conflict["detail"] or "cancel" in conflict["detail"]
    assert api.get(f"/v1/jobs/{job_id}").json() == before
    path = "/v1/jobs/{job_id}" if action == "amend" else f"/v1/jobs/{{job_id}}/{action}"
    operation = app.openapi()["paths"][path]["patch" if action == "amend" else "post"]
    assert code in operation["responses"]["409"]["content"][PROBLEM_MEDIA_TYPE]["examples"]


@pytest.mark.parametrize("action", ["pause", "resume", "retry", "cancel"])
def test_what_goes_with_an_action(api, act, job_id, trainer, action):
    trainer.start()
    if action == "retry":
        trainer.finish("failed")
    url = f"/v1/jobs/{job_id}/{action}"
    json_type = {"Content-Type": "application/json"}
    assert api.post(url, content=b"null", headers=json_type).status_code == 202
    if action != "retry":
        assert api.post(url, json={}).status_code == 202
    unknown = act(action, 422, {"colour": 1})["errors"]
    assert [(error["param"], error["code"]) for error in unknown] == [("colour", "unknown_parameter")]
    assert api.post(url, content=b"{}", headers={"Content-Type": "text/plain"}).status_code == 415
    assert api.post(url, content=b"{", headers=json_type).json()["code"] == "malformed_json"
    assert api.post(url, params={"x": 1}).status_code == 422
    missing = api.post(f"/v1/jobs/job_none/{action}")
    assert (missing.status_code, missing.json()["code"]) == (404, "job_not_found")


def test_where_to_begin_again(act, trainer):
    trainer.start().finish("failed")
    wrong = act("retry", 422, {"from": "start"})["errors"]
    assert [(error["param"], error["code"]) for error in wrong] == [("from", "not_one_of")]
    by_another_name = act("retry", 422, {"source": "scratch"})["errors"]
    assert [error["param"] for error in by_another_name] == ["source"]
    assert "known here: from" in by_another_name[0]["message"]


def test_a_patch_needs_a_body_and_a_job(api, job_id):
    assert api.patch(f"/v1/jobs/{job_id}").json()["errors"][0]["code"] == "required"
    assert api.patch("/v1/jobs/job_none", json={"epochs": 3}).status_code == 404
    assert api.patch(f"/v1/jobs/{job_id}?dry=1", json={"epochs": 3}).status_code == 422


def test_attempts_tell_where_each_began_and_how_it_ended(api, job_id, act, trainer):
    def attempts():
        body = api.get(f"/v1/jobs/{job_id}/attempts").json()
        AttemptList.model_validate(body)
        assert body["next"] is None
        return body["data"]

    assert attempts() == []
    trainer.start()
    (running,) = attempts()
    assert (running["attempt"], running["worker"], running["device"]) == (1, "worker-1", "cpu")
    assert (running["outcome"], running["finished_at"], running["last_iteration"]) == (None, None, None)
    trainer.iterate(14)
    trainer.lose()
    trainer.resume(10)
    act("pause")
    trainer.finish("paused")
    act("resume")
    trainer.resume(10).iterate(4)
    trainer.finish()
    first, second, third = attempts()
    assert [one["outcome"] for one in (first, second, third)] == ["lost", "paused", "succeeded"]
    assert [one["first_iteration"] for one in (first, second, third)] == [1, 11, 11]
    assert [one["last_iteration"] for one in (first, second, third)] == [14, None, 14]
    assert first["restored"] is None
    restored = {
        "epoch": 1,
        "iteration": 10,
        "attempt": 1,
        "saved_at": "2026-01-31T09:00:00.123Z",
        "skipped": [],
    }
    assert third["restored"] == restored
    assert all(
        one["started_at"].endswith("Z") and one["finished_at"] is not None for one in (first, second, third)
    )


def test_an_attempt_that_could_use_no_checkpoint_says_why():
    skipped = [{"file": "attempt-1/iteration-10.ckpt", "reason": "The digest does not match."}]
    restored = {"epoch": 0, "iteration": 0, "attempt": None, "saved_at": None, "skipped": skipped}
    attempt = {
        "attempt": 2,
        "worker": "w",
        "device": "cpu",
        "started_at": "2026-01-31T09:00:00Z",
        "finished_at": None,
        "outcome": None,
        "first_iteration": 1,
        "last_iteration": None,
        "restored": restored,
        "error": None,
    }
    assert Attempt.model_validate(attempt).model_dump(mode="json")["restored"] == restored


def test_attempts_of_no_job_and_with_parameters(api, job_id):
    assert api.get("/v1/jobs/job_none/attempts").status_code == 404
    assert api.get(f"/v1/jobs/{job_id}/attempts", params={"limit": 5}).status_code == 422
