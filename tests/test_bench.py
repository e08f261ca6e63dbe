"""The benchmarks still run, and compare what they say they compare."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ENGINE = Path(__file__).resolve().parents[1] / "bench" / "engine.py"
LENGTH = ["--rounds", "1", "--seconds", "0.02", "--threads", "1"]


@pytest.mark.torture
def test_the_engine_and_the_textbook_loop_train_the_same():
    command = [sys.executable, str(ENGINE), "--only", "digits,images", *LENGTH]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in ("epochd, as a job", "epochd, engine", "PyTorch, textbook", "PyTorch, bare step"):
        rows = re.findall(rf"^ +{name} +[0-9.]+ +[0-9,]+( +[0-9.]+x)+$", done.stdout, re.MULTILINE)
        assert len(rows) == 2, done.stdout  # a variant whose losses differ is marked at the end of its row
