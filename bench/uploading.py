"""Uploading a data set: from the first byte until it is read, checked and stored, against only writing it down.

    python bench/uploading.py [--quick] [--rounds 3] [--megabytes 20]

A real `epochd serve --workers 0` on SQLite takes a file of each kind as a form; the answer comes when the data set can
be trained on. By turns, the same form is sent to a server that writes what comes to a file and does nothing else
(peers/receiving.py, also Uvicorn): nothing that arrives over HTTP can be faster. Each is sent by httpx, from memory.

The table: medians over the rounds of megabytes and samples a second, of the copy's megabytes a second, and how many
times longer an upload takes than the copy. Starting the process that reads is part of it: a file of a few kilobytes,
the last row, shows how long that takes alone.
"""

import argparse
import io
import re
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import polars as pl
from PIL import Image

PEER = str(Path(__file__).parent / "peers" / "receiving.py")
COLUMNS = 20
PIXELS = 64


@dataclass(frozen=True)
class Sample:
    """A file, and how many samples are in it."""

    name: str
    content: bytes
    samples: int


def table(rows: int) -> pl.DataFrame:
    random = np.random.default_rng(0)
    columns = {f"x{n}": random.normal(size=rows).astype(np.float32).round(4) for n in range(COLUMNS - 2)}
    colours = random.choice(np.array(["red", "green", "blue"]), rows)
    return pl.DataFrame({**columns, "colour": colours, "kind": random.integers(0, 3, rows)})


def csv(megabytes: float) -> Sample:
    rows = int(megabytes * 1e6 / 140)
    return Sample("table.csv", table(rows).write_csv().encode(), rows)


def parquet(megabytes: float) -> Sample:
    rows, target = int(megabytes * 1e6 / 65), io.BytesIO()
    table(rows).write_parquet(target)
    return Sample("table.parquet", target.getvalue(), rows)


def npz(megabytes: float) -> Sample:
    random, rows, target = np.random.default_rng(0), int(megabytes * 1e6 / 400), io.BytesIO()
    np.savez(target, x=random.normal(size=(rows, 100)).astype(np.float32), y=random.integers(0, 3, rows))
    return Sample("arrays.npz", target.getvalue(), rows)


def images(megabytes: float) -> Sample:
    random, count, target = np.random.default_rng(0), int(megabytes * 1e6 / 12_500), io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for number in range(count):
            image = io.BytesIO()
            pixels = random.integers(0, 256, (PIXELS, PIXELS, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(image, "PNG", compress_level=1)
            archive.writestr(f"class {number % 5}/{number}.png", image.getvalue())
    return Sample("images.zip", target.getvalue(), count)


KINDS: dict[str, Callable[[float], Sample]] = {
    "CSV": csv,
    "Parquet": parquet,
    "NPZ": npz,
    "ZIP of PNG, 64x64": images,
    "CSV, 4 kB": lambda _: csv(0.004),
}


@contextmanager
def running(*command: str) -> Iterator[str]:
    """Run a server; give the address that it says it listens at."""
    with subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                found = re.search(r"(?:^|API +)(http://\S+:\d+)$", line)
                if found:
                    yield found[1]
                    return
            raise SystemExit("the server did not start")
        finally:
            process.terminate()
            process.wait()


def send(client: httpx.Client, url: str, sample: Sample) -> float:
    """Send a file as a form; give the seconds until the answer."""
    start = time.perf_counter()
    answer = client.post(url, files={"file": (sample.name, sample.content)})
    seconds = time.perf_counter() - start
    if answer.status_code != httpx.codes.CREATED:
        raise SystemExit(f"{sample.name} got {answer.status_code}: {answer.text}")
    return seconds


def upload(client: httpx.Client, url: str, sample: Sample) -> float:
    """Bring a data set, and remove it again: the next one is not to find it there."""
    seconds = send(client, f"{url}/v1/datasets", sample)
    client.delete(f"{url}/v1/datasets/{sample.name.partition('.')[0]}").raise_for_status()
    return seconds


def compare(client: httpx.Client, epochd: str, copy: str, options: argparse.Namespace) -> None:
    print(f"Median of {options.rounds}. An upload is done when the data set is read, checked and stored.\n")
    print(
        f"{'':<20}{'MB':>8}{'MB/s':>10}{'samples/s':>12}{'seconds':>10}{'copy MB/s':>12}{'of the copy':>13}"
    )
    for kind, make in KINDS.items():
        sample = make(options.megabytes)
        rounds = [
            (upload(client, epochd, sample), send(client, f"{copy}/copy", sample))
            for _ in range(options.rounds)
        ]
        ours, theirs = (statistics.median(found) for found in zip(*rounds, strict=True))
        ratio = statistics.median(one / other for one, other in rounds)
        size = len(sample.content) / 1e6
        print(
            f"{kind:<20}{size:>8.3f}{size / ours:>10.2f}{sample.samples / ours:>12,.0f}{ours:>10.2f}"
            f"{size / theirs:>12.1f}{ratio:>12.1f}x",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--megabytes", type=float, default=20.0, help="size of a file, about")
    parser.add_argument("--quick", action="store_true", help="small files, once: does it work?")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.megabytes = 1, 0.5
    with tempfile.TemporaryDirectory(prefix="epochd-bench-", ignore_cleanup_errors=True) as folder:
        serve = ["-m", "epochd", "serve", "--workers", "0", "--port", "0", "--data-dir", f"{folder}/data"]
        with running(*serve) as epochd, running(PEER, folder) as copy, httpx.Client(timeout=600) as client:
            compare(client, epochd, copy, options)


if __name__ == "__main__":
    main()
