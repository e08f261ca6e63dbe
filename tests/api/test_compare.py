"""GET /v1/metrics/compare."""

import json

import pytest
from pydantic import SecretStr
from tests.api.conftest import serving
from typer.testing import CliRunner

from epochd import cli
from epochd.api.app import create_app
from epochd.api.compare import EXAMPLE
from epochd.client.compare import fetch
from epochd.contract.compare import Comparison
from epochd.errors import InvalidRequestError, NotFoundError, UnauthorizedError


@pytest.fixture
def train(create, trainer):
    """Train a job so that its epochs have these validation losses."""

    def make(losses, **changes):
        job = create(**changes)
        trainer.start()
        for loss in losses:
            trainer.iterate(10)
            trainer.complete_epoch(train_loss=0.25, validation_loss=loss)
        trainer.finish()
        return job["id"]

    return make


@pytest.fixture
def ask(api):
    def get(*jobs, **query):
        return api.get("/v1/metrics/compare", params=[*(("job", job) for job in jobs), *query.items()])

    return get


@pytest.fixture
def compare(ask):
    def get(*jobs, **query):
        answer = ask(*jobs, **query)
        assert answer.status_code == 200, answer.text
        Comparison.model_validate(answer.json())
        return answer.json()

    return get


def refused(answer):
    assert answer.status_code == 422, answer.text
    return [(error["param"], error["code"]) for error in answer.json()["errors"]]


def test_the_example_is_an_answer():
    assert Comparison.model_validate(EXAMPLE).model_dump(mode="json") == EXAMPLE


def test_figures_stand_side_by_side(train, compare):
    small, large = train([1.0, 0.5, 0.75]), train([2.0, 1.0], optimizer={"name": "sgd", "learning_rate": 0.5})
    found = compare(small, large, target=0.6)
    assert (found["metric"], found["mode"], found["target"]) == ("validation_loss", "min", 0.6)
    one, other = found["data"]
    assert (one["id"], one["best_value"], one["best_epoch"], one["final_value"]) == (small, 0.5, 2, 0.75)
    assert (one["epochs_to_target"], one["iterations_to_target"], one["seconds_to_target"]) == (2, 20, 1.0)
    assert (one["epochs"], one["iterations"], one["seconds"]) == (3, 30, 1.5)
    assert one["samples_per_second"] == 240.0  # 120 samples in half a second
    assert one["generalisation_gap"] == 0.25
    assert (other["id"], other["epochs_to_target"], other["best_value"]) == (large, None, 1.0)
    assert {"path": "optimizer.learning_rate", "values": [0.001, 0.5]} in found["differences"]
    assert found["curves"] == {
        "epoch": [1, 2, 3], "values": {small: [1.0, 0.5, 0.75], large: [2.0, 1.0, None]}
    }  # fmt: skip
    assert found["notes"] == []


def test_what_makes_figures_less_comparable_is_noted(train, create, compare):
    notes = compare(train([1.0]), create(dataset="wine", seed=3)["id"])["notes"]
    assert "different data sets" in notes[0]
    assert "not done (queued)" in notes[1]
    notes = compare(create()["id"], create(seed=3, loss="cross_entropy", label_smoothing=0.1)["id"])["notes"]
    assert "different samples" in notes[0]
    assert "different losses" in notes[1]


def test_a_job_without_validation_is_compared_by_what_all_have(train, compare):
    jobs = train([1.0]), train([None], validation=None)
    assert compare(*jobs)["metric"] == "train_loss"
    assert [job["best_value"] for job in compare(*jobs)["data"]] == [0.25, 0.25]
    assert [job["best_value"] for job in compare(*jobs, metric="validation_loss")["data"]] == [1.0, None]


def test_jobs_that_have_trained_nothing_have_no_figures(create, compare):
    found = compare(create()["id"], create()["id"], target=1)
    assert found["curves"]["epoch"] == []
    assert [job["best_value"] for job in found["data"]] == [None, None]
    assert [job["samples_per_second"] for job in found["data"]] == [None, None]


