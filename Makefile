# Everything runs from a fresh machine with Python 3.11, git, make and an index of Python packages.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: setup demo test lint up acceptance faults bench screenshots audit fuzz lock clean

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --constraint requirements.lock --editable '.[dev,postgres,ray]'
	touch $@

demo: setup  ## the whole main job on the embedded hospital
	radia demo

test: setup
	pytest -n 2 --dist loadgroup

lint: setup
	ruff check .
	ruff format --check .
	mypy

up: setup  ## Dagster, MLflow and the web app on this machine
	radia up

acceptance: setup  ## every service of docker-compose.yml, and the main job through them (root, PostgreSQL, Orthanc, nginx)
	python -m tests.deployment.acceptance

faults: setup  ## faults injected into the running services; writes docs/reliability.md
	python -m tests.deployment.faults --write

bench: setup  ## every script of benchmarks/, one after the other
	@for script in benchmarks/*.py; do echo "== $$script"; python $$script || exit 1; done

screenshots: setup  ## the pictures of docs/, of a running `RADIA_DATA=data/demo radia up` (needs chromium)
	RADIA_DATA=data/demo python -m tests.browser.screenshots docs/images

audit: setup  ## known weaknesses of what the lock pins, static findings, a bill of materials
	uv pip install --quiet --python $(BIN)/python --constraint requirements.lock --editable '.[audit]'
	python -m tests.audit

fuzz: setup  ## a million executions and more over headers, de-identification and reports
	uv pip install --quiet --python $(BIN)/python --constraint requirements.lock --editable '.[fuzz]'
	python -m tests.fuzz all --runs $(or $(RUNS),350000)

lock:  ## versions only: no address of a package index
	$(BIN)/uv pip compile pyproject.toml --all-extras --no-annotate --no-header --python-version 3.11 --prerelease if-necessary-or-explicit --output-file requirements.lock

clean:
	rm -rf $(VENV)
