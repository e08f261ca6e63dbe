"""A job's page: its curves while it trains, through a broken connection, and as far in as one looks."""

import re

import pytest
from playwright.sync_api import expect
from tests.marks import postgres_in_torture

SHORT = {"dataset": "digits", "epochs": 12, "batch_size": 64, "model": {"name": "mlp", "hidden_sizes": [32]}}


def iterations_of(page):
    return int(page.locator("#curves").get_attribute("data-last") or 0)


def wait_for_iteration(page, least):
    page.wait_for_function(
        "least => Number(document.querySelector('#curves')?.dataset.last) >= least", arg=least
    )


def wait_for_part(page):
    """Wait until the part that the address names is drawn."""
    page.wait_for_function(
        """() => {
            const named = new URLSearchParams(location.search);
            return document.querySelector("#curves").dataset.range === `${named.get("from")}-${named.get("to")}`;
        }"""
    )


def table_of_epochs(page):
    """Open the table, and read its first column from the oldest on."""
    page.get_by_text("Epochs as a table").click()
    cells = page.locator("details[data-key=epochs] tbody th").all_text_contents()
    return [int(re.match(r"\d+", cell)[0]) for cell in reversed(cells)]


def test_curves_move_while_a_job_trains_and_stand_when_it_is_done(service, open_page, drawn, endless):
    job = service.submit(**endless, name="moving")
    page = open_page(service.url, f"/jobs/{job}")
    expect(page.get_by_role("heading", level=1)).to_contain_text("moving")
    expect(page.locator(".chip").first).to_have_text("running")
    wait_for_iteration(page, 1)
    seen = iterations_of(page)
    wait_for_iteration(page, seen + 200)
    assert max(drawn(page)["Loss 0"]) >= seen
    service.end_soon(job)
    expect(page.locator(".chip").first).to_have_text("succeeded")
    last = service.job(job)["progress"]["iteration"]
    wait_for_iteration(page, last)
    for name, places in drawn(page).items():
        assert max(places) == last, name
    expect(page.locator(".timeline")).to_contain_text("Succeeded: completed")
    with page.expect_download() as download:
        page.get_by_role("link", name="model.safetensors").click()
    assert download.value.path().read_bytes() == service.artifacts(job)["model.safetensors"]


def test_everything_about_a_job_is_there(quick, open_page, drawn):
    job = quick.submit(**SHORT, name="told", early_stopping={"patience": 3}, tags={"team": "vision"})
    done = quick.wait(job)
    page = open_page(quick.url, f"/jobs/{job}")
    expect(page.locator("#curves")).to_have_attribute(
        "aria-label", re.compile(r"Validation loss from .* Best epoch")
    )
    per_epoch = done["plan"]["iterations_per_epoch"]
    epochs = [per_epoch * (number + 1) for number in range(done["progress"]["epoch"])]
    shown = drawn(page)
    assert shown["Loss 0"] == list(range(1, done["progress"]["iteration"] + 1))
    assert shown["Loss 1"] == shown["Loss 3"] == epochs
    main = page.locator("main")
    for text in (
        "team: vision",
        "of 3 left",
        done["plan"]["train_samples"],
        "Weights of epoch",
        "receipt.json",
    ):
        expect(main).to_contain_text(f"{text:,}" if isinstance(text, int) else text)
    expect(page.locator("#diagnosis")).to_contain_text(
        done["diagnosis"]["verdict"].replace("_", " "), ignore_case=True
    )
    assert table_of_epochs(page) == list(range(1, done["progress"]["epoch"] + 1))


def test_the_curl_line_submits_the_same_job(quick, open_page, run_shell):
    job = quick.submit(**SHORT, name="it's one", seed=3)
    quick.wait(job)
    page = open_page(quick.url, f"/jobs/{job}")
    page.get_by_text("Submit it again with curl").click()
    made = run_shell(page.locator("#curl").inner_text())
    assert made["id"] != job
    again = quick.wait(made["id"])
    assert again["spec"] == quick.job(job)["spec"]
    assert again["metrics"] == quick.job(job)["metrics"]