def test_an_epoch_that_was_trained_again_counts_once(create, trainer, compare):
    job, other = create(), None
    trainer.start()
    for loss in (1.0, 0.5, 0.125):
        trainer.iterate(10)
        trainer.complete_epoch(train_loss=1.0, validation_loss=loss)
    trainer.lose()
    trainer.resume(20)
    trainer.iterate(10)
    trainer.complete_epoch(train_loss=1.0, validation_loss=0.25)
    other = create()["id"]
    found = compare(job["id"], other)
    assert found["curves"]["values"][job["id"]] == [1.0, 0.5, 0.25]
    assert (found["data"][0]["best_value"], found["data"][0]["seconds"]) == (0.25, 1.5)


def test_long_curves_are_thinned_but_their_figures_are_not(train, compare):
    losses = [1.0, 0.9, 0.1, 0.8, 0.7]
    jobs = train(losses, epochs=5), train(losses, epochs=5)
    found = compare(*jobs, points=3)
    assert found["curves"]["epoch"] == [1, 3, 5]
    found = compare(*jobs, points=2)
    assert found["curves"]["values"][jobs[0]] == [1.0, 0.7]
    assert found["data"][0]["best_epoch"] == 3


@pytest.mark.parametrize("how", ["parameter", "header"])
def test_the_curves_as_csv(train, api, how):
    a, b = train([1.0, 0.5]), train([2.0])
    query, headers = f"job={a}&job={b}", {}
    if how == "parameter":
        query += "&format=csv"
    else:
        headers = {"Accept": "text/csv"}
    answer = api.get(f"/v1/metrics/compare?{query}", headers=headers)
    assert answer.headers["content-type"].startswith("text/csv")
    assert answer.text == f"epoch,{a},{b}\n1,1.0,2.0\n2,0.5,\n"


def test_what_cannot_be_compared_is_told(train, create, ask):
    job, other = train([1.0]), create()["id"]
    assert refused(ask(job)) == [("job", "too_short")]
    assert refused(ask(*[f"job_{n}" for n in range(21)])) == [("job", "too_long")]
    assert refused(ask(job, other, job)) == [("job", "duplicate")]
    assert refused(ask(job, other, metric="accuracy")) == [("metric", "not_one_of")]
    assert "train_loss, validation_loss" in ask(job, other, metric="accuracy").json()["errors"][0]["message"]
    assert refused(ask(other, create()["id"], metric="accuracy")) == [("metric", "not_one_of")]
    assert refused(ask(job, other, target="nan"))[0][0] == "target"
    assert refused(ask(job, other, points=1))[0][0] == "points"
    assert refused(ask(job, other, format="parquet"))[0][0] == "format"
    assert refused(ask(job, other, targt=1))[0][0] == "targt"
    assert ask(job, "job_none").status_code == 404
    assert ask(job, "../x").status_code == 404


def test_too_many_epochs_are_not_read(train, create, ask, monkeypatch):
    monkeypatch.setattr("epochd.jobs.compare.MAX_EPOCHS", 2)
    assert refused(ask(train([1.0, 1.0, 1.0]), create()["id"])) == [("job", "too_many")]


@pytest.fixture
def command():
    """Run ``epochd compare`` in this process."""

    def run(*arguments):
        done = CliRunner().invoke(cli.app, ["compare", *arguments])
        return done.exit_code, done.output

    return run


def test_the_command_shows_what_the_service_answers(train, compare, server, command):
    jobs = train([1.0, 0.5], batch_size=12), train([2.0, 0.25], batch_size=6)
    code, text = command(*jobs, "--url", server.url, "--json", "--target", "0.5")
    assert code == 0, text
    assert json.loads(text) == compare(*jobs, target=0.5)
    code, text = command(*jobs, "--url", server.url, "--metric", "train_loss", "--target", "0.3")
    assert code == 0, text
    assert "train_loss" in text
    assert "batch_size 12" in text
    assert "target 0.3" in text


def test_the_client_says_what_the_service_says(create, server):
    job = create()["id"]
    with pytest.raises(InvalidRequestError, match="twice"):
        fetch(server.url, None, [job, job])
    with pytest.raises(NotFoundError, match="job_none"):
        fetch(server.url + "/", None, [job, "job_none"])


def test_the_client_shows_its_key(create, settings):
    jobs = create()["id"], create()["id"]
    guarded = settings.model_copy(update={"api_keys": SecretStr("let-me-in-please")})
    with serving(create_app(guarded)) as server:
        assert [job["id"] for job in fetch(server.url, "let-me-in-please", jobs)["data"]] == list(jobs)
        with pytest.raises(UnauthorizedError):
            fetch(server.url, "guess", jobs)
