"""Every command in the README works, and what it says is so."""

import json
import os
import re
import shlex
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import SecretStr
from tests.e2e.conftest import Service

from epochd.contract.job import Job
from epochd.contract.spec import EarlyStopping, JobSpec
from epochd.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
PAGES = "\n".join([README, *(page.read_text() for page in sorted((ROOT / "docs").glob("*.md")))])


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def commands() -> list[list[str]]:
    """The commands of the blocks that start something, comments left out."""
    lines = "\n".join(blocks("console")).splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str, Path]]:
    """Run all curl lines of all pages in one shell, in their order, against one service."""
    directory = tmp_path_factory.mktemp("readme")
    data = directory / "epochd-data"  # where it is by default
    service = Service(directory, f"sqlite:///{data / 'epochd.db'}", data)
    try:
        script = "\n".join(["set -euo pipefail", *blocks("sh", PAGES)])
        script = re.sub(r"^curl ", "curl --fail-with-body ", script, flags=re.MULTILINE)
        done = subprocess.run(
            ["bash", "-c", script.replace("http://127.0.0.1:8000", service.url)],
            cwd=directory,
            env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        yield done.stdout, done.stderr, directory
    finally:
        service.client.close()
        service.end()
        service.kill_all()


def test_every_curl_line_works(shell: tuple[str, str, Path]):
    output, errors, directory = shell
    assert errors == ""
    assert len(re.findall(r"^\s*(?:\w+=\$\()?curl ", "\n".join(blocks("sh", PAGES)), re.MULTILINE)) >= 20
    job = json.loads((directory / "job.json").read_text())
    assert job["plan"]["iterations_per_epoch"] == 23
    assert "event: iterations" in output
    assert "event: job.succeeded" in output
    assert '"mini_batches_per_epoch":10' in output.replace(" ", "")


def test_the_answer_looks_like_this(shell: tuple[str, str, Path]):
    output, _, _ = shell
    shown = json.loads(blocks("json")[0])
    done = [json.loads(line) for line in re.findall(r'\{"id":"job_.*?"cancel_requested_at":[^}]*\}', output)]
    (answer,) = [job for job in done if job["stop_reason"] == shown["stop_reason"]][:1]
    Job.model_validate({**shown, "spec": answer["spec"]})
    assert list(shown) == list(answer)
    for part in ("plan", "progress", "metrics", "early_stopping", "diagnosis", "selected_checkpoint"):
        assert shown[part].keys() == answer[part].keys(), part
    assert shown["plan"] == answer["plan"]


def test_the_weights_predict_with_torch_alone(shell: tuple[str, str, Path]):
    _, _, directory = shell
    example = blocks("python")[0]
    assert len([line for line in example.splitlines() if line.strip()]) <= 15
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", example],
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    expected = re.search(r"\)  # (\d)$", example)
    assert expected is not None
    assert done.stdout.strip() == expected[1]


def test_the_view_shows_one_row_an_iteration(shell: tuple[str, str, Path]):
    _, _, directory = shell
    (query,) = blocks("sql")
    job = json.loads((directory / "job.json").read_text())["id"]
    with sqlite3.connect(directory / "epochd-data" / "epochd.db") as database:
        rows = database.execute(query.replace("job_…", job)).fetchall()
    assert [row[0] for row in rows] == list(range(1, len(rows) + 1))
    assert len(rows) % 23 == 0
    assert all(len(row) == 5 and row[2] > 0 for row in rows)


def test_the_early_stopping_object_is_the_one_of_the_contract():
    shown = json.loads(blocks("json")[1])
    assert shown.keys() == EarlyStopping.model_fields.keys()
    EarlyStopping.model_validate(shown)


def test_every_link_leads_somewhere():
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\((?!https?:)([^)]+)\)", page.read_text()):
            path, _, heading = target.partition("#")
            if path.endswith(".png"):
                assert (page.parent / path).read_bytes().startswith(b"\x89PNG"), (page.name, target)
                continue
            linked = (page.parent / path if path else page).read_text()
            headings = [
                re.sub(r"[^a-z0-9 -]", "", line.lower()).strip().replace(" ", "-")
                for line in re.findall(r"^#+ (.*)$", linked, re.MULTILINE)
            ]
            assert not heading or heading in headings, (page.name, target)


def test_every_json_example_is_json():
    for block in blocks("json", PAGES):
        assert json.loads(block), block


def test_every_spec_in_the_pages_is_one():
    specs = [one for one in map(json.loads, blocks("json", PAGES)) if "dataset" in one and "epochs" in one]
    assert len(specs) >= 3
    for spec in specs:
        JobSpec.model_validate(spec)


def test_every_make_target_exists():
    targets = [words[1] for words in commands() if words[0] == "make"]
    assert {"demo", "test", "serve"} <= set(targets)
    for target in targets:
        plan = subprocess.run(
            ["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert plan.returncode == 0, plan.stderr


@pytest.mark.parametrize("database_kind", ["postgres"], indirect=True)
@pytest.mark.parametrize("words", [words for words in commands() if words[0] == "epochd"], ids=" ".join)
def test_every_epochd_command_starts(
    words: list[str],
    start_command: Callable[..., Any],
    database_url: str,
    data_dir: Path,
    wait_until: Callable[..., Any],
):
    arguments = [database_url if word.startswith("postgresql://") else word for word in words[1:]]
    where = ["--port", "0"] if "serve" in arguments else []
    command = start_command(*arguments, *where, "--data-dir", str(data_dir))
    ready = "API" if "serve" in arguments else "trains on"
    wait_until(
        lambda: ready in command.output + command.errors or command.process.poll() is not None, "it runs"
    )
    assert command.end() == 0, command.errors


def test_the_other_commands_and_variables_that_it_names_exist():
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    profiles = {
        profile for service in compose["services"].values() for profile in service.get("profiles", [])
    }
    for words in commands():
        match words:
            case ["docker", "compose", "--profile", profile, "up", "--build"]:
                assert profile in profiles
            case ["export", *variables]:
                text = (ROOT / "docker-compose.yml").read_text()
                assert all(f"${{{variable.partition('=')[0]}:?" in text for variable in variables)
            case _:
                assert words[0] in {"make", "epochd"}, words


def test_the_table_is_that_of_the_settings():
    rows = re.findall(r"^\| `--(\S+)` \| `(\S+)` \| (.*?) ?\| (.+) \|$", README, re.MULTILINE)
    assert len(rows) == len(Settings.model_fields)
    for (flag, variable, default, meaning), (name, field) in zip(
        rows, Settings.model_fields.items(), strict=True
    ):
        assert (flag, variable) == (name.replace("_", "-"), f"EPOCHD_{name.upper()}")
        assert meaning == field.description
        assert default == _shown(field.get_default())


def _shown(default: Any) -> str:
    if default is None or isinstance(default, SecretStr):
        return ""
    if isinstance(default, bool):
        return "off"
    return f"`{default:g}`" if isinstance(default, float) else f"`{default}`"
