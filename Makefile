# Two commands do all the set-up: `make up` and `make test`. `make help` lists the rest.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
CLIENTS := .venv-clients
INVENTORY ?= inventories/local
PYTEST_ARGS ?=
# how many test files run side by side: `auto` is one for each core, 0 is one after the other without workers
PYTEST_WORKERS ?= auto
HOSTS_WORKERS ?= 0
# `--must`: a machine that cannot compile fails `make test-compiled`, in place of leaving it out
COMPILED_MUST ?=
SIDE_BY_SIDE := --dist loadfile --no-loadscope-reorder --numprocesses
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help
help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# --- environments -------------------------------------------------------------------------------
# Stamps depend on the lock files, so an unchanged lock costs nothing.

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Modelyard needs Python 3.11 or later; $(PYTHON) is older. Try: make PYTHON=python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	@echo "Creating $(VENV)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/%.stamp: proxy/requirements/%.txt pyproject.toml | $(BIN)/pip
	@echo "Installing proxy/requirements/$*.txt"
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

# real client libraries, which want other versions than the tools here do
$(CLIENTS)/stamp: tests/clients/requirements.txt pyproject.toml | $(BIN)/pip
	@echo "Installing tests/clients/requirements.txt"
	@$(PYTHON) -m venv $(CLIENTS)
	@$(CLIENTS)/bin/pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

.PHONY: collections
collections: $(VENV)/deploy.stamp  ## Fetch the third-party Ansible collections (for lint and tests only)
	@$(BIN)/python collections/fetch.py

# --- the main job -------------------------------------------------------------------------------
.PHONY: up
up: $(VENV)/deploy.stamp  ## Bring up $(INVENTORY): engines, registry, proxy (default: two echo replicas here)
	@$(BIN)/ansible-playbook -i $(INVENTORY) playbooks/site.yml
	@$(BIN)/modelyard tour -i $(INVENTORY)

.PHONY: down
down: $(VENV)/deploy.stamp  ## Stop everything that `make up` started
	@$(BIN)/ansible-playbook -i $(INVENTORY) playbooks/stop.yml -e stop_proxies=true -e confirm=all

# --- checks -------------------------------------------------------------------------------------
.PHONY: lint
lint: $(VENV)/dev.stamp collections  ## ruff, mypy --strict, yamllint, ansible-lint (production, offline)
	@$(MAKE) --jobs 2 --output-sync=target lint-ansible lint-python lint-yaml

.PHONY: lint-ansible lint-python lint-yaml
lint-ansible:
	@$(BIN)/ansible-lint --offline --profile production
lint-python:
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
lint-yaml:
	@$(BIN)/yamllint --strict .

.PHONY: test
test: lint  ## Lint and every test that needs no container engine
	@$(BIN)/pytest $(SIDE_BY_SIDE) $(PYTEST_WORKERS) $(PYTEST_ARGS)
	@$(MAKE) test-compiled
	@$(MAKE) test-clients

.PHONY: test-compiled
test-compiled: $(VENV)/dev.stamp  ## The path of requests as machine code (where a C compiler is), against its tests
	@$(BIN)/python -m tests.tools.compiled $(COMPILED_MUST) \
	  $(BIN)/pytest $(SIDE_BY_SIDE) $(PYTEST_WORKERS) tests/unit/gateway tests/integration/gateway $(PYTEST_ARGS)

.PHONY: test-clients
test-clients: $(VENV)/dev.stamp $(CLIENTS)/stamp  ## Real client libraries, against engines of both dialects
	@MODELYARD_CLIENTS_PYTHON=$(CURDIR)/$(BIN)/python $(CLIENTS)/bin/python -m pytest -c tests/clients/pytest.ini tests/clients $(PYTEST_ARGS)

.PHONY: test-hosts
test-hosts: $(VENV)/dev.stamp $(CLIENTS)/stamp collections  ## Tests that need Docker: molecule, SSH test hosts, real vLLM
	@bash tests/parts/engine.sh
	@$(BIN)/python -m tests.parts build
	@$(BIN)/pytest tests/hosts tests/e2e $(SIDE_BY_SIDE) $(HOSTS_WORKERS) --maxprocesses 4 $(PYTEST_ARGS)

.PHONY: bench
bench: $(VENV)/dev.stamp collections  ## Measurements: tables and JSON, never pass or fail
	@PYTHONPATH=$(CURDIR)/collections $(BIN)/python -m tests.bench

# --- upkeep -------------------------------------------------------------------------------------
.PHONY: lock
lock: LOCK := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
  --no-emit-find-links --custom-compile-command 'make lock'
# each set within the versions of the one before: what is tested is what is installed
lock:  ## Resolve the dependencies anew and write the hashed lock files (needs uv on PATH)
	@$(LOCK) pyproject.toml --output-file proxy/requirements/serve.txt
	@$(LOCK) --extra otel --constraints proxy/requirements/serve.txt pyproject.toml --output-file proxy/requirements/otel.txt
	@$(LOCK) --extra deploy --constraints proxy/requirements/serve.txt pyproject.toml --output-file proxy/requirements/deploy.txt
	@$(LOCK) --extra deploy --extra otel --group dev --constraints proxy/requirements/deploy.txt \
	  --constraints proxy/requirements/otel.txt pyproject.toml --output-file proxy/requirements/dev.txt
	@$(LOCK) tests/clients/requirements.in --output-file tests/clients/requirements.txt
	@echo huggingface-hub | $(LOCK) --constraints proxy/requirements/deploy.txt - \
	  --output-file roles/model_weights/files/hub-requirements.txt
	@$(LOCK) tests/bench/peers.in --output-file tests/bench/peers.txt

.PHONY: clean
clean:  ## Remove environments and caches (not what runs: see `make down`)
	@rm -rf $(VENV) $(CLIENTS) .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .ansible
