"""Queue, plan, list, look at, wait for, cancel and delete jobs."""

import threading
import time

import pytest
from tests.api.conftest import SPEC

from epochd.contract.job import Job
from epochd.store import jobs


def test_create_answers_the_queued_job_with_every_default(api):
    answer = api.post("/v1/jobs", json=SPEC)
    job = answer.json()
    assert answer.status_code == 201
    assert answer.headers["location"] == f"/v1/jobs/{job['id']}"
    assert Job.model_validate(job).status == "queued"
    assert job["spec"]["optimizer"]["name"] == "adamw"
    assert job["plan"]["iterations_per_epoch"] == 10
    assert job["created_at"].endswith("Z")
    assert api.get(answer.headers["location"]).json() == job


def test_the_definition_of_an_iteration(api):
    dataset = {"name": "synthetic", "samples": 1000}
    spec = {"dataset": dataset, "epochs": 1, "batch_size": 100, "validation": None}
    answer = api.post("/v1/jobs/plan", json=spec)
    assert answer.status_code == 200
    plan = answer.json()["plan"]
    assert (plan["mini_batches_per_epoch"], plan["total_iterations"]) == (10, 10)
    assert api.get("/v1/jobs").json()["data"] == [], "planning creates nothing"


def test_the_same_key_and_body_give_the_first_answer_again(api):
    headers = {"Idempotency-Key": "key-1"}
    first = api.post("/v1/jobs", json=SPEC, headers=headers)
    again = api.post("/v1/jobs", json=SPEC, headers=headers)
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json()["id"] == first.json()["id"]
    assert again.headers["location"] == first.headers["location"]
    assert len(api.get("/v1/jobs").json()["data"]) == 1


def test_the_same_key_with_another_body_is_refused(api):
    headers = {"Idempotency-Key": "key-1"}
    api.post("/v1/jobs", json=SPEC, headers=headers)
    answer = api.post("/v1/jobs", json={**SPEC, "epochs": 5}, headers=headers)
    assert answer.status_code == 422
    assert answer.json()["code"] == "idempotency_key_reused"


@pytest.mark.parametrize("key", ["", "a b", "x" * 256, "käse".encode(), "\t"])
def test_keys_that_are_none(api, key):
    answer = api.post("/v1/jobs", json=SPEC, headers={"Idempotency-Key": key})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["param"] == "Idempotency-Key"


def test_the_longest_key_is_a_key(api):
    assert api.post("/v1/jobs", json=SPEC, headers={"Idempotency-Key": "!" * 255}).status_code == 201


def test_lists_come_newest_first_in_pages(api, create):
    ids = [create()["id"] for _ in range(5)]
    first = api.get("/v1/jobs", params={"limit": 2}).json()
    second = api.get("/v1/jobs", params={"limit": 2, "after": first["next"]}).json()
    third = api.get("/v1/jobs", params={"limit": 2, "after": second["next"]}).json()
    found = [job["id"] for page in (first, second, third) for job in page["data"]]
    assert found == ids[::-1]
    assert third["next"] is None


def test_lists_are_filtered(api, create, trainer):
    mine = create(name="mine", tags={"team": "vision", "stage": "final"})["id"]
    other = create(name="other", tags={"team": "audio", "note": "a:b"})["id"]
    trainer.start()

    def found(**params):
        return {job["id"] for job in api.get("/v1/jobs", params=params).json()["data"]}

    assert found(status="running") == {mine}
    assert found(status=["running", "queued"]) == {mine, other}
    assert found(name="other") == {other}
    assert found(tag="team:vision") == {mine}
    assert found(tag="team") == {mine, other}
    assert found(tag=["team", "stage:final"]) == {mine}
    assert found(tag="note:a:b") == {other}
    assert found(tag="nobody") == set()
    assert found(name="mine", status="queued") == set()


def test_search(api, create):
    mine = create(name="50% Mine_a")["id"]
    wine = create(dataset="wine", name=None)["id"]
    made = create(
        name=None,
        dataset={"name": "synthetic", "samples": 100, "features": 4, "classes": 2},
        model={"name": "linear"},
    )["id"]

    def found(text, **filters):
        answer = api.get("/v1/jobs", params={"search": text, **filters})
        return {job["id"] for job in answer.json()["data"]}

    assert found("mine_A") == {mine}
    assert found("%") == {mine}
    assert found("_") == {mine, wine, made}  # each id has one
    assert found("WINE") == {wine}
    assert found("synth") == {made}
    assert found("linear") == {made}
    assert found("mlp") == {mine, wine}
    assert found(wine[-6:]) == {wine}
    assert found("mlp", status="paused") == found("'; drop") == set()