def test_a_connection_that_drops_leaves_no_gap(quick, line, open_page, drawn, endless):
    job = quick.submit(**{**endless, "batch_size": 360}, name="cut off")
    page = open_page(line.url, f"/jobs/{job}")
    wait_for_iteration(page, 20)
    line.cut()
    expect(page.locator("#connection")).to_be_visible()
    expect(page.locator("#connection")).to_contain_text("nothing is lost")
    before = iterations_of(page)
    quick.wait(job, lambda found: found["progress"]["iteration"] > before + 20)
    line.mend()
    expect(page.locator("#connection")).to_be_hidden()
    wait_for_iteration(page, before + 20)
    quick.client.post(f"/v1/jobs/{job}/cancel", json={"keep": "last"}).raise_for_status()
    expect(page.locator(".chip").first).to_have_text("cancelled")
    progress = quick.wait(job)["progress"]
    wait_for_iteration(page, progress["iteration"])
    page.locator("main[data-stream=over]").wait_for()
    assert_whole(drawn(page)["Loss 0"], progress["iteration"])
    assert table_of_epochs(page) == [row["epoch"] for row in quick.epochs(job)][-200:]
    # Chromium reports each request that nobody answered; nothing else was complained of.
    assert all("ERR_" in text for text in page.watched.complaints)
    page.watched.complaints.clear()


def assert_whole(places, last):
    """Iterations ascend without a repeat, from the first to the last."""
    assert places == sorted(set(places))
    assert (places[0], places[-1]) == (1, last)


@postgres_in_torture
def test_the_service_starts_anew_while_a_page_is_open(start_service, open_page, drawn, endless):
    first = start_service()
    port = first.client.base_url.port
    job = first.submit(**{**endless, "batch_size": 360})
    page = open_page(first.url, f"/jobs/{job}")
    wait_for_iteration(page, 10)
    assert first.end() == 0
    expect(page.locator("#connection")).to_be_visible()
    second = start_service("--port", str(port))
    expect(page.locator("#connection")).to_be_hidden()
    stopped = second.job(job)["progress"]["iteration"]
    wait_for_iteration(page, stopped + 10)
    expect(page.locator(".timeline")).to_contain_text("Attempt 2")
    progress = second.end_soon(job)["progress"]
    wait_for_iteration(page, progress["iteration"])
    assert_whole(drawn(page)["Loss 0"], progress["iteration"])
    assert all("ERR_" in text for text in page.watched.complaints)
    page.watched.complaints.clear()


def test_zooming_asks_for_that_part_and_the_address_keeps_it(quick, open_page, drawn):
    job = quick.submit(
        dataset="digits", epochs=100, batch_size=8, model={"name": "linear"}, early_stopping=None
    )
    last = quick.wait(job)["progress"]["iteration"]
    page = open_page(quick.url, f"/jobs/{job}")
    wait_for_iteration(page, last)
    whole = drawn(page)["Loss 0"]
    assert_whole(whole, last)
    assert len(whole) <= 1600 < last
    middle = last // 2
    page.watched.requests.clear()
    for _ in range(5):
        page.get_by_role("button", name="Zoom in").click()
        wait_for_part(page)
    asked = [url for url in page.watched.requests if "/iterations?" in url]
    assert len(asked) == 10
    assert all("points=" in url and "after=" in url and "up_to=" in url for url in asked)
    part = drawn(page)["Loss 0"]
    # Of the part every iteration is there, which the whole had no room for.
    assert part == list(range(int(part[0]), int(part[-1]) + 1))
    assert part[0] < middle < part[-1]
    assert len(part) < last / 16
    sent = open_page(quick.url, re.sub(r"^https?://[^/]+", "", page.url))
    wait_for_iteration(sent, last)
    assert drawn(sent)["Loss 0"] == part
    page.get_by_role("button", name="Show the whole series").click()
    expect(page.locator("#curves")).to_have_attribute("data-range", f"1-{last}")
    assert drawn(page)["Loss 0"] == whole
    assert "from=" not in page.url


