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
STAMP := $(VENV)/.installed-$(shell pwd | cksum | cut -d' ' -f1)
SOURCES := agent model kernels tools sandboxes evals tests benchmarks scripts

.PHONY: help setup editor-client system native docker image demo test lint format clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

setup: system $(STAMP) editor-client native docker ## install what is needed, in .venv; may be run again

system:
	@scripts/setup-system

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "error: Python 3.11 or newer is needed, $(PYTHON) is older; use make PYTHON=python3.11" >&2; exit 1; }
	@[ -x $(PY) ] && $(PY) -c 'import pip' 2>/dev/null || $(PYTHON) -m venv $(VENV)
	@echo "setup: installing torch (the first time this takes minutes)"
	@$(PIP) install -qq -c constraints.txt torch==$$(sed -n 's/^torch==//p' constraints.txt) $(TORCH_ARGS)
	@echo "setup: installing the project and what its tests use"
	@$(PIP) install -qq -c constraints.txt -e '.[test]'
	@rm -f $(VENV)/.installed-* && touch $@

editor-client: $(STAMP)
	@scripts/setup-editor-client

native: $(STAMP)
	@$(PY) -m kernels.native.build

docker:
	@scripts/start-docker || echo "setup: no Docker engine answers; use --sandbox bubblewrap, or start one" >&2

image: setup ## build the sandbox's base image unless it is there
	@$(PY) scripts/ensure_image.py

demo: image ## repair an example repository inside Docker and show every step
	@scripts/demo $(EXAMPLE)

test: image lint ## lint, type check and the whole test suite
	@OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(PY) -m pytest -q -n $(TEST_WORKERS) --dist loadfile $(PYTEST_ARGS)

lint: $(STAMP) ## ruff and mypy only
	@$(PY) -m ruff check $(SOURCES)
	@$(PY) -m ruff format --check $(SOURCES)
	@$(PY) -m mypy

format: $(STAMP) ## let ruff sort imports and format
	@$(PY) -m ruff check --fix-only -q $(SOURCES)
	@$(PY) -m ruff format $(SOURCES)

clean: ## remove the environment and every cache
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
