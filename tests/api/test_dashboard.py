"""The dashboard's files as any HTTP client gets them; what they do in a browser is for tests/e2e/dashboard."""

import re

import pytest
from fastapi.testclient import TestClient

from epochd.api.app import create_app
from epochd.api.dashboard import PAGES
from epochd.api.packaged_files import directory_of
from epochd.dashboard import STATIC
from epochd.settings import Settings

PATHS = ["/", "/jobs/job_1", "/compare", "/submit", "/datasets", "/datasets/a b", "/workers"]


def test_every_page_is_tried():
    assert [re.sub(r"\{\w+\}", "x", page).count("/") for page in PAGES] == [path.count("/") for path in PATHS]


@pytest.mark.parametrize("path", PATHS)
def test_a_page_is_the_shell(api, path):
    answer = api.get(path)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.content == (STATIC / "index.html").read_bytes()
    assert api.head(path).status_code == 200
    again = api.get(path, headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize(
    "path", ["/", "/dashboard/main.js", "/dashboard/pages/job.js", "/plotting/bokeh.min.js"]
)
def test_scripts_come_from_here_and_from_nowhere_else(api, path):
    policy = dict(
        part.strip().split(" ", 1) for part in api.get(path).headers["content-security-policy"].split(";")
    )
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == "'self'"
    assert policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert api.get(path).headers["x-content-type-options"] == "nosniff"
    assert api.get(path).headers["cache-control"] == "no-cache"


def test_no_file_names_another_host():
    for file in STATIC.rglob("*.*"):
        found = set(re.findall(r"https?://[^\s\"'`)]+", file.read_text()))
        assert found <= {"http://www.w3.org/2000/svg"}, file.name


def test_all_files_are_served_as_what_they_are(api):
    kinds = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".html": "text/html"}
    for file in STATIC.rglob("*.*"):
        answer = api.get(f"/dashboard/{file.relative_to(STATIC)}")
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith(kinds[file.suffix])
        assert answer.text == file.read_text()


def test_the_plotting_library_comes_out_of_its_package(api):
    scripts = directory_of("bokeh", "server", "static", "js")
    assert scripts is not None
    answer = api.get("/plotting/bokeh.min.js", headers={"Accept-Encoding": "gzip"})
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.content == (scripts / "bokeh.min.js").read_bytes()
    assert not (STATIC / "bokeh.min.js").exists()


@pytest.mark.parametrize(
    "path",
    [
        "/dashboard/nothing.js",
        "/dashboard/../__init__.py",
        "/dashboard/%2e%2e/__init__.py",
        "/plotting/",
        "/nothing",
    ],
)
def test_what_there_is_not(api, path):
    answer = api.get(path)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_pages_take_no_other_method(api):
    answer = api.post("/", json={})
    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET, HEAD"


def test_pages_need_no_key(database_url, data_dir):
    settings = Settings(database_url=database_url, data_dir=data_dir, api_keys="a-key")
    app = create_app(settings)
    with TestClient(app) as client:
        assert client.get("/").status_code == 200
        assert client.get("/dashboard/main.js").status_code == 200
        assert client.get("/v1/jobs").status_code == 401


def test_pages_stand_in_no_document(api):
    assert not {"/", "/compare", "/submit"} & set(api.get("/openapi.json").json()["paths"])


def test_the_reference_is_served_from_here_alone(api):
    answer = api.get("/docs")
    assert answer.status_code == 200
    loaded = re.findall(r"""(?:src|href)=["']([^"']+)""", answer.text)
    assert "/docs/scripts/swagger-ui-bundle.js" in loaded
    assert all(one.startswith("/") for one in loaded), loaded
    for one in loaded:
        assert api.get(one).status_code == 200
    assert "connect-src 'self'" in answer.headers["content-security-policy"]
    assert api.get("/redoc").status_code == 404


def test_a_package_that_there_is_not_has_no_directory():
    assert directory_of("epochd_nothing") is None
    assert directory_of("bokeh", "nothing") is None
    assert directory_of("six") is None  # a module alone
