"""What lies around the code: packaging, containers, CI."""

import re
import subprocess
import tomllib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
DOCKERFILE = (ROOT / "Dockerfile").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()
OURS = ["api", "worker", "worker-cpu"]


def pins() -> dict[str, str]:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and line[0] != "#"]
    return {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}


class TestConstraints:
    def test_every_line_pins_one_plain_version(self):
        assert len(pins()) > 50
        for name, version in pins().items():
            # No local versions such as +cpu, which only some machines can install.
            assert re.fullmatch(r"[0-9][0-9a-z.]*", version), name

    @pytest.mark.parametrize(
        "requirement",
        [
            *PROJECT["dependencies"],
            *(one for extra in ("server", "dev") for one in PROJECT["optional-dependencies"][extra]),
        ],
        ids=str,
    )
    def test_each_direct_dependency_is_pinned_to_what_it_allows(self, requirement: str):
        wanted = Requirement(requirement)
        assert wanted.specifier.contains(pins()[canonicalize_name(wanted.name)])

    def test_torch_is_the_one_that_all_machines_can_install(self):
        assert pins()["torch"] == "2.13.0"
        assert "torch==2.13.0" in DOCKERFILE


class TestCompose:
    def test_who_is_there(self):
        assert set(COMPOSE["services"]) == {"postgres", *OURS}
        assert COMPOSE["services"]["worker"]["profiles"] == ["gpu"]
        assert COMPOSE["services"]["worker-cpu"]["profiles"] == ["cpu"]

    @pytest.mark.parametrize("name", OURS)
    def test_ours_are_confined_and_come_back(self, name: str):
        service = COMPOSE["services"][name]
        assert service["user"] == "10001:10001"
        assert service["init"] is True
        assert service["restart"] == "unless-stopped"
        assert service["cap_drop"] == ["ALL"]
        assert service["volumes"] == ["data:/data"]

    @pytest.mark.parametrize("name", OURS)
    def test_a_clean_shutdown_has_the_time_that_it_may_take(self, name: str):
        from epochd.settings import Settings

        grace = float(COMPOSE["services"][name]["stop_grace_period"].removesuffix("s"))
        # serve ends its streams first, and its workers after that.
        assert grace > 2 * Settings.model_fields["shutdown_seconds"].default

    def test_no_secret_stands_in_the_file(self):
        secret = re.compile(r"PASSWORD|KEY|TOKEN|SECRET")
        for name, service in COMPOSE["services"].items():
            for variable, value in service["environment"].items():
                if secret.search(variable):
                    assert re.fullmatch(r"\$\{[A-Z_]+:\?[^}]+\}", value), (name, variable)
        assert "@postgres" in COMPOSE["services"]["api"]["environment"]["EPOCHD_DATABASE_URL"]
        assert not re.search(r"//[^@\s]*:[^@\s]*@", (ROOT / "docker-compose.yml").read_text())

    def test_only_the_api_can_be_reached_and_only_from_this_machine(self):
        published = {
            name: service["ports"] for name, service in COMPOSE["services"].items() if "ports" in service
        }
        assert published == {"api": ["${EPOCHD_PUBLISH:-127.0.0.1:8000}:8000"]}

    def test_the_api_listens_to_its_neighbours_and_trains_nothing(self):
        assert COMPOSE["services"]["api"]["command"] == [
            "serve", "--workers", "0", "--host", "0.0.0.0", "--port", "8000",
        ]  # fmt: skip

    def test_each_starts_when_what_it_needs_is_healthy(self):
        for name, needs in {
            "api": {"postgres"},
            "worker": {"postgres", "api"},
            "worker-cpu": {"postgres", "api"},
        }.items():
            waits = COMPOSE["services"][name]["depends_on"]
            assert waits == {need: {"condition": "service_healthy"} for need in needs}
            assert all("test" in COMPOSE["services"][need]["healthcheck"] for need in needs)

    def test_postgres_is_pinned_to_a_major_and_keeps_its_data(self):
        postgres = COMPOSE["services"]["postgres"]
        assert re.fullmatch(r"postgres:\d+", postgres["image"])
        assert postgres["volumes"] == ["postgres:/var/lib/postgresql"]
        assert "pg_isready" in postgres["healthcheck"]["test"]
        assert set(COMPOSE["volumes"]) == {"postgres", "data"}

    def test_only_the_gpu_worker_asks_for_gpus_and_only_its_image_has_cuda(self):
        gpu = [name for name, service in COMPOSE["services"].items() if "deploy" in service]
        assert gpu == ["worker"]
        devices = COMPOSE["services"]["worker"]["deploy"]["resources"]["reservations"]["devices"]
        assert devices == [{"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}]
        assert "args" not in COMPOSE["services"]["worker"]["build"]
        for name in ("api", "worker-cpu"):
            assert COMPOSE["services"][name]["build"]["args"] == {"TORCH_INDEX": "${TORCH_INDEX:-}"}
        assert COMPOSE["services"]["worker"]["image"] != COMPOSE["services"]["api"]["image"]

    def test_images_carry_the_version_of_the_package(self):
        for name in OURS:
            assert COMPOSE["services"][name]["image"].startswith(f"epochd:{PROJECT['version']}-")

    def test_every_command_and_flag_exists(self):
        from epochd.settings import Settings

        for name in OURS:
            command, *flags = COMPOSE["services"][name]["command"]
            assert command in {"serve", "worker"}
            assert {flag[2:].replace("-", "_") for flag in flags if flag.startswith("--")} <= set(
                Settings.model_fields
            )


class TestDockerfile:
    def test_it_runs_as_nobody_special_and_says_how_it_is(self):
        final_stage = DOCKERFILE.split("\nFROM ")[-1]
        assert "\nUSER 10001:10001\n" in final_stage
        assert "HEALTHCHECK" in final_stage
        assert "/healthz" in final_stage

    def test_everything_it_copies_exists_and_is_sent_to_the_builder(self):
        sent = (ROOT / ".dockerignore").read_text().splitlines()
        copied = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)
        names = {name for line in copied for name in line.split()}
        assert {"constraints.txt", "pyproject.toml", "service", "migrations"} <= names
        for name in names:
            assert (ROOT / name).exists()
            assert f"!{name}" in sent

    def test_what_the_package_needs_to_be_built_is_copied(self):
        pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
        wheel = pyproject["tool"]["hatch"]["build"]["targets"]["wheel"]
        needed = {PROJECT["readme"], *PROJECT["license-files"], *wheel["force-include"], "service"}
        copied = set(
            re.findall(r"\S+", " ".join(re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)))
        )
        assert needed <= copied


