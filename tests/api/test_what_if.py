"""POST /v1/jobs/{id}/early-stopping/what-if."""

import pytest

from epochd.api.what_if import EXAMPLE, REQUESTS
from epochd.contract.what_if import WhatIf
from epochd.jobs import what_if as replay
from epochd.store import metrics
from epochd.store.metrics import NewEpoch

LOSSES = [1.0, 0.5, 0.6, 0.4, 0.45, 0.46, 0.47, 0.3]
MEASURED = "min_delta_not_measured"
URL = "/v1/jobs/{}/early-stopping/what-if"


@pytest.fixture
def record(create, trainer):
    """Queue a job of 20 epochs, and record these validation losses of it."""

    def make(losses=LOSSES, status=None, **changes):
        job = create(**{"epochs": 20, **changes})
        trainer.start()
        for loss in losses:
            trainer.iterate(10)
            trainer.complete_epoch(validation_loss=loss, validation_accuracy=loss and 1 - loss)
        if status is not None:
            trainer.finish(status)
        return job["id"]

    return make


@pytest.fixture
def ask(api):
    def post(job, **body):
        answer = api.post(URL.format(job), json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    return post


def columns(found, *names):
    return [tuple(row[name] for name in names) for row in found["data"]]


def test_a_grid_over_a_job_that_is_done(record, ask):
    found = ask(record(status="cancelled"), patience=[2, 3, 5], min_delta=[0, 0.15])
    policies = [(row["policy"]["patience"], row["policy"]["min_delta"]) for row in found["data"]]
    assert policies == [(2, 0), (2, 0.15), (3, 0), (3, 0.15), (5, 0), (5, 0.15)]
    # By 0.15 only 0.5 (epoch 2) and 0.3 (epoch 8) improve on the reference.
    assert columns(found, "stopped_epoch", "kept_epoch", "kept_value", "epochs_saved") == [
        (6, 4, 0.4, 2),
        (4, 4, 0.4, 4),
        (7, 4, 0.4, 1),
        (5, 4, 0.4, 3),
        (None, 8, 0.3, -5),
        (7, 4, 0.4, 1),
    ]
    assert found["data"][0] | {"policy": None} == {
        "policy": None, "stopped": True, "stopped_epoch": 6, "stop_reason": "early_stopped", "would_go_on": False,
        "best_epoch": 4, "best_value": 0.4, "kept_epoch": 4, "kept_value": 0.4, "value_lost": pytest.approx(0.1),
        "epochs": 6, "iterations": 60, "seconds": 3.0, "epochs_saved": 2, "iterations_saved": 20, "seconds_saved": 1.0,
    }  # fmt: skip
    assert found["actual"] == {
        "policy": None, "stop_reason": "cancelled", "epochs": 8, "iterations": 80, "seconds": 4.0, "best_epoch": 8,
        "best_value": 0.3, "kept_epoch": None, "kept_value": None,
    }  # fmt: skip
    assert (found["status"], found["epochs"], found["next"]) == ("cancelled", 8, None)


def test_a_policy_that_would_go_on_costs_at_least_until_it_could_stop(record, ask):
    job = record(status="cancelled")
    [row] = ask(job, patience=7)["data"]
    assert (row["stopped"], row["would_go_on"], row["stop_reason"]) == (False, True, None)
    assert (row["epochs"], row["iterations"], row["seconds"]) == (15, 150, 7.5)
    assert (row["epochs_saved"], row["iterations_saved"], row["seconds_saved"]) == (-7, -70, -3.5)
    [longest] = ask(job, patience=1000)["data"]
    assert longest["epochs"] == 20  # the spec has no more
    [with_target] = ask(job, patience=7, target=0.1)["data"]
    assert with_target["epochs"] == 9  # the next may reach it


def test_a_running_job_is_replayed_as_far_as_it_is(record, ask, trainer):
    job = record()
    found = ask(job, patience=[2, 5])
    assert (found["status"], found["actual"]["stop_reason"]) == ("running", None)
    assert columns(found, "stopped_epoch", "would_go_on", "epochs", "epochs_saved") == [
        (6, False, 6, 2),
        (None, True, 8, 0),
    ]
    for loss in [0.5] * 5:
        trainer.iterate(10)
        trainer.complete_epoch(validation_loss=loss)
    assert columns(ask(job, patience=5), "stopped_epoch") == [(13,)]


def test_a_job_without_epochs_is_answered_too(create, ask):
    found = ask(create()["id"])
    assert found["epochs"] == found["actual"]["epochs"] == 0
    [row] = found["data"]
    assert (row["stopped"], row["would_go_on"], row["best_epoch"], row["value_lost"]) == (
        False,
        True,
        None,
        None,
    )


def test_a_job_that_went_to_its_end_goes_on_no_further(record, ask):
    [row] = ask(record(epochs=8, status="succeeded"), patience=5)["data"]
    assert (row["stopped"], row["would_go_on"], row["epochs_saved"]) == (False, False, 0)


def test_what_is_left_out_is_the_jobs_own(record, ask):
    own = {
        "monitor": "validation_accuracy",
        "patience": 3,
        "min_delta": 0.01,
        "start_epoch": 2,
        "target": 0.99,
    }
    job = record(early_stopping=own)
    [row] = ask(job)["data"]
    assert row["policy"] == ask(job)["actual"]["policy"] == {**own, "mode": "max", "restore_best": True}
    [other] = ask(job, monitor="validation_loss", target=0.45)["data"]
    assert (other["policy"]["mode"], other["policy"]["target"]) == ("min", 0.45)
    assert (other["stopped_epoch"], other["stop_reason"]) == (4, "target_reached")
    [untargeted] = ask(job, target=None)["data"]
    assert untargeted["policy"]["target"] is None
    assert ask(job, monitor="train_loss")["data"][0]["policy"]["target"] is None  # the job's is an accuracy


def test_the_last_weights_are_kept_where_the_best_are_not_restored(record, ask):
    [row] = ask(record(), patience=2, restore_best=False)["data"]
    assert (row["kept_epoch"], row["kept_value"], row["best_epoch"]) == (6, 0.46, 4)
    assert row["value_lost"] == pytest.approx(0.16)


def test_epochs_that_were_not_validated_do_not_stop(record, ask):
    every_third = {"fraction": 0.2, "every_epochs": 3}
    job = record([None, None, 0.5, None, None, 0.6, None, None, 0.6], validation=every_third)
    assert columns(ask(job, patience=[1, 4]), "stopped_epoch", "best_epoch") == [(6, 3), (9, 3)]


def test_a_validated_epoch_without_a_finite_value_counts(record, ask):
    job = record([0.5, None, None, 0.4], validation={"fraction": 0.2})
    assert columns(ask(job, patience=[1, 2, 3]), "stopped_epoch") == [(2,), (3,), (None,)]


def test_without_validation_a_metric_of_training_is_replayed(record, ask):
    [row] = ask(record(validation=None), monitor="train_loss", patience=2)["data"]
    assert (row["stopped"], row["best_epoch"]) == (False, 8)


WRONG = [
    ({"monitor": "validation_f1"}, "monitor", "unknown_metric", "validation_loss"),
    ({"start_epoch": 21}, "start_epoch", "start_epoch_after_last_epoch", "last epoch, 20"),
    ({"patience": -1}, "patience", "out_of_range", "at least 0"),
    ({"patience": [3, 1.5]}, "patience.1", "wrong_type", "a whole number; got 1.5"),
    ({"patience": []}, "patience", "too_short", "at least 1"),
    ({"patience": "3"}, "patience", "wrong_type", 'a whole number; got "3"'),
    ({"patience": [1] * 1001}, "patience", "too_long", "at most 1000"),
    ({"patience": [1] * 40, "min_delta": [0] * 26}, "patience", "too_many_policies", "1040"),
    ({"min_delta": "Auto"}, "min_delta", "invalid", 'a number of at least 0, or "auto"; got "Auto"'),
    ({"min_delta": [0, -1]}, "min_delta.1", "out_of_range", "at least 0"),
    ({"min_delta": [None]}, "min_delta.0", "wrong_type", "a number; got null"),
    ({"patients": 3}, "patients", "unknown_parameter", "'patience'"),
]


def test_what_is_wrong_is_told(record, api):
    job = record()
    for body, param, code, said in WRONG:
        answer = api.post(URL.format(job), json=body)
        assert answer.status_code == 422, body
        [error] = answer.json()["errors"]
        assert (error["param"], error["code"]) == (param, code), body
        assert said in error["message"], body


def test_there_must_be_such_a_job(api):
    answer = api.post(URL.format("job_01k9v7g2b4n6q8s0t2w4x6z8ac"), json={})
    assert (answer.status_code, answer.json()["code"]) == (404, "job_not_found")


def test_the_work_is_limited_and_policies_that_have_stopped_are_none(record, api, ask, monkeypatch):
    job = record()
    monkeypatch.setattr(replay, "MAX_LOOKS", 40)
    assert len(ask(job, patience=[1] * 20)["data"]) == 20  # each stops at epoch 3
    answer = api.post(URL.format(job), json={"patience": [9] * 6})
    [error] = answer.json()["errors"]
    assert (error["param"], error["code"]) == ("patience", "too_much_to_replay")
    assert "40 epochs together" in error["message"]


def test_many_epochs_are_read_in_parts(create, trainer, database, ask):
    job = create(epochs=5000)
    trainer.start()
    rows = [
        NewEpoch(
            epoch, 10 * epoch, {"train_loss": 1.0, "validation_loss": 1 / min(epoch, 4100)}, 0.001, 0.25, True
        )
        for epoch in range(1, 4501)
    ]
    trainer.iterate(45_000)
    with database.write() as tx:
        metrics.record_epochs(tx, trainer.claim.attempt_id, rows)
    found = ask(job["id"], patience=[100, 200, 1000])
    assert columns(found, "stopped_epoch", "best_epoch", "seconds_saved") == [
        (4200, 4100, 75.0), (4300, 4100, 50.0), (None, 4100, 0.0),
    ]  # fmt: skip


def test_min_delta_auto_is_a_policy_of_jobs(api, create):
    policy = create(epochs=50, early_stopping={"min_delta": "auto"})
    assert policy["spec"]["early_stopping"]["min_delta"] == "auto"
    assert policy["early_stopping"]["min_delta"] is None
    assert MEASURED not in [advice["code"] for advice in policy["advice"]]
    url = f"/v1/jobs/{policy['id']}"
    amended = api.patch(url, json={"early_stopping": {"min_delta": 0.5}}).json()
    assert amended["early_stopping"]["min_delta"] == 0.5
    answer = api.patch(url, json={"early_stopping": {"min_delta": "none"}})
    assert 'a number of at least 0, or "auto"; got "none"' in answer.json()["errors"][0]["message"]


def test_min_delta_auto_that_is_never_measured_is_advised_against(create):
    short = create(epochs=9, early_stopping={"min_delta": "auto"})
    assert MEASURED in [advice["code"] for advice in short["advice"]]
    seldom = create(
        epochs=30, early_stopping={"min_delta": "auto"}, validation={"fraction": 0.2, "every_epochs": 4}
    )
    assert MEASURED in [advice["code"] for advice in seldom["advice"]]


def test_the_examples_are_what_the_model_says_and_the_requests_work(record, ask):
    assert WhatIf.model_validate(EXAMPLE).model_dump(mode="json") == EXAMPLE
    job = record()
    for example in REQUESTS.values():
        assert ask(job, **example["value"])["data"]