def test_wrong_list_parameters(api):
    for params, param in (
        ({"limit": 0}, "limit"),
        ({"limit": 201}, "limit"),
        ({"limit": "many"}, "limit"),
        ({"limit": 10**30}, "limit"),
        ({"after": "nonsense"}, "after"),
        ({"after": "9" * 40}, "after"),
        ({"status": "waiting"}, "status"),
        ({"tag": "bad key"}, "tag"),
        ({"search": ""}, "search"),
        ({"name": "a\0b"}, "name"),
        ({"limt": 5}, "limt"),
        ({"tag": ["a:1", "a:2"]}, "tag"),
    ):
        answer = api.get("/v1/jobs", params=params)
        assert answer.status_code == 422, params
        assert answer.headers["content-type"] == "application/problem+json"
        assert [error["param"] for error in answer.json()["errors"]] == [param]


def test_a_job_that_is_not(api):
    for job_id in ("job_none", "x" * 500, "%00", "job%20x", "ä"):
        answer = api.get(f"/v1/jobs/{job_id}")
        assert (answer.status_code, answer.json()["code"]) == (404, "job_not_found")


def test_a_running_job_shows_its_progress(api, create, trainer):
    job_id = create()["id"]
    trainer.start().iterate(10)
    trainer.complete_epoch()
    job = api.get(f"/v1/jobs/{job_id}").json()
    assert (job["status"], job["attempt"], job["worker"]) == ("running", 1, "worker-1")
    assert job["progress"]["iteration"] == 10
    assert job["metrics"]["validation_loss"] == 2.0


def test_cancelling_a_queued_job_ends_it_at_once(api, create):
    job_id = create()["id"]
    answer = api.post(f"/v1/jobs/{job_id}/cancel")
    assert answer.status_code == 202
    assert (answer.json()["status"], answer.json()["done"]) == ("cancelled", True)


def test_cancelling_a_running_job_asks_its_worker(api, create, trainer, database):
    job_id = create()["id"]
    trainer.start()
    answer = api.post(f"/v1/jobs/{job_id}/cancel", json={"keep": "last", "grace_seconds": 5})
    assert answer.status_code == 202
    assert answer.json()["status"] == "running"
    assert answer.json()["cancel_requested_at"] is not None


def test_what_cannot_be_cancelled(api, create, trainer):
    job_id = create()["id"]
    trainer.start().finish()
    answer = api.post(f"/v1/jobs/{job_id}/cancel")
    assert (answer.status_code, answer.json()["code"]) == (409, "job_done")
    assert api.post("/v1/jobs/job_none/cancel").status_code == 404
    wrong = api.post(f"/v1/jobs/{job_id}/cancel", json={"keep": "all"})
    assert (wrong.status_code, wrong.json()["errors"][0]["param"]) == (422, "keep")


def test_delete(api, create, trainer, settings):
    job_id = create()["id"]
    trainer.start()
    busy = api.delete(f"/v1/jobs/{job_id}")
    assert (busy.status_code, busy.json()["code"]) == (409, "job_not_done")
    trainer.finish()
    folders = [settings.artifacts_dir / job_id, settings.checkpoints_dir / job_id / "attempt-1"]
    for folder in folders:
        folder.mkdir(parents=True)
    gone = api.delete(f"/v1/jobs/{job_id}")
    assert (gone.status_code, gone.content) == (204, b"")
    assert not any(folder.exists() for folder in folders)
    assert api.get(f"/v1/jobs/{job_id}").status_code == 404
    assert api.delete(f"/v1/jobs/{job_id}").status_code == 404


def wait(api, job_id, **params):
    """Start a long-poll in a thread, and return a function that gives its answer."""
    answers = []

    def ask():
        answers.append(api.get(f"/v1/jobs/{job_id}", params={"wait_seconds": 30, **params}))

    thread = threading.Thread(target=ask)
    thread.start()

    def answer():
        thread.join(30)
        assert answers, "the long-poll did not answer"
        return answers[0].json()

    answer.is_waiting = lambda: not answers
    return answer


