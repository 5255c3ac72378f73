# Two commands matter: `make demo` (watch it repair a repository) and `make test` (everything).
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
.NOTPARALLEL:

PYTHON ?= python3
# Extra pip arguments for torch alone, for example a smaller build without CUDA:
#   make setup TORCH_ARGS='--index-url https://download.pytorch.org/whl/cpu'
TORCH_ARGS ?=
# Extras of the package for make setup, for example: make setup EXTRAS=eval
EXTRAS ?=
# Extra pytest arguments, for example: make test PYTEST_ARGS='-k session'
PYTEST_ARGS ?=
# How many processes share the tests; 0 is this one alone, as a debugger wants it.
TEST_WORKERS ?= 2
# The example that the demo repairs; `ls examples` shows the others.
EXAMPLE ?=

VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check --no-input
# The stamp's name carries the folder: a tree that was moved or copied is installed anew.
PLACE := $(shell pwd | cksum | cut -d' ' -f1)
STAMP := $(VENV)/.installed-$(PLACE)
TEST_STAMP := $(VENV)/.tests-installed-$(PLACE)
PACKAGES := agent model kernels tools sandboxes evals
SOURCES := $(PACKAGES) tests benchmarks scripts

.PHONY: help setup dev editor-client system native docker image demo test coverage lint format clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

setup: system $(STAMP) native docker ## install what a user needs, in .venv; may be run again

dev: setup $(TEST_STAMP) editor-client ## install what the tests and checks need, too
	@scripts/setup-system chromium

system:
	@scripts/setup-system

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "error: Python 3.11 or newer is needed, $(PYTHON) is older; use make PYTHON=python3.11" >&2; exit 1; }
	@[ -x $(PY) ] && $(PY) -c 'import pip' 2>/dev/null || $(PYTHON) -m venv $(VENV)
	@echo "setup: installing torch (the first time this takes minutes)"
	@$(PIP) install -qq -c constraints.txt torch==$$(sed -n 's/^torch==//p' constraints.txt) $(TORCH_ARGS)
	@echo "setup: installing the project"
	@$(PIP) install -qq -c constraints.txt -e '.$(if $(EXTRAS),[$(EXTRAS)])'
	@rm -f $(VENV)/.installed-* && touch $@

$(TEST_STAMP): $(STAMP)
	@echo "setup: installing what the tests use"
	@$(PIP) install -qq -c constraints.txt -e '.[test]'
	@rm -f $(VENV)/.tests-installed-* && touch $@

editor-client: $(TEST_STAMP)
	@scripts/setup-editor-client

native: $(STAMP)
	@$(PY) -m kernels.native.build

docker:
	@scripts/start-docker || echo "setup: no Docker engine answers; use --sandbox bubblewrap, or start one" >&2

image: setup ## build the sandbox's base image unless it is there
	@$(PY) scripts/ensure_image.py

demo: image ## repair an example repository inside Docker and show every step
	@scripts/demo $(EXAMPLE)

test: dev image lint ## lint, type check and the whole test suite
	@OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(PY) -m pytest -q -n $(TEST_WORKERS) --dist loadfile $(PYTEST_ARGS)

coverage: dev image ## the whole test suite, and what part of the packages it runs
	@OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(PY) -m pytest -q -n $(TEST_WORKERS) --dist loadfile \
	  $(addprefix --cov=,$(PACKAGES)) --cov-report=term:skip-covered $(PYTEST_ARGS)

lint: $(TEST_STAMP) ## ruff and mypy only
	@$(PY) -m ruff check $(SOURCES)
	@$(PY) -m ruff format --check $(SOURCES)
	@$(PY) -m mypy

format: $(TEST_STAMP) ## let ruff sort imports and format
	@$(PY) -m ruff check --fix-only -q $(SOURCES)
	@$(PY) -m ruff format $(SOURCES)

clean: ## remove the environment and every cache
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
