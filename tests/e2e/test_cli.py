"""The command line as an operator meets it: readable when it works, one line when it does not."""

import re
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import epochd
from epochd.settings import Settings

SETTINGS = list(Settings.model_fields)


@pytest.fixture
def run(start_command: Callable[..., Any]) -> Callable[..., tuple[int, str, str]]:
    """Run a command to its end; return exit code, output and errors."""

    def run_(*arguments: str, **environment: str) -> tuple[int, str, str]:
        command = start_command(*arguments, COLUMNS="200", TERM="dumb", **environment)
        return command.process.wait(60), command.output, command.errors

    return run_


def assert_one_line(errors: str, *words: str) -> None:
    assert len(errors.splitlines()) == 1, errors
    assert errors.startswith("epochd: ")
    for word in words:
        assert word in errors


def test_the_version(run: Callable[..., Any]):
    assert run("--version") == (0, f"epochd {epochd.__version__}\n", "")


def test_help_names_every_command(run: Callable[..., Any]):
    code, output, _ = run("--help")
    assert code == 0
    for command in ("serve", "worker", "compare", "demo", "db", "submit", "watch", "list", "show"):
        assert re.search(rf"^\W*{command} ", output, re.MULTILINE)
    assert "upgrade" in run("db", "--help")[1]


def test_every_setting_is_a_flag_and_a_variable(run: Callable[..., Any]):
    _, output, _ = run("serve", "--help")
    assert SETTINGS
    for name in SETTINGS:
        assert f"--{name.replace('_', '-')} " in output
        assert f"EPOCHD_{name.upper()}" in output


def test_a_worker_is_not_asked_for_what_only_the_api_has(run: Callable[..., Any]):
    _, output, _ = run("worker", "--help")
    assert "--database-url " in output
    assert "--port " not in output
    assert "--api-keys " not in output


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("epochd.cli", {"torch", "sklearn", "sqlalchemy", "fastapi", "uvicorn", "httpx"}),
        ("epochd.serve", {"torch", "sklearn", "safetensors"}),
        ("epochd.demo", {"torch", "sqlalchemy", "fastapi", "uvicorn"}),
    ],
)
def test_what_is_not_imported_costs_no_time(module: str, absent: set[str]):
    code = f"import sys, {module}; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert module in loaded
    assert absent.isdisjoint(loaded)


class TestOneLine:
    def test_a_variable_that_is_wrong(self, run: Callable[..., Any]):
        code, output, errors = run("serve", EPOCHD_PORT="http", EPOCHD_LOG_LEVEL="loud")
        assert (code, output) == (2, "")
        assert_one_line(errors, "EPOCHD_PORT", "'http'", "EPOCHD_LOG_LEVEL", "'loud'")

    def test_a_flag_that_is_wrong(self, run: Callable[..., Any]):
        code, _, errors = run("serve", "--workers", "-1")
        assert code == 2
        assert_one_line(errors, "--workers", "greater than or equal to 0")

    def test_a_variable_that_is_misspelt_is_pointed_out(self, run: Callable[..., Any], data_dir: Path):
        code, _, errors = run(
            "db", "upgrade", "--data-dir", str(data_dir), EPOCHD_DATABSE_URL="sqlite:///x.db"
        )
        assert code == 0
        assert_one_line(errors, "EPOCHD_DATABSE_URL", "EPOCHD_DATABASE_URL")

    @pytest.mark.parametrize("host", ["0.0.0.0", "::", ""])
    def test_it_does_not_listen_beyond_loopback_without_keys(
        self, run: Callable[..., Any], host: str, data_dir: Path
    ):
        code, _, errors = run("serve", "--port", "0", "--host", host, "--data-dir", str(data_dir))
        assert code == 2
        assert_one_line(errors, "EPOCHD_API_KEYS", "--insecure")

    def test_a_port_that_is_taken(self, run: Callable[..., Any], data_dir: Path):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = str(taken.getsockname()[1])
            code, _, errors = run("serve", "--port", port, "--data-dir", str(data_dir))
        assert code == 2
        assert_one_line(errors, port, "in use", "--port 0")
        assert not (data_dir / "epochd.db").exists()

    def test_a_host_that_is_not_here(self, run: Callable[..., Any], data_dir: Path):
        code, _, errors = run("serve", "--host", "192.0.2.1", "--insecure", "--data-dir", str(data_dir))
        assert code == 2
        assert_one_line(errors, "192.0.2.1")

    @pytest.mark.parametrize("command", [["serve"], ["worker"], ["db", "upgrade"]])
    def test_a_data_directory_that_cannot_be_written(
        self, run: Callable[..., Any], command: list[str], tmp_path: Path
    ):
        (tmp_path / "file").touch()
        code, _, errors = run(*command, "--data-dir", str(tmp_path / "file" / "data"))
        assert code == 2
        assert_one_line(errors, str(tmp_path / "file" / "data"), "--data-dir")

    @pytest.mark.parametrize("command", [["serve", "--port", "0"], ["worker"], ["db", "upgrade"]])
    def test_a_database_that_does_not_answer(
        self, run: Callable[..., Any], command: list[str], data_dir: Path
    ):
        url = "postgresql://user:geheim@127.0.0.1:1/epochd"
        code, _, errors = run(*command, "--data-dir", str(data_dir), "--database-url", url)
        assert code == 1
        assert_one_line(errors, "127.0.0.1:1")
        assert "geheim" not in errors

    @pytest.mark.parametrize("url", ["mysql://localhost/epochd", "nonsense", "sqlite://"])
    def test_a_database_url_that_is_none(self, run: Callable[..., Any], url: str, data_dir: Path):
        code, _, errors = run("serve", "--port", "0", "--data-dir", str(data_dir), "--database-url", url)
        assert code == 2
        assert_one_line(errors, "sqlite:////path/to/file.db")

    def test_a_worker_before_the_migrations(self, run: Callable[..., Any], data_dir: Path):
        code, _, errors = run("worker", "--data-dir", str(data_dir))
        assert code == 1
        assert_one_line(errors, "epochd db upgrade")


