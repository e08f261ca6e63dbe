"""Every page: for who sees it small or dark, or hears it; data sets, workers, and a service that wants a key."""

import re

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect
from tests.marks import postgres_in_torture

SHORT = {"dataset": "digits", "epochs": 6, "batch_size": 64}
KEY = "a-key-of-twenty-letters"


@pytest.fixture(scope="module")
def pages(quick):
    """The path of every page, with something on it, and a text that stands there once it is complete."""
    jobs = [
        quick.submit(**{**SHORT, "batch_size": size}, name=f"page {size}", early_stopping={"patience": 2})
        for size in (32, 50)
    ]
    for job in jobs:
        quick.wait(job)
    files = {"file": ("shop.csv", "age,city,bought\n" + "23,Rome,no\n35,Paris,yes\n,Rome,yes\n" * 9)}
    quick.client.post("/v1/datasets", files=files).raise_for_status()
    return {
        "/": "page 50",
        f"/jobs/{jobs[1]}": "Spec and plan",
        f"/compare?job={jobs[0]}&job={jobs[1]}": "Where the specs differ",
        "/compare": "Choose two or more",
        "/submit": "iterations an epoch",
        "/datasets": "breast_cancer",
        "/datasets/shop": "The first samples",
        "/workers": "1 job at a time",
    }


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_stands_in_the_way_of_who_cannot_see_well(pages, quick, open_page, scheme):
    for path, text in pages.items():
        page = open_page(quick.url, path, color_scheme=scheme, reduced_motion="reduce")
        expect(page.locator("main")).to_contain_text(text)
        found = Axe().run(
            page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]}
        )
        told = [
            (one["id"], one["nodes"][0]["html"][:200], one["nodes"][0]["failureSummary"])
            for one in found.response["violations"]
        ]
        assert told == [], path
        assert page.title().endswith("· epochd")
        page.context.close()


@pytest.mark.parametrize("width", [320, 390, 768, 2560])
def test_pages_fit_every_screen(pages, quick, open_page, width):
    for path, text in pages.items():
        page = open_page(quick.url, path, viewport={"width": width, "height": 800})
        expect(page.locator("main")).to_contain_text(text)
        assert page.evaluate("() => document.documentElement.scrollWidth - innerWidth") <= 0, (path, width)
        page.context.close()


def test_a_data_set_is_brought_shown_and_trained_on(quick, open_page, table_file):
    page = open_page(quick.url, "/datasets")
    page.get_by_label("File").set_input_files(table_file)
    page.get_by_label("Name").fill("my shop")
    page.get_by_label("Target column").fill("bought")
    page.get_by_role("button", name="Upload").click()
    page.wait_for_url(re.compile("/datasets/my%20shop"))
    main = page.locator("main")
    for text in ("61", "city", "category", "Berlin, Paris, Rome", "The first samples", "shop.csv"):
        expect(main).to_contain_text(text)
    page.get_by_role("link", name="Train on it").click()
    expect(page.locator("#plan")).to_contain_text("training samples")
    expect(page.get_by_label("Data set", exact=True)).to_have_value("my shop")
    page.go_back()
    page.get_by_role("button", name="Delete…").click()
    page.get_by_role("button", name="Delete the data set").click()
    page.wait_for_url(re.compile("/datasets$"))
    expect(page.locator("#datasets")).not_to_contain_text("my shop")


def test_the_way_of_a_large_file_is_shown(quick, open_page, tmp_path):
    file = tmp_path / "large.csv"
    file.write_text("a,b,target\n" + "0.123456789,0.987654321,1\n0.5,0.25,0\n" * 400_000)
    page = open_page(quick.url, "/datasets")
    cdp = page.context.new_cdp_session(page)
    cdp.send("Network.enable")
    cdp.send(
        "Network.emulateNetworkConditions",
        {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 4_000_000},
    )
    page.get_by_label("File").set_input_files(file)
    page.get_by_role("button", name="Upload").click()
    expect(page.locator("form [role=status]")).to_contain_text(re.compile(r"[\d.]+ MB of 14\.\d MB"))
    assert 0 < page.locator("progress").evaluate("bar => bar.value") < 1
    page.wait_for_url(re.compile("/datasets/large"))
    expect(page.locator("main")).to_contain_text("800,000")


def test_a_file_that_is_none_is_refused_with_its_reason(quick, open_page, tmp_path):
    file = tmp_path / "odd.csv"
    file.write_text("a,b\n1,2\n3\n")
    page = open_page(quick.url, "/datasets")
    page.get_by_label("File").set_input_files(file)
    page.get_by_role("button", name="Upload").click()
    expect(page.locator("form .error")).to_contain_text("file")
    assert page.url.endswith("/datasets")
    assert all("422" in text for text in page.watched.complaints)
    page.watched.complaints.clear()


def test_workers_and_what_they_run(quick, open_page, endless):
    job = quick.submit(**endless, name="at work")
    page = open_page(quick.url, "/workers")
    card = page.locator("section.card")
    expect(card).to_contain_text("cpu")
    expect(card.get_by_role("meter")).to_be_visible()
    expect(card.get_by_role("link", name="at work")).to_have_attribute("href", f"/jobs/{job}")
    quick.client.post(f"/v1/jobs/{job}/cancel", json={"keep": "nothing"}).raise_for_status()
    expect(card).to_contain_text("Nothing now")


@postgres_in_torture
def test_a_service_that_wants_a_key_is_given_one(start_service, open_page):
    service = start_service(EPOCHD_API_KEYS=KEY)
    service.client.headers["Authorization"] = f"Bearer {KEY}"
    job = service.submit(**SHORT, name="guarded")
    service.wait(job)
    page = open_page(service.url, f"/jobs/{job}")
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Key").fill("not this one")
    dialog.get_by_role("button", name="Use this key").click()
    expect(dialog).to_contain_text("does not accept this key")
    dialog.get_by_label("Key").fill(KEY)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_contain_text("guarded")
    page.locator("main[data-stream=over]").wait_for()
    expect(page.locator("#curl")).to_contain_text(
        '"Authorization: Bearer $EPOCHD_API_KEY"', use_inner_text=False
    )
    assert KEY not in page.content()
    with page.expect_download() as download:
        page.get_by_role("link", name="receipt.json").click()
    assert download.value.path().read_bytes() == service.artifacts(job)["receipt.json"]
    page.get_by_role("link", name="Jobs", exact=True).click()
    expect(page.locator("table.jobs")).to_contain_text("guarded")
    expect(dialog).to_have_count(0)
    assert all("401" in text for text in page.watched.complaints)
    page.watched.complaints.clear()


def test_the_reference_needs_nobody_outside(quick, open_page):
    page = open_page(quick.url, "/docs")
    expect(page.get_by_text("List jobs, newest first").first).to_be_visible()


def test_the_keyboard_skips_to_the_content(quick, open_page):
    page = open_page(quick.url, "/workers")
    expect(page.locator("section.card")).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
