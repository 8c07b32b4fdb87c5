# The commands for users and developers. `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort | while IFS=$$'\t' read -r name text; do printf '  \033[1m%-12s\033[0m %s\n' "$$name" "$$text"; done

$(STAMP): requirements-dev.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: $(PYTHON) is older than 3.11; name a newer one: make PYTHON=python3.12 …" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { echo "error: $(PYTHON) cannot make virtual environments; install its venv module (Debian: apt-get install python3-venv)" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

.PHONY: setup
setup: $(STAMP) ## Create .venv with everything development needs

COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-strip-extras --custom-compile-command 'make lock'

.PHONY: lock
lock: $(STAMP) ## Renew requirements*.lock from pyproject.toml
	$(COMPILE) --group dev pyproject.toml -o requirements-dev.lock
	$(COMPILE) --constraints requirements-dev.lock pyproject.toml -o requirements.lock
	$(COMPILE) --constraints requirements-dev.lock --group pyproject.toml:build -o requirements-build.lock

# --- the local control plane --------------------------------------------------------------------------------

NODES ?= 3

.PHONY: up
up: $(STAMP) ## Start the local control plane alone (NODES=3)
	@$(BIN)/vmsim up --nodes $(NODES)

.PHONY: down
down: $(STAMP) ## Stop it and remove its data
	@$(BIN)/vmsim down

.PHONY: run
run: $(STAMP) ## Control plane, controller, example VMs, live table (ONCE=1, CLUSTER=current, NODES=3)
	@$(BIN)/vmsim run --nodes $(NODES) $(if $(ONCE),--once) $(if $(CLUSTER),--cluster $(CLUSTER))

.PHONY: manifests
manifests: $(STAMP) controlplane ## Renew the placement fields of the VM's CRD from the API server's schema
	@$(BIN)/python -m hack.placement_schema

# --- checks -------------------------------------------------------------------------------------------------

PYTEST := $(BIN)/python -m pytest

.PHONY: lint
lint: $(STAMP) ## Style, import layers, types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports
	$(BIN)/mypy

.PHONY: audit
audit: $(STAMP) ## Look up the image's packages in the database of known vulnerabilities
	@$(BIN)/python -m hack.audit

.PHONY: unit
unit: $(STAMP) ## Unit tests: no cluster, about a minute
	$(PYTEST) tests/unit

.PHONY: integration
integration: $(STAMP) controlplane ## End-to-end tests on a control plane of their own
	$(PYTEST) tests/integration

.PHONY: controlplane
controlplane: $(STAMP) ## Obtain the control plane's binaries (about 12 minutes where they have to be built)
	@$(BIN)/vmsim up --obtain-only

# Most tests mostly wait for a control plane: several at once, each with its own, end sooner.
WORKERS ?= 3

# The minute of soak runs last and alone: it measures the process, without other load on the machine.
.PHONY: test
test: lint controlplane ## Everything: style, types, unit and end-to-end tests, coverage
	$(PYTEST) -n $(WORKERS) --dist loadfile --cov --cov-report=term:skip-covered --ignore tests/faults/test_soak.py tests
	$(PYTEST) tests/faults/test_soak.py

.PHONY: faults
faults: $(STAMP) controlplane ## Every fault at every write and event, on a real API server: an hour (ARGS="--scenario stop")
	$(if $(ARGS),,EXHAUSTIVE=1 $(PYTEST) tests/exhaustive)
	$(BIN)/python -m tests.faults $(ARGS)

MINUTES ?= 30
VMS ?= 300

.PHONY: soak
soak: $(STAMP) controlplane ## Churn, faults and outages (MINUTES=30 VMS=300)
	$(BIN)/python -m tests.faults.soak --minutes $(MINUTES) --vms $(VMS)

.PHONY: bench
bench: $(STAMP) controlplane ## Measure beside bare pods, controller-runtime and Kopf: an hour (ARGS="--quick")
	$(BIN)/python -m hack.bench $(ARGS)

.PHONY: bench-smoke
bench-smoke: $(STAMP) controlplane ## Count figures that do not depend on the machine; part of make test
	$(PYTEST) tests/bench
