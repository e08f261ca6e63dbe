"""The processes behind a worker."""

import subprocess
import sys

CLOSED = """
import psutil
from epochd.worker.executors.local import LocalExecutor

executor = LocalExecutor()
for _ in range(2):
    executor.start()
    executor.wait_until_ready()
    executor.wait_until_ready()
    print(len(psutil.Process().children(recursive=True)))
    executor.close()
    print(psutil.Process().children(recursive=True))
"""


def test_a_closed_executor_leaves_no_process_behind():
    ran = subprocess.run(
        [sys.executable, "-c", CLOSED], check=False, capture_output=True, text=True, timeout=60
    )
    # The fork server, and the resource tracker that comes with it.
    assert (ran.stdout, ran.stderr) == ("2\n[]\n" * 2, "")