class TestMakefile:
    @pytest.mark.parametrize(
        "target",
        [
            "demo",
            "test",
            "lint",
            "types",
            "imports",
            "check",
            "serve",
            "bench",
            "prometheus",
            "openapi",
            "clean",
        ],
    )
    def test_each_target_can_be_made(self, target: str):
        plan = subprocess.run(
            ["make", "--dry-run", "--always-make", target],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert plan.returncode == 0, plan.stderr

    def test_help_names_every_target(self):
        shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        targets = re.search(r"^\.PHONY: (.+)$", MAKEFILE, re.MULTILINE)
        assert targets is not None
        assert set(re.findall(r"make ([\w-]+)", shown)) == set(targets[1].split())

    def test_what_is_installed_is_not_installed_again(self, tmp_path: Path):
        (tmp_path / ".installed").touch()
        plan = subprocess.run(
            ["make", "--dry-run", "install", f"VENV={tmp_path}"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        assert "pip" not in plan.stdout

    def test_every_module_that_a_recipe_runs_exists(self):
        modules = set(re.findall(r"python -m ([\w.]+)", MAKEFILE))
        assert "pytest" in modules
        for module in modules:
            assert find_spec(module) is not None, module


class TestCi:
    def test_it_runs_all_checks_and_stops_at_the_first_failure(self):
        script = ROOT / ".ci" / "run"
        assert script.stat().st_mode & 0o111
        lines = script.read_text().splitlines()
        assert lines[0] == "#!/usr/bin/env bash"
        assert "set -euo pipefail" in lines
        assert [line for line in lines if line.startswith("make ")] == [
            "make lint", "make types", "make imports", "make prometheus || make prometheus",
            "make chromium || make chromium", "make test",
        ]  # fmt: skip


class TestDocuments:
    def test_the_licence_is_the_whole_apache_licence(self):
        text = (ROOT / "LICENSE").read_text()
        assert "Apache License" in text
        assert "Version 2.0, January 2004" in text
        assert "9. Accepting Warranty or Additional Liability." in text
        assert "END OF TERMS AND CONDITIONS" in text

    def test_the_changelog_has_this_version(self):
        assert f"## {PROJECT['version']}" in (ROOT / "CHANGELOG.md").read_text()

    def test_the_package_says_the_same_version_everywhere(self):
        import epochd

        assert epochd.__version__ == PROJECT["version"]
