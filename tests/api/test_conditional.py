"""Validators of answers about jobs that are done, and 304 for those who have them."""

import pytest

from epochd.api import conditional

TAG = '"42-17-abc"'
FORMATS = ("json", "csv", "ndjson", "parquet")


@pytest.mark.parametrize(
    ("lines", "named"),
    [
        ([TAG], True),
        ([f"W/{TAG}"], True),
        ([f'"x", W/"y",{TAG}'], True),
        (['"x"', TAG], True),
        (["*"], True),
        ([" * "], True),
        ([f'"x,{TAG[1:]}'], False),
        (["42-17-abc"], False),
        (['"42-17"'], False),
        (['"*"'], False),
        ([""], False),
        ([], False),
    ],
)
def test_lists_of_tags(lines, named):
    assert conditional.names(lines, TAG) is named


@pytest.fixture
def job_id(create, trainer):
    job_id = create()["id"]
    trainer.start().iterate(25)
    trainer.complete_epoch()
    return job_id


@pytest.fixture
def ask(api, job_id):
    def get(what, etag=None, **params):
        headers = {"If-None-Match": etag} if etag else {}
        return api.get(f"/v1/jobs/{job_id}/{what}".rstrip("/"), params=params, headers=headers)

    return get


def answers():
    yield "", {}
    yield "attempts", {}
    for kind in FORMATS:
        yield "epochs", {"format": kind}
        yield "iterations", {"format": kind}
        yield "iterations", {"format": kind, "points": 5}


ANSWERS = list(answers())


def test_an_answer_that_may_change_has_no_validator(ask, trainer):
    for status in ("running", "paused"):
        for what, params in ANSWERS:
            answer = ask(what, '"x", *', **params)
            assert answer.status_code == 200, status
            assert "etag" not in answer.headers
        if status == "running":
            trainer.finish("paused")


def test_who_has_the_answer_is_not_sent_it_again(ask, trainer):
    trainer.finish()
    for what, params in ANSWERS:
        answer = ask(what, **params)
        assert answer.status_code == 200, answer.text
        again = ask(what, **params)
        assert again.content == answer.content
        for etag in (answer.headers["etag"], f'"x", W/{answer.headers["etag"]}', "*"):
            known = ask(what, etag, **params)
            assert (known.status_code, known.content) == (304, b""), (what, params)
            for name in ("etag", "cache-control", "vary"):
                assert known.headers[name] == answer.headers[name]
            assert "content-type" not in known.headers
        assert (answer.headers["cache-control"], answer.headers["vary"]) == ("private, no-cache", "Accept")
        assert ask(what, '"x"', **params).content == answer.content


def test_every_representation_has_its_own(ask, trainer):
    trainer.finish()
    others = [
        ("iterations", {"after": 3}),
        ("iterations", {"limit": 3}),
        ("iterations", {"fields": "epoch"}),
        ("iterations", {"attempt": 1}),
        ("iterations", {"points": 5, "reduction": "mean"}),
        ("epochs", {"after": 1}),
    ]
    etags = [ask(what, **params).headers["etag"] for what, params in [*ANSWERS, *others]]
    bodies = {what: set() for what, _ in ANSWERS}
    for (what, _), etag in zip([*ANSWERS, *others], etags, strict=True):
        assert etag not in bodies[what]
        bodies[what].add(etag)


def test_accept_and_format_are_one(api, job_id, trainer):
    trainer.finish()
    url = f"/v1/jobs/{job_id}/iterations"
    by_accept = api.get(url, headers={"Accept": "text/csv"})
    by_format = api.get(url, params={"format": "csv"})
    assert by_accept.headers["etag"] == by_format.headers["etag"]
    headers = {"Accept": "application/json", "If-None-Match": by_accept.headers["etag"]}
    assert api.get(url, headers=headers).status_code == 200


def test_a_job_that_changes_has_another(ask, api, job_id, trainer):
    trainer.finish("failed")
    before = {what: ask(what).headers["etag"] for what in ("", "iterations", "epochs", "attempts")}
    assert api.post(f"/v1/jobs/{job_id}/retry").is_success
    for what, etag in before.items():
        answer = ask(what, etag)
        assert answer.status_code == 200
        assert "etag" not in answer.headers
    trainer.start().iterate(30)
    trainer.finish()
    for what, etag in before.items():
        answer = ask(what, etag)
        assert answer.status_code == 200
        assert answer.headers["etag"] != etag


def test_waiting_does_not_make_another_job(ask, trainer):
    trainer.finish()
    etag = ask("").headers["etag"]
    assert ask("", etag, wait_seconds=5, until="change").status_code == 304


def test_an_unknown_job_is_not_known(api):
    answer = api.get("/v1/jobs/job_none/iterations", headers={"If-None-Match": "*"})
    assert answer.status_code == 404


@pytest.mark.parametrize("what", ["iterations", "epochs"])
@pytest.mark.parametrize("kind", FORMATS)
def test_an_unknown_attempt_is_not_known(ask, trainer, what, kind):
    trainer.finish()
    for etag in ("*", None):
        answer = ask(what, etag, attempt=77, format=kind)
        assert (answer.status_code, answer.json()["code"]) == (404, "attempt_not_found")
    assert ask(what, "*", attempt=1, format=kind).status_code == 304
