"""The list of jobs: live, found, steered, and the way to a comparison."""

import re

from playwright.sync_api import expect
from tests.marks import postgres_in_torture

SHORT = {"dataset": "iris", "epochs": 4, "batch_size": 16}


def names(page):
    return page.locator("table.jobs tbody tr th a").all_text_contents()


@postgres_in_torture
def test_a_service_without_jobs_leads_to_the_form(start_service, open_page):
    service = start_service()
    page = open_page(service.url)
    expect(page.locator("main")).to_contain_text("No job yet")
    page.get_by_role("link", name="Submit the first").click()
    expect(page.get_by_role("heading", name="Submit a job")).to_be_visible()
    page.go_back()
    service.submit(**SHORT, name="came by itself")
    expect(page.locator("table.jobs")).to_contain_text("came by itself")
    expect(page.locator("table.jobs .chip")).to_have_text("succeeded")
    expect(page.locator("table.jobs svg.sparkline polyline")).to_be_visible()
    expect(page.get_by_role("progressbar")).to_have_attribute("aria-valuenow", "100")


def test_jobs_are_found_and_the_address_says_how(quick, open_page):
    for name in ("alpha one", "alpha two", "beta"):
        quick.wait(quick.submit(**SHORT, name=name))
    page = open_page(quick.url)
    page.get_by_label("Search jobs").fill("ALPHA")
    expect(page.locator("table.jobs tbody tr")).to_have_count(2)
    assert names(page) == ["alpha two", "alpha one"]
    assert "search=ALPHA" in page.url
    page.get_by_label("failed", exact=True).check()
    expect(page.locator("main")).to_contain_text("No job is like this")
    page.get_by_label("succeeded", exact=True).check()
    expect(page.locator("table.jobs tbody tr")).to_have_count(2)
    sent = open_page(quick.url, page.url.removeprefix(quick.url))
    expect(sent.locator("table.jobs tbody tr")).to_have_count(2)
    expect(sent.get_by_label("Search jobs")).to_have_value("ALPHA")
    expect(sent.get_by_label("failed", exact=True)).to_be_checked()


@postgres_in_torture
def test_older_jobs_are_on_further_pages(start_service, open_page):
    service = start_service()
    for number in range(30):
        service.submit(**SHORT, name=f"job {number}")
    page = open_page(service.url)
    expect(page.locator("table.jobs tbody tr")).to_have_count(25)
    page.get_by_role("link", name="Older").click()
    expect(page.locator("table.jobs tbody tr")).to_have_count(5)
    assert names(page) == [f"job {number}" for number in (4, 3, 2, 1, 0)]
    page.get_by_role("link", name="Newest").click()
    expect(page.locator("table.jobs tbody tr")).to_have_count(25)


def test_a_job_is_steered_from_the_list_by_keyboard_alone(quick, open_page, endless):
    job = quick.submit(**endless, name="by keys")
    page = open_page(quick.url, "/?search=by+keys")
    row = page.locator("table.jobs tbody tr")
    expect(row.locator(".chip")).to_have_text("running")
    press(page, "Pause by keys")
    expect(row.locator(".chip")).to_have_text("paused")
    press(page, "Resume by keys")
    expect(row.locator(".chip")).to_have_text("running")
    press(page, "Cancel by keys")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert quick.job(job)["cancel_requested_at"] is None
    press(page, "Cancel by keys")
    press(page, "Cancel the job")
    expect(row.locator(".chip")).to_have_text("cancelled")
    press(page, "Retry by keys")
    expect(row.locator(".chip")).to_have_text("running")
    quick.client.post(f"/v1/jobs/{job}/cancel", json={"keep": "nothing"}).raise_for_status()


def press(page, name):
    """Tab to what has this name, as often as it takes, and press Enter."""
    page.get_by_role("button", name=name, exact=True).wait_for()
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.ariaLabel ?? document.activeElement.textContent") == name:
            page.keyboard.press("Enter")
            return
    raise AssertionError(f"{name} cannot be reached by keyboard")


def test_the_focus_stays_where_it_is_while_the_list_is_live(quick, open_page, endless):
    job = quick.submit(**endless, name="live focus")
    page = open_page(quick.url, "/?search=live+focus")
    page.get_by_role("button", name="Pause live focus").focus()
    bar = page.get_by_role("progressbar")
    before = bar.get_attribute("aria-label")
    page.wait_for_function(
        "before => document.querySelector('[role=progressbar]').ariaLabel !== before", arg=before
    )
    assert page.evaluate("document.activeElement.ariaLabel") == "Pause live focus"
    quick.client.post(f"/v1/jobs/{job}/cancel", json={"keep": "nothing"}).raise_for_status()


def wait_for_axis(page, title):
    page.wait_for_function(
        "title => Bokeh.documents.some((one) => one.roots()[0].children[0].below[0].axis_label === title)",
        arg=title,
    )


def test_what_people_call_their_jobs_is_text(quick, open_page):
    name = "<img src=x onerror=alert(1)> & `b` </script>"
    job = quick.submit(**SHORT, name=name, tags={"a": "<b>1</b>"})
    quick.wait(job)
    page = open_page(quick.url, "/?search=onerror")
    expect(page.locator("table.jobs tbody tr th a")).to_have_text(name)
    page.locator("table.jobs tbody tr th a").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text(name)
    expect(page.locator(".tag")).to_have_text("a: <b>1</b>")
    page.goto(f"/compare?job={job}")
    expect(page.locator(".legend")).to_contain_text(name)
    assert page.locator("main img").count() == 0


def test_chosen_jobs_are_compared(quick, open_page, drawn):
    made = [quick.submit(**{**SHORT, "batch_size": size}, name=f"size {size}") for size in (8, 32, 60)]
    done = [quick.wait(job) for job in made]
    page = open_page(quick.url, "/?search=size")
    for size in (32, 8):
        page.get_by_role("checkbox", name=f"Compare size {size}").check()
    page.get_by_role("link", name="Compare 2 jobs").click()
    page.wait_for_url(re.compile("/compare"))
    expect(page.locator(".legend")).to_contain_text("size 32")
    page.get_by_label("Add a job").select_option(made[2])
    expect(page.locator(".legend li")).to_have_count(3)
    expect(page.locator("main")).to_contain_text("Where the specs differ")
    expect(page.locator("#compared")).to_have_attribute("data-points", "4,4,4")
    assert page.url.count("job=") == 3
    assert set(map(tuple, drawn(page).values())) == {(1, 2, 3, 4)}
    page.get_by_label("By", exact=True).select_option("iteration")
    page.wait_for_url(re.compile("x=iteration"))
    wait_for_axis(page, "Iteration")
    steps = {job["plan"]["iterations_per_epoch"] for job in done}
    assert {places[0] for places in drawn(page).values()} == steps
    assert len(steps) == 3
    page.get_by_label("Metric", exact=True).select_option("validation_accuracy")
    page.wait_for_url(re.compile("metric=validation_accuracy"))
    expect(page.locator("main")).to_contain_text("validation accuracy, higher is better")
    page.get_by_label("By", exact=True).select_option("seconds")
    wait_for_axis(page, "Seconds of training")
    seconds = [sum(row["seconds"] for row in quick.epochs(job)) for job in (made[1], made[0], made[2])]
    assert sorted(places[-1] for places in drawn(page).values()) == sorted(seconds)
    page.get_by_role("button", name="Leave out size 60").click()
    expect(page.locator(".legend li")).to_have_count(2)