def test_dragging_over_the_curves_zooms(quick, open_page, drawn):
    job = quick.submit(**SHORT)
    last = quick.wait(job)["progress"]["iteration"]
    page = open_page(quick.url, f"/jobs/{job}")
    wait_for_iteration(page, last)
    box = page.locator("#curves").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.4, box["y"] + 100)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + 150, steps=5)
    page.mouse.up()
    page.wait_for_url(re.compile("from="))
    wait_for_part(page)
    part = drawn(page)["Loss 0"]
    assert last * 0.25 < part[0] < part[-1] < last * 0.75


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_and_scale(quick, open_page, scheme):
    job = quick.submit(**SHORT)
    last = quick.wait(job)["progress"]["iteration"]
    page = open_page(quick.url, f"/jobs/{job}", color_scheme=scheme)
    wait_for_iteration(page, last)
    html = page.locator("html")
    expect(html).to_have_attribute("data-theme", scheme)
    page.get_by_role("button", name="Log scale").click()
    page.wait_for_url(re.compile("scale=log"))
    expect(page.get_by_role("button", name="Log scale")).to_have_attribute("aria-pressed", "true")
    page.get_by_role("button", name="Colours: system").click()
    expect(html).to_have_attribute("data-theme", "light")
    page.get_by_role("button", name="Colours: light").click()
    expect(html).to_have_attribute("data-theme", "dark")
    page.reload()
    expect(html).to_have_attribute("data-theme", "dark")


def test_a_job_is_steered_from_its_page(quick, open_page, endless):
    job = quick.submit(**endless, name="steered")
    page = open_page(quick.url, f"/jobs/{job}")
    wait_for_iteration(page, 1)
    chip = page.locator(".chip").first
    page.get_by_role("button", name="Pause steered").click()
    expect(chip).to_have_text("paused")
    page.get_by_role("button", name="Resume steered").click()
    expect(chip).to_have_text("running")
    page.get_by_role("button", name="Cancel steered").click()
    page.get_by_label("Weights to keep").select_option("nothing")
    page.get_by_role("button", name="Cancel the job").click()
    expect(chip).to_have_text("cancelled")
    page.get_by_role("button", name="Delete steered").click()
    page.get_by_role("button", name="Leave it").click()
    expect(chip).to_have_text("cancelled")
    page.get_by_role("button", name="Delete steered").click()
    page.get_by_role("button", name="Delete the job").click()
    page.wait_for_url(re.compile("/$"))
    assert quick.client.get(f"/v1/jobs/{job}").status_code == 404


def test_a_job_that_there_is_not(quick, open_page):
    page = open_page(quick.url, "/jobs/job_nothing")
    expect(page.get_by_role("alert")).to_contain_text("job_nothing")
    page.get_by_role("link", name="All jobs").click()
    expect(page.get_by_role("heading", name="Jobs")).to_be_visible()
    assert all("404" in text or "job_nothing" in text for text in page.watched.complaints)
    page.watched.complaints.clear()


def test_a_browsers_own_event_source_follows_a_job(quick, open_page):
    page = open_page(quick.url)
    job = quick.submit(**SHORT)
    found = page.evaluate(
        """job => new Promise((resolve, reject) => {
            const types = [];
            const source = new EventSource(`/v1/jobs/${job}/events?iterations=true`);
            for (const type of ["job.queued", "job.started", "iterations", "epoch.completed", "job.succeeded"]) {
                source.addEventListener(type, (event) => {
                    types.push([type, event.lastEventId, JSON.parse(event.data)]);
                    if (type === "job.succeeded") resolve((source.close(), types));
                });
            }
            setTimeout(() => reject(new Error(JSON.stringify(types))), 60000);
        })""",
        job,
    )
    kinds = [kind for kind, _, _ in found]
    assert kinds[:2] == ["job.queued", "job.started"]
    assert kinds.count("epoch.completed") == SHORT["epochs"]
    seen = [at for kind, _, data in found if kind == "iterations" for at in data["columns"]["iteration"]]
    assert seen == list(range(1, quick.job(job)["progress"]["iteration"] + 1))
