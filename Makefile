# Needs Python 3.11 or newer (with pip and venv) and make; everything else is put into .venv.
#
#   make demo                      the service at work, in one command
#   make test ARGS='-k cancel'     part of the tests
#   make serve ARGS='--port 9000'  flags of `epochd serve`
#
# On Linux, pip takes the torch that runs on NVIDIA GPUs, a download of gigabytes. For the small CPU build, name
# PyTorch's index of CPU builds once: make install TORCH_INDEX=...

VENV ?= .venv
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
TORCH_INDEX ?=
# One more than cores: half of the tests wait for processes most of the time.
JOBS ?= $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)
ARGS ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
INSTALLED := $(VENV)/.installed

PROMETHEUS := $(VENV)/prometheus/usr/bin/prometheus
APT := $(abspath $(VENV))/prometheus/apt
APT_OPTIONS := -o Dir::State=$(APT)/state -o Dir::State::status=/var/lib/dpkg/status -o Dir::Cache=$(APT)/cache \
	-o APT::Sandbox::User= -o Acquire::Retries=2

.DEFAULT_GOAL := help
.PHONY: help install demo serve test torture check lint format types imports bench bench-peers prometheus chromium openapi clean

help:  ## Show what there is to make
	@grep -hE '^[a-z-]+:.*##' $(firstword $(MAKEFILE_LIST)) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

install: $(INSTALLED)  ## Make .venv and install everything into it

$(INSTALLED): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "epochd needs Python 3.11 or newer; name it with PYTHON=..." >&2; exit 1; }
	@echo "==> $(VENV): making the virtual environment with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)
	@echo "==> $(VENV): installing torch, the large one (minutes on a slow line)"
	@$(PIP) install -c constraints.txt $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) torch
	@echo "==> $(VENV): installing epochd and its development tools"
	@$(PIP) install -c constraints.txt --editable '.[server,dev]'
	@touch $@
	@echo "==> $(VENV): ready"

demo: $(INSTALLED)  ## Start the service, train on handwritten digits, show what came out
	@$(BIN)/epochd demo $(ARGS)

serve: $(INSTALLED)  ## Run the service on http://127.0.0.1:8000
	@$(BIN)/epochd serve $(ARGS)

test: $(INSTALLED)  ## Run all tests, on SQLite and on a real Postgres
	$(BIN)/python -m pytest -n $(JOBS) --maxprocesses=8 --dist=worksteal $(ARGS)

torture: $(INSTALLED)  ## The long proofs: hundreds of kills, a database that is away for a minute
	$(BIN)/python -m pytest -m torture -s -v $(ARGS)

check: lint types imports  ## Everything that needs no test run

lint: $(INSTALLED)  ## Style: ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(INSTALLED)  ## Let ruff put the style right
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(INSTALLED)  ## Types: mypy --strict
	$(BIN)/mypy

imports: $(INSTALLED)  ## Layers: import-linter; dependencies: deptry
	$(BIN)/lint-imports
	$(BIN)/deptry service

bench: $(INSTALLED)  ## Measure: every script in bench/
	@set -e; for script in bench/*.py; do echo "==> $$script"; $(BIN)/python $$script $(ARGS); done

bench-peers: $(INSTALLED)  ## The engine against other ways to train, which are installed for it
	@$(PIP) install -c constraints.txt --editable '.[server,dev,bench]'
	@$(BIN)/python bench/engine.py $(ARGS)

prometheus: $(PROMETHEUS)  ## Fetch Debian's Prometheus, which the tests let scrape the service

# Unpacked, not installed; with lists and a cache of its own, so that it needs no root.
$(PROMETHEUS):
	@echo "==> $(VENV)/prometheus: fetching Debian's package"
	@rm -rf $(APT) && mkdir -p $(APT)/state/lists/partial $(APT)/cache/archives/partial
	@apt-get $(APT_OPTIONS) -qq update
	@cd $(APT) && apt-get $(APT_OPTIONS) -qq download prometheus
	@dpkg-deb -x $(APT)/prometheus_*.deb $(VENV)/prometheus
	@rm -rf $(APT)
	@touch $@

chromium:  ## Install Debian's Chromium, in which the tests open the dashboard; needs root
	@command -v chromium >/dev/null || { apt-get -qq update && \
		DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends chromium fonts-dejavu-core; } >/dev/null

openapi: $(INSTALLED)  ## Write the OpenAPI document anew
	$(BIN)/python -m epochd.api.openapi > openapi.json

clean:  ## Remove caches, builds and what the demo left; .venv and data stay
	rm -rf build dist epochd-demo .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find service tests bench migrations -name __pycache__ -type d -prune -exec rm -rf {} +
