"""How long the dashboard takes to show a job's curves, and to zoom into them, in a real browser.

    python bench/dashboard.py [--iterations 10000000] [--rounds 5] [--quick]

Jobs of 10 000 iterations, ten times as many, and so on are recorded on SQLite as a recorder does, epochs of 1563
iterations with them, and served by `epochd serve` in processes of its own. A headless Chromium opens each job's page,
in turns, with nothing cached, and zooms in by the page's own button until single iterations show. Milliseconds of the
wall, median and largest: from the navigation until the curves are drawn, and from each click until what was asked for
is drawn and painted.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
from playwright.sync_api import Browser, Page, sync_playwright
from reading import AT_ONCE
from recording import ITERATIONS_PER_EPOCH, columns

from epochd.store import jobs, metrics
from epochd.store.database import Database
from epochd.store.metrics import NewEpoch
from epochd.training.events import IterationsCompleted
from epochd.worker.blocks import BlockBuffer

PORT = 8129
URL = f"http://127.0.0.1:{PORT}"
FLAGS = ["--no-sandbox", "--disable-background-networking"]
SPEC = {"dataset": "digits", "epochs": 10_000, "batch_size": 1}
DRAWN = "last => Number(document.querySelector('#curves')?.dataset.last) === last"
ZOOM = """() => new Promise((resolve) => {
    const place = document.querySelector("#curves");
    const before = place.dataset.range;
    const begin = performance.now();
    document.querySelector("button[aria-label='Zoom in']").click();
    const look = () => {
        if (place.dataset.range === before) requestAnimationFrame(look);
        else requestAnimationFrame(() => resolve([performance.now() - begin, place.dataset.range]));
    };
    look();
})"""


def record(db: Database, size: int) -> str:
    """Queue a job, and record it as if it trained; give its id."""
    job = httpx.post(f"{URL}/v1/jobs", json=SPEC).raise_for_status().json()["id"]
    with db.write() as tx:
        claim = jobs.claim(tx, worker="bench", device="cpu", lease_seconds=36_000)
    assert claim is not None
    buffer, data = BlockBuffer(), columns(size)
    for begin in range(0, size, AT_ONCE):
        buffer.add(IterationsCompleted(1, begin + 1, *(column[begin : begin + AT_ONCE] for column in data)))
        with db.write() as tx:
            rows = buffer.unwritten_levels()
            metrics.record_iterations(tx, claim.attempt_id, ITERATIONS_PER_EPOCH, buffer.unwritten(), rows)
        buffer.written()
    epochs = [
        NewEpoch(
            number,
            number * ITERATIONS_PER_EPOCH,
            {"train_loss": 1 / number, "validation_loss": 1.1 / number},
            0.001,
            1,
            True,
        )
        for number in range(1, size // ITERATIONS_PER_EPOCH + 1)
    ]
    with db.write() as tx:
        metrics.record_epochs(tx, claim.attempt_id, epochs)
    return str(job)


@contextmanager
def served(directory: Path) -> Iterator[Database]:
    """Run a service without workers, and open its database."""
    database = f"sqlite:///{directory / 'epochd.db'}"
    command = [sys.executable, "-m", "epochd", "serve", "--workers", "0", "--port", str(PORT)]
    flags = ["--data-dir", str(directory), "--database-url", database]
    with subprocess.Popen([*command, *flags], stdout=subprocess.DEVNULL) as process:
        try:
            _wait()
            db = Database(database)
            yield db
            db.close()
        finally:
            process.terminate()


def _wait() -> None:
    for _ in range(300):
        try:
            httpx.get(f"{URL}/healthz").raise_for_status()
        except httpx.TransportError:
            time.sleep(0.1)
        else:
            return
    raise TimeoutError("the service does not answer")


def opened(browser: Browser, job: str, size: int) -> tuple[Page, float]:
    """Open a job's page in a context of its own; give the page and the milliseconds until its curves were drawn."""
    page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
    begin = time.perf_counter()
    page.goto(f"{URL}/jobs/{job}")
    page.wait_for_function(DRAWN, arg=size)
    return page, (time.perf_counter() - begin) * 1e3


def zoomed(page: Page) -> list[float]:
    """Zoom in until some hundred iterations are left; give the milliseconds of each step."""
    taken = []
    while True:
        milliseconds, shown = page.evaluate(ZOOM)
        taken.append(milliseconds)
        first, last = map(int, shown.split("-"))
        if last - first < 500:
            return taken


def measure(browser: Browser, cases: dict[int, str], rounds: int) -> None:
    """Print the figures."""
    opening: dict[int, list[float]] = {size: [] for size in cases}
    zooming: dict[int, list[float]] = {size: [] for size in cases}
    for _ in range(rounds):
        for size, job in cases.items():
            page, taken = opened(browser, job, size)
            opening[size].append(taken)
            zooming[size] += zoomed(page)
            page.context.close()
    print(f"{'iterations':>13}{'open':>9}{'max':>9}{'zoom':>9}{'max':>9}{'steps':>8}")
    for size in cases:
        figures = (*_summary(opening[size]), *_summary(zooming[size]))
        row = "".join(f"{value:9.0f}" for value in figures)
        print(f"{size:13,}{row}{len(zooming[size]) // rounds:8}")


def _summary(values: list[float]) -> tuple[float, float]:
    return float(np.median(values)), max(values)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--iterations", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="see that it works: 10 000 iterations, 1 round")
    arguments = parser.parse_args()
    iterations, rounds = (10_000, 1) if arguments.quick else (arguments.iterations, arguments.rounds)
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        sys.exit("there is no Chromium: `make chromium` installs it")
    print(f"{os.cpu_count()} cores, {rounds} rounds, milliseconds")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory, served(Path(directory)) as db:
        sizes = sorted({min(10**power, iterations) for power in range(4, 20)})
        cases = {size: record(db, size) for size in sizes}
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
            measure(browser, cases, rounds)
            browser.close()


if __name__ == "__main__":
    main()
