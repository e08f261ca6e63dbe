"""The form: built from the schemas, it says what a job would be while one types, and submits it."""

import json
import re
from urllib.parse import parse_qs, urlsplit

from playwright.sync_api import expect


def spec_of(page):
    return json.loads(parse_qs(urlsplit(page.url).query)["spec"][0])


def test_a_job_is_submitted_by_the_form_and_its_curves_move(service, open_page):
    page = open_page(service.url)
    page.get_by_role("link", name="Submit a job").click()
    page.get_by_label("Data set", exact=True).select_option("digits")
    page.get_by_label("Model", exact=True).select_option("cnn")
    page.get_by_label("Channels").fill("4, 8")
    page.get_by_label("Hidden size", exact=True).fill("16")
    page.get_by_label("Epochs", exact=True).fill("40")
    page.get_by_role("button", name="128", exact=True).click()
    page.get_by_label("Name", exact=True).fill("by form")
    page.get_by_label("Learning rate", exact=True).fill("0.01")
    page.get_by_label("Early stopping", exact=True).check()
    page.get_by_label("Patience", exact=True).fill("30")
    # 1438 samples, ceil(1438 / 128) = 12
    expect(page.locator("#plan")).to_contain_text("12 iterations an epoch, 480 in 40 epochs")
    assert spec_of(page) == {
        "dataset": "digits",
        "model": {"name": "cnn", "channels": [4, 8], "hidden_size": 16},
        "epochs": 40,
        "batch_size": 128,
        "name": "by form",
        "optimizer": {"name": "adamw", "learning_rate": 0.01},
        "early_stopping": {"patience": 30},
    }
    page.get_by_role("button", name="Submit the job").click()
    page.wait_for_url(re.compile("/jobs/job_"))
    page.wait_for_function("() => Number(document.querySelector('#curves')?.dataset.last) > 0")
    expect(page.locator(".chip").first).to_have_text(re.compile("succeeded|early stopped"))
    job = service.job(page.url.rsplit("/", 1)[1])
    assert job["spec"]["model"] == {
        "name": "cnn",
        "channels": [4, 8],
        "hidden_size": 16,
        "dropout": 0.0,
        "batch_norm": False,
    }
    assert job["spec"]["early_stopping"]["patience"] == 30
    page.wait_for_function(
        "last => Number(document.querySelector('#curves').dataset.last) === last",
        arg=job["progress"]["iteration"],
    )


def test_what_is_wrong_is_said_beside_its_field(quick, open_page):
    page = open_page(quick.url, "/submit")
    expect(page.locator("#plan")).to_be_visible()
    page.get_by_label("Batch size", exact=True).fill("many")
    page.get_by_label("Learning rate", exact=True).fill("-1")
    field = page.locator('[data-param="batch_size"]')
    expect(field.locator("p.error")).to_contain_text('or "auto"')
    expect(page.locator('[data-param="optimizer.learning_rate"] p.error')).to_contain_text("greater than 0")
    expect(page.get_by_label("Batch size", exact=True)).to_have_attribute("aria-invalid", "true")
    expect(page.get_by_role("button", name="Submit the job")).to_be_disabled()
    page.get_by_label("Learning rate", exact=True).fill("")
    page.get_by_label("Batch size", exact=True).fill("50")
    expect(page.locator("#plan")).to_contain_text("29 iterations an epoch")
    expect(page.get_by_role("button", name="Submit the job")).to_be_enabled()
    expect(page.locator(".advice")).to_contain_text("power of two")
    expect(field.locator("p.error")).to_have_text("")
    assert all("422" in text for text in page.watched.complaints)
    page.watched.complaints.clear()


def test_every_field_of_a_spec_comes_back_from_the_address(quick, open_page):
    spec = {
        "name": "all of it",
        "dataset": {"name": "synthetic", "samples": 300, "features": 7, "classes": 4, "noise": 0.2},
        "model": {"name": "mlp", "hidden_sizes": [9, 8], "dropout": 0.25, "batch_norm": True},
        "epochs": 3,
        "batch_size": "auto",
        "optimizer": {"name": "sgd", "learning_rate": 0.05, "momentum": 0.8},
        "schedule": {"name": "cosine", "warmup_iterations": 5},
        "loss": "cross_entropy",
        "class_weights": "balanced",
        "metrics": ["f1", "auroc"],
        "validation": {"fraction": 0.3},
        "early_stopping": {"min_delta": "auto"},
        "export": ["onnx"],
        "seed": 7,
        "precision": "fp32",
        "drop_last": True,
        "checkpoint": {"keep": 3},
        "tags": {"team": "vision"},
    }
    page = open_page(quick.url, f"/submit?spec={json.dumps(spec)}")
    expect(page.locator("#plan")).to_be_visible()
    page.get_by_label("Seed", exact=True).last.evaluate("field => field.dispatchEvent(new Event('input'))")
    page.wait_for_function(
        "sent => new URLSearchParams(location.search).get('spec') !== sent", arg=json.dumps(spec)
    )
    assert spec_of(page) == spec
    no_validation = {"dataset": "iris", "epochs": 1, "batch_size": 8, "validation": None}
    page.goto(f"/submit?spec={json.dumps(no_validation)}")
    expect(page.locator("#plan")).to_contain_text("0 samples validate")


def test_only_models_that_fit_the_data_are_offered(quick, open_page):
    page = open_page(quick.url, "/submit")
    model = page.get_by_label("Model", exact=True)
    expect(model.locator("option")).to_contain_text(["by default", "linear", "mlp", "cnn", "resnet"])
    page.get_by_label("Data set", exact=True).select_option("wine")
    expect(model.locator("option", has_text="tabular resnet")).to_have_count(1)
    expect(model.locator("option", has_text="cnn")).to_have_count(0)


def test_a_job_is_sent_again_with_what_the_diagnosis_suggests(quick, open_page):
    job = quick.submit(
        dataset="digits",
        epochs=8,
        batch_size=512,
        name="too short",
        optimizer={"name": "adamw", "learning_rate": 1e-4},
    )
    done = quick.wait(job)
    suggestion = done["diagnosis"]["suggestions"][0]
    page = open_page(quick.url, f"/jobs/{job}")
    page.get_by_role("link", name="Try it").first.click()
    expect(page.get_by_role("button", name="Submit the job")).to_be_enabled()
    page.get_by_role("button", name="Submit the job").click()
    page.wait_for_url(re.compile("/jobs/job_"))
    made = quick.job(page.url.rsplit("/", 1)[1])
    for name, value in suggestion["patch"].items():
        assert made["spec"][name] == value
    assert made["id"] != job


def test_a_form_that_is_sent_twice_trains_once(quick, line, open_page):
    page = open_page(
        line.url,
        "/submit?spec=" + json.dumps({"dataset": "iris", "epochs": 1, "batch_size": 8, "name": "once"}),
    )
    expect(page.get_by_role("button", name="Submit the job")).to_be_enabled()
    line.cut()
    page.get_by_role("button", name="Submit the job").click()
    expect(page.locator("main")).to_contain_text("does not answer")
    line.mend()
    page.evaluate(
        "() => { const form = document.querySelector('form'); form.requestSubmit(); form.requestSubmit(); }"
    )
    page.wait_for_url(re.compile("/jobs/job_"))
    assert len(quick.client.get("/v1/jobs", params={"name": "once"}).json()["data"]) == 1
    assert all("ERR_" in text for text in page.watched.complaints)
    page.watched.complaints.clear()
