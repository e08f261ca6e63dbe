"""``epochd demo`` in a terminal and without one, and the lines that it tells to copy."""

import hashlib
import os
import pty
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

DEMO_SECONDS = 110


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """What the demo prints where there is no terminal, and where it put the weights."""
    directory = tmp_path_factory.mktemp("demo")
    demo = subprocess.run(
        [sys.executable, "-m", "epochd", "demo"],
        cwd=directory,
        env={**os.environ, "TMPDIR": str(directory), "COLUMNS": "160", "TERM": "dumb"},
        capture_output=True,
        text=True,
        timeout=DEMO_SECONDS,
        check=False,
    )
    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert demo.stderr == ""
    # The service's data directory is gone, the weights stay.
    assert [path.name for path in directory.iterdir() if path.name.startswith("epochd")] == ["epochd-demo"]
    return demo.stdout, directory / "epochd-demo"


def row(text: str, name: str) -> str:
    found = re.search(rf"^│ {name} +│ (.+?) +│$", text, re.MULTILINE)
    assert found is not None, text
    return found[1]


def test_without_a_terminal_it_prints_one_line_an_epoch(printed: tuple[str, Path]):
    text, _ = printed
    epochs = [int(number) for number in re.findall(r"^  epoch +(\d+)/100 ", text, re.MULTILINE)]
    assert epochs == list(range(1, len(epochs) + 1))
    assert 8 < len(epochs) < 100
    iterations = [int(number) for number in re.findall(r" iteration +(\d+)/9000 ", text)]
    assert iterations == [90 * epoch for epoch in epochs]
    assert text.count("stops in 0") == 1
    assert "\x1b" not in text


def test_the_table_says_what_came_out(printed: tuple[str, Path]):
    text, _ = printed
    assert row(text, "plan") == "1,438 training samples and 359 for validation"
    assert "batch size 16: 90 mini-batches, 90 iterations an epoch" in text
    assert "at most 100 epochs = 9,000 iterations" in text
    assert row(text, "why it stopped").startswith("early_stopped: ")
    accuracy = re.match(r"([\d.]+)%", row(text, "validation accuracy"))
    assert accuracy is not None
    assert float(accuracy[1]) > 95
    best = int(row(text, "best epoch").partition(":")[0])
    assert f"in {best + 8} epochs" in row(text, "trained")


def test_the_weights_are_where_it_says(printed: tuple[str, Path]):
    text, output = printed
    assert sorted(path.name for path in output.iterdir()) == [
        "model.json",
        "model.safetensors",
        "receipt.json",
    ]
    for path in output.iterdir():
        assert f"epochd-demo/{path.name}" in text
        assert hashlib.sha256(path.read_bytes()).hexdigest()[:16] in text


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_the_curl_lines_do_the_same(
    printed: tuple[str, Path], start_service: Callable[..., Any], tmp_path: Path
):
    text, _ = printed
    lines = re.findall(r"^(?:JOB=|curl ).+$", text, re.MULTILINE)
    assert len(lines) == 5
    service = start_service()
    script = "\n".join(["set -euo pipefail", *lines]).replace("http://127.0.0.1:8000", service.url)
    shell = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=DEMO_SECONDS,
        check=False,
    )
    assert (shell.returncode, shell.stderr) == (0, "")
    (job,) = service.client.get("/v1/jobs").json()["data"]
    assert (job["status"], job["stop_reason"]) == ("succeeded", "early_stopped")
    assert "event: job.queued" in shell.stdout
    assert "event: iterations" in shell.stdout
    assert '"stop_reason":"early_stopped"' in shell.stdout.replace(" ", "")
    weights = (tmp_path / "model.safetensors").read_bytes()
    assert weights == service.artifacts(job["id"])["model.safetensors"]


def in_a_terminal(directory: Path) -> tuple[subprocess.Popen[bytes], int]:
    ours, theirs = pty.openpty()
    environment = {
        **os.environ,
        "TMPDIR": str(directory),
        "TERM": "xterm-256color",
        "COLUMNS": "100",
        "LINES": "40",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "epochd", "demo"],
        cwd=directory,
        env=environment,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    return process, ours


def read_until(terminal: int, pattern: bytes) -> bytes:
    """Read until the pattern, or to the end."""
    seen = b""
    while pattern not in seen:
        try:
            piece = os.read(terminal, 65_536)
        except OSError:  # Linux's way to say that nobody holds the other end any more
            break
        if not piece:
            break
        seen += piece
    return seen


def test_in_a_terminal_it_draws_bars_and_ends_well(tmp_path: Path):
    process, terminal = in_a_terminal(tmp_path)
    seen = read_until(terminal, b"never printed").decode(errors="replace")
    os.close(terminal)
    assert process.wait(30) == 0
    assert "━" in seen
    assert "early stop" in seen
    assert len(re.findall(r"(\d+)/9000", seen)) > 3
    assert "The same by hand" in seen
    # The cursor, hidden while it drew, is back.
    assert seen.rfind("\x1b[?25h") > seen.rfind("\x1b[?25l") > 0


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_when_it_is_told_to_stop_it_leaves_nothing(tmp_path: Path, ending: int):
    for _ in range(3):
        code, rest = _told_to_stop(tmp_path, ending)
        if code != 0:  # else it was through before it was told, as on a busy machine: that shows nothing
            break
    assert code == 130
    assert b"Traceback" not in rest
    assert b"is gone" in rest
    # Nobody is left whose data was there, and nor is the data.
    assert [path for path in tmp_path.iterdir() if path.name.startswith("epochd")] == []
    assert str(tmp_path) not in _environments()


def _told_to_stop(directory: Path, ending: int) -> tuple[int, bytes]:
    process, terminal = in_a_terminal(directory)
    assert b"early stop" in read_until(terminal, b"early stop")
    assert [path for path in directory.iterdir() if path.name.startswith("epochd-demo-")]
    process.send_signal(ending)
    rest = read_until(terminal, b"never printed")
    os.close(terminal)
    return process.wait(30), rest


def test_it_does_not_touch_the_service_that_the_environment_configures(tmp_path: Path):
    # A demo that wrote into the operator's database would be no demo.
    from epochd.demo.service import DemoService

    with tempfile.TemporaryDirectory(dir=tmp_path) as untouched, pytest.MonkeyPatch.context() as patch:
        patch.setenv("EPOCHD_DATA_DIR", untouched)
        patch.setenv("EPOCHD_DATABASE_URL", f"sqlite:///{untouched}/production.db")
        patch.setenv("EPOCHD_API_KEYS", "sesam")
        from rich.console import Console

        with DemoService(Console(quiet=True)) as service:
            assert service.url.startswith("http://127.0.0.1:")
        assert list(Path(untouched).iterdir()) == []


def _environments() -> str:
    import psutil

    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and process.pid != os.getpid():
                found.append(process.environ().get("TMPDIR", ""))
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return "\n".join(found)