def watchers(app):
    return sum(len(channel.users) for channel in app.state.feed._channels.values())


def until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_waiting_until_done_ignores_everything_else(api, app, create, trainer):
    job_id = create()["id"]
    answer = wait(api, job_id)
    until(lambda: watchers(app) == 1)
    trainer.start().iterate(10)
    trainer.complete_epoch()
    assert answer.is_waiting()
    trainer.finish()
    assert answer()["status"] == "succeeded"
    until(lambda: watchers(app) == 0)


def test_waiting_until_done_goes_on_through_a_pause(api, app, create, trainer):
    job_id = create()["id"]
    answer = wait(api, job_id)
    changed = wait(api, job_id, until="change")
    until(lambda: watchers(app) == 2)
    api.post(f"/v1/jobs/{job_id}/pause")
    assert changed()["status"] == "paused"
    api.post(f"/v1/jobs/{job_id}/resume")
    trainer.start()
    assert answer.is_waiting()
    trainer.finish()
    assert answer()["status"] == "succeeded"


def test_a_retried_job_is_waited_for_again(api, app, create, trainer):
    job_id = create()["id"]
    trainer.start().finish("failed")
    assert api.post(f"/v1/jobs/{job_id}/retry").json()["done"] is False
    answer = wait(api, job_id)
    until(lambda: watchers(app) == 1)
    trainer.start()
    assert answer.is_waiting()
    trainer.finish()
    assert answer()["status"] == "succeeded"


def test_waiting_until_an_epoch(api, app, create, trainer):
    job_id = create()["id"]
    trainer.start()
    answer = wait(api, job_id, until="epoch")
    until(lambda: watchers(app) == 1)
    trainer.iterate(10)
    trainer.announce()
    trainer.complete_epoch()
    assert answer()["progress"]["epoch"] == 1


def test_waiting_until_any_change(api, app, create, trainer):
    job_id = create()["id"]
    answer = wait(api, job_id, until="change")
    until(lambda: watchers(app) == 1)
    trainer.start()
    assert answer()["status"] == "running"


def test_many_wait_for_one_job_without_a_thread_each(api, app, create, trainer):
    job_id = create()["id"]
    answers = [wait(api, job_id) for _ in range(60)]  # the thread pool has 40 threads
    until(lambda: watchers(app) == 60)
    trainer.start().finish()
    assert {answer()["status"] for answer in answers} == {"succeeded"}


def test_a_job_that_is_done_is_not_waited_for(api, create, trainer):
    job_id = create()["id"]
    trainer.start().finish()
    for what in ("done", "epoch", "change"):
        assert wait(api, job_id, until=what)()["done"]


def test_waiting_ends_in_time_with_the_job_as_it_is(api, create):
    job_id = create()["id"]
    job = api.get(f"/v1/jobs/{job_id}", params={"wait_seconds": 0.05}).json()
    assert job["status"] == "queued"


def test_waiting_ends_when_the_job_is_deleted(api, app, create, database, trainer):
    job_id = create()["id"]
    answer = wait(api, job_id, until="done")
    until(lambda: watchers(app) == 1)
    with database.write() as tx:
        jobs.delete(tx, job_id)
    assert answer()["code"] == "job_not_found"


def test_waiting_ends_when_the_service_stops(api, app, create):
    answer = wait(api, create()["id"])
    until(lambda: watchers(app) == 1)
    app.state.feed.close()
    assert answer()["status"] == "queued"


@pytest.mark.parametrize(
    "params", [{"wait_seconds": 61}, {"wait_seconds": "nan"}, {"until": "later"}, {"x": 1}]
)
def test_wrong_ways_to_wait(api, create, params):
    assert api.get(f"/v1/jobs/{create()['id']}", params=params).status_code == 422


def test_one_body_is_one_digest_however_it_is_written(api):
    headers = {"Idempotency-Key": "k"}
    body = '{"epochs": 2, "batch_size": 12, "dataset": "iris"}'
    reordered = '{"dataset": "iris","batch_size":12,"epochs":2}'
    sent = {"Content-Type": "application/json", **headers}
    assert api.post("/v1/jobs", content=body, headers=sent).status_code == 201
    assert api.post("/v1/jobs", content=reordered, headers=sent).status_code == 200