def test_db_upgrade_can_be_repeated(run: Callable[..., Any], empty_database_url: str, data_dir: Path):
    flags = ("--data-dir", str(data_dir), "--database-url", empty_database_url)
    first = run("db", "upgrade", *flags)
    assert first[0] == 0
    assert re.search(r" at revision \d{4}\.$", first[1])
    assert run("db", "upgrade", *flags) == first


class TestServe:
    def test_it_says_where_everything_is_but_no_secret(
        self, start_service: Callable[..., Any], data_dir: Path, database_url: str, database_kind: str
    ):
        flags = []
        if database_kind == "postgres":
            with_password = re.sub(
                r"^postgresql://postgres:?@", "postgresql://postgres:geheim@", database_url
            )
            assert "geheim" in with_password
            flags = ["--database-url", with_password]
        service = start_service("--workers", "0", *flags, EPOCHD_API_KEYS="sesam,mellon")
        assert service.client.get("/healthz").status_code == 200
        assert service.client.get("/docs").status_code == 200
        assert service.client.get("/v1/jobs").status_code == 401
        listed = service.client.get("/v1/jobs", headers={"Authorization": "Bearer mellon"})
        assert listed.json()["data"] == []
        assert service.end() == 0
        said = service.output + service.errors
        assert epochd.__version__ in said
        assert str(data_dir) in said
        assert re.search(r"at revision \d{4}$", said, re.MULTILINE)
        assert f"{service.url}/docs" in said
        assert re.search(rf"dashboard +{service.url}/$", said, re.MULTILINE)
        assert "epochd worker" in said
        for secret in ("geheim", "sesam", "mellon"):
            assert secret not in said
        assert service.errors == ""

    @pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
    def test_a_flag_wins_over_the_environment(self, start_service: Callable[..., Any], tmp_path: Path):
        service = start_service(
            "--workers", "0", EPOCHD_PORT="1", EPOCHD_DATA_DIR=str(tmp_path / "elsewhere")
        )
        assert not service.url.endswith(":1")
        assert not (tmp_path / "elsewhere").exists()

    @pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
    @pytest.mark.parametrize(
        "flags", [["--host", "0.0.0.0", "--insecure"], ["--host", "::1"], ["--host", "127.0.0.2"]]
    )
    def test_addresses_that_it_listens_on(self, start_service: Callable[..., Any], flags: list[str]):
        if "::1" in flags and not _has_ipv6():
            pytest.skip("this machine has no IPv6")
        service = start_service("--workers", "0", *flags)
        assert service.client.get("/healthz").json() == {"status": "ok"}
        assert service.end() == 0

    @pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
    def test_a_second_sigterm_does_no_harm(self, start_service: Callable[..., Any], endless: dict[str, Any]):
        service = start_service()
        service.wait(service.submit(**endless), lambda job: job["progress"]["epoch"] >= 1)
        service.send(signal.SIGTERM)
        service.send(signal.SIGTERM)
        assert service.process.wait(60) == 0
        assert service.processes() == []


def _has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


def test_the_command_is_installed():
    command = Path(sys.executable).with_name("epochd")
    assert command.stat().st_mode & stat.S_IXUSR
    shown = subprocess.run([command, "--version"], capture_output=True, text=True, check=True).stdout
    assert shown == f"epochd {epochd.__version__}\n"
