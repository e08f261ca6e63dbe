"""The dashboard in a real Chromium, against real services.

`make chromium` installs Debian's; without any the tests are skipped.
"""

import contextlib
import json
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright
from tests.e2e.conftest import Service

# What Chromium does besides showing pages would look like a page that asks somebody outside.
FLAGS = ["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
WAIT_MILLISECONDS = 60_000
expect.set_options(timeout=WAIT_MILLISECONDS)


@pytest.fixture(scope="module")  # not longer: other tests look at their processes
def browser() -> Iterator[Browser]:
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("there is no Chromium: `make chromium` installs it")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=found, args=FLAGS)
        yield running
        running.close()


class Watched:
    """What went wrong on a page, and whom it asked."""

    def __init__(self, page: Page) -> None:
        self.complaints: list[str] = []
        self.requests: list[str] = []
        page.on("console", lambda message: self.complain(message.type, message.text))
        page.on("pageerror", lambda error: self.complain("error", str(error)))
        page.on("request", lambda request: self.requests.append(request.url))

    def complain(self, kind: str, text: str) -> None:
        if kind in {"error", "warning"}:
            self.complaints.append(text)

    def hosts(self) -> set[str]:
        return {urlsplit(url).netloc for url in self.requests if not url.startswith(("data:", "blob:"))}


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Open pages; none may complain or ask another host, unless the test takes its complaints away."""
    with contextlib.ExitStack() as stack:
        opened: list[tuple[Page, Watched, str]] = []

        def open_(base: str, path: str = "/", **options: object) -> Page:
            context = browser.new_context(
                base_url=base, **{"viewport": {"width": 1280, "height": 900}, "locale": "en-GB", **options}
            )
            stack.callback(context.close)
            page = context.new_page()
            page.set_default_timeout(WAIT_MILLISECONDS)
            page.watched = Watched(page)
            opened.append((page, page.watched, urlsplit(base).netloc))
            page.goto(path)
            return page

        yield open_
        for _, watched, host in opened:
            assert watched.complaints == []
            assert watched.hosts() == {host}


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One service on SQLite for the tests of a module, which look for nothing but their own jobs."""
    directory = tmp_path_factory.mktemp("dashboard")
    service = Service(directory, f"sqlite:///{directory / 'epochd.db'}", directory / "data")
    yield service
    service.client.close()
    service.end()
    service.kill_all()


class Line:
    """A line to a service that can be cut: what goes through it breaks off, and nobody answers until it is mended."""

    def __init__(self, url: str) -> None:
        target = urlsplit(url)
        self._target = (target.hostname, target.port)
        self._open: list[socket.socket] = []
        self._listener = self._listen(0)
        self.port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def _listen(self, port: int) -> socket.socket:
        listener = socket.create_server(("127.0.0.1", port))
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()
        return listener

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):  # closed: the line is cut
            while True:
                here, _ = listener.accept()
                there = socket.create_connection(self._target)
                self._open += [here, there]
                for source, sink in ((here, there), (there, here)):
                    threading.Thread(target=self._carry, args=(source, sink), daemon=True).start()

    @staticmethod
    def _carry(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(65_536):
                sink.sendall(piece)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def cut(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for end in self._open:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self._open.clear()

    def mend(self) -> None:
        self._listener = self._listen(self.port)


@pytest.fixture
def line(quick: Service) -> Iterator[Line]:
    made = Line(quick.url)
    yield made
    made.cut()


@pytest.fixture
def table_file(tmp_path: Path) -> Path:
    """A small table with a missing value and a category."""
    path = tmp_path / "shop.csv"
    cities = ["Paris", "Rome", "Berlin"]
    rows = [f"{20 + i},{cities[i % 3]},{1000 + 37 * i},{'yes' if i % 2 else 'no'}" for i in range(60)]
    path.write_text("age,city,income,bought\n" + "\n".join(rows) + "\n,Paris,1800,no\n")
    return path


@pytest.fixture
def drawn() -> Callable[[Page], dict[str, list[float]]]:
    """Read the horizontal places of what is drawn, by the number of the line: the first is the loss by iteration."""

    def read(page: Page) -> dict[str, list[float]]:
        return page.evaluate(
            """() => {
                const found = {};
                for (const root of Bokeh.documents.flatMap((one) => one.roots())) {
                    for (const figure of root.children) {
                        figure.renderers.forEach((one, place) => {
                            found[`${figure.left[0].axis_label} ${place}`] = Array.from(one.data_source.data.x);
                        });
                    }
                }
                return found;
            }"""
        )

    return read


@pytest.fixture
def run_shell() -> Callable[[str], Any]:
    """Run a line as a reader would who pasted it, and read the JSON that it prints."""

    def run(text: str) -> Any:
        done = subprocess.run(["bash", "-c", text], capture_output=True, text=True, timeout=60, check=True)
        return json.loads(done.stdout)

    return run
