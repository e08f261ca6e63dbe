"""The benchmarks still run, and compare what they say they compare."""

import json
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

ENGINE = Path(__file__).resolve().parents[1] / "bench" / "engine.py"
READING = ENGINE.with_name("reading.py")
STREAMING = ENGINE.with_name("streaming.py")
RECORDING = ENGINE.with_name("recording.py")
LENGTH = ["--rounds", "1", "--seconds", "0.02", "--threads", "1"]


@pytest.mark.torture
def test_the_engine_and_the_textbook_loop_train_the_same():
    command = [sys.executable, str(ENGINE), "--only", "digits,images", *LENGTH]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in ("epochd, as a job", "epochd, engine", "PyTorch, textbook", "PyTorch, bare step"):
        rows = re.findall(rf"^ +{name} +[0-9.]+ +[0-9,]+( +[0-9.]+x)+$", done.stdout, re.MULTILINE)
        assert len(rows) == 2, done.stdout  # a variant whose losses differ is marked at the end of its row


@pytest.mark.torture
def test_reading_is_compared_on_both_databases():
    done = subprocess.run(
        [sys.executable, str(READING), "--quick"], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    for name in (
        "train_loss as 1000 points",
        "train_loss of the middle third",
        "a slice of 5,000 as JSON",
        "rows, reduced in SQL",
        "rows, in numpy",
    ):
        rows = re.findall(rf"^ +5,000  {name}( +[0-9.]+){{3}} +[0-9.]+x$", done.stdout, re.MULTILINE)
        assert len(rows) == 2, done.stdout


@pytest.mark.torture
def test_streaming_is_compared_on_both_databases():
    done = subprocess.run(
        [sys.executable, str(STREAMING), "--quick"], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    epochd = ["epochd, sqlite", "epochd, postgres"]
    for name in [*epochd, "plain StreamingResponse", "FastAPI's fastapi.sse"]:
        figures = rf"^ +{name} +p50 +[0-9.]+ ms +p99 +[0-9.]+ ms +CPU +[0-9.]+ cores( +[0-9.]+ MB/s)?$"
        # A row says so when not all that was sent has come.
        assert len(re.findall(figures, done.stdout, re.MULTILINE)) == 1 + (name in epochd), done.stdout
        assert len(re.findall(rf"^ +{name} +-?[0-9.]+ kB a reader$", done.stdout, re.MULTILINE)) == 1, (
            done.stdout
        )


@pytest.mark.torture
def test_recording_is_compared_with_peers_and_with_the_training_alone():
    command = [sys.executable, str(RECORDING), "--quick"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    figures = r" +[0-9,]+ +[0-9.]+ +[0-9,]+$"
    for name in ("epochd on sqlite, in bulk", "epochd on postgresql, in bulk", "psycopg, COPY"):
        assert re.search(f"^{name}{figures}", done.stdout, re.MULTILINE), done.stdout
    assert re.search(r"^digits, .*( +[0-9.]+){3}( +-?[0-9.]+%){2}$", done.stdout, re.MULTILINE), done.stdout


@pytest.mark.torture
def test_polling_is_compared_with_a_constant_answer():
    command = [sys.executable, str(ENGINE.with_name("polling.py")), "--quick"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for database in ("SQLite", "Postgres"):
        assert re.search(rf"^{database}, 32 connections", done.stdout, re.MULTILINE), done.stdout
    assert len(re.findall(r"^ +epochd +[0-9,]+( +[0-9.]+){2} +[0-9.]+x$", done.stdout, re.MULTILINE)) == 2


@pytest.mark.torture
def test_whole_series_are_written_in_every_format():
    command = [sys.executable, str(ENGINE.parent / "formats.py"), "--quick"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in ("CSV, epochd", "CSV, csv.writer", "NDJSON, epochd", "NDJSON, json.dumps", "Parquet, epochd"):
        assert re.search(rf"^{name} +[0-9,]+ +[0-9.]+x( +[0-9.]+ MB){{2}}$", done.stdout, re.MULTILINE), (
            done.stdout
        )


@pytest.mark.torture
def test_uploads_are_compared_with_a_copy():
    command = [sys.executable, str(ENGINE.with_name("uploading.py")), "--quick"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in ("CSV", "Parquet", "NPZ", "ZIP of PNG, 64x64", "CSV, 4 kB"):
        assert re.search(rf"^{name}( +[0-9.,]+){{6}}x$", done.stdout, re.MULTILINE), done.stdout


@pytest.mark.torture
@pytest.mark.parametrize("how", [["-m", "bench.batch_sizes"], ["bench/batch_sizes.py"]])
def test_batch_sizes_are_compared_in_figures_and_in_a_picture(tmp_path, how):
    picture = tmp_path / "pictures" / "sizes.svg"
    asked = ["--seeds", "2", "--epochs", "4", "--sizes", "16,256", "--picture", str(picture)]
    done = subprocess.run(
        [sys.executable, *how, *asked], cwd=ENGINE.parents[1], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    for size, iterations in ((16, 81), (256, 6)):
        assert len(re.findall(rf"^\| {size} \| {iterations} \| [0-9]+ MB \|", done.stdout, re.MULTILINE)) == 2
    drawn = ET.fromstring(picture.read_text())
    assert len(drawn.findall("{*}polyline")) == 4


@pytest.mark.torture
def test_the_diagnosis_is_measured_and_mended(tmp_path):
    saved = tmp_path / "curves.json"
    command = [sys.executable, str(ENGINE.with_name("diagnosis.py")), "--mend", "--save", str(saved)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(json.loads(saved.read_text())) >= 60
    halves = re.findall(
        r"^(?:fitted on|reported, not fitted on): ([0-9]+) of ([0-9]+) right", done.stdout, re.MULTILINE
    )
    assert len(halves) == 2, done.stdout
    assert all(int(right) >= 0.8 * int(count) for right, count in halves)
    faults = re.findall(r"^\| `[a-z]+` \| ([0-9]+) \| [0-9]+ \| ([0-9]+) \|", done.stdout, re.MULTILINE)
    assert len(faults) == 5, done.stdout
    assert all(int(gone) >= 0.9 * int(count) for count, gone in faults)


@pytest.mark.torture
def test_the_dashboard_is_timed_in_a_browser():
    command = [sys.executable, str(ENGINE.with_name("dashboard.py")), "--quick"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if "there is no Chromium" in done.stderr:
        pytest.skip("there is no Chromium: `make chromium` installs it")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^ +10,000( +[0-9]+){5}$", done.stdout, re.MULTILINE), done.stdout
