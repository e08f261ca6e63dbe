"""Time from POST to the first recorded iteration, on an idle service.

    python bench/latency.py [--jobs 10] [--database-url postgresql://…]

Starts `epochd serve` as anybody would, sends digits jobs one after another, and asks for each job until an iteration of
it is recorded. The clock starts before the POST is sent and stops when the answer that shows the iteration has come.
"""

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

JOB = {"dataset": "digits", "epochs": 20, "batch_size": 64}
IDLE_SECONDS = 0.5


@contextmanager
def service(database_url: str | None) -> Iterator[str]:
    """Run the service on a free port and give its URL once a worker is alive."""
    with tempfile.TemporaryDirectory(prefix="epochd-bench-") as folder:
        command = [sys.executable, "-m", "epochd", "serve", "--port", "0", "--data-dir", folder]
        command += ["--database-url", database_url] if database_url else []
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            try:
                yield _wait_ready(process)
            finally:
                process.terminate()


def _wait_ready(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    for line in process.stdout:
        found = re.search(r"http://[\d.]+:\d+", line)
        if found:
            break
    else:
        raise SystemExit("the service did not start")
    while httpx.get(f"{found[0]}/readyz").status_code != httpx.codes.OK:
        time.sleep(0.1)
    return found[0]


def first_iteration_seconds(client: httpx.Client) -> float:
    """Send one job; return the seconds until an iteration of it is recorded. Waits for its end."""
    begin = time.perf_counter()
    job = client.post("/v1/jobs", json=JOB).raise_for_status().json()
    path = f"/v1/jobs/{job['id']}"
    while not client.get(path).json()["progress"]["iteration"]:
        pass
    seconds = time.perf_counter() - begin
    while not client.get(path, params={"wait_seconds": 30, "until": "done"}).json()["done"]:
        pass
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=10)
    parser.add_argument("--database-url")
    options = parser.parse_args()
    with service(options.database_url) as url, httpx.Client(base_url=url, timeout=60) as client:
        time.sleep(5)  # the fork server loads torch once, at the start
        seconds = []
        for _ in range(options.jobs):
            time.sleep(IDLE_SECONDS)
            seconds.append(first_iteration_seconds(client))
    milliseconds = [1000 * value for value in seconds]
    print(f"POST to first recorded iteration, {len(seconds)} jobs, milliseconds:")
    print(
        f"  median {statistics.median(milliseconds):.0f}   min {min(milliseconds):.0f}   max {max(milliseconds):.0f}"
    )


if __name__ == "__main__":
    main()
