# One word each. `make help` says what they do.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
SOURCES := runc_async tests examples bench tools

.DEFAULT_GOAL := help
.PHONY: help demo test style types unit live docs bench clean

help: ## say what the targets do
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-6s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(READY)-run: pyproject.toml tools/setup-venv.sh
	@PYTHON="$(PYTHON)" tools/setup-venv.sh "$(VENV)"
	@touch $@

$(READY)-dev: $(READY)-run
	@PYTHON="$(PYTHON)" tools/setup-venv.sh "$(VENV)" dev
	@touch $@

demo: $(READY)-run ## run a first container: bundle, create, start, exec, stats, kill, delete
	@tools/setup-host.sh
	@$(BIN)/python examples/quickstart.py

style: $(READY)-dev ## lint and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)-dev ## mypy, pyright, and the completeness of the public types
	$(BIN)/mypy
	$(BIN)/pyright
	$(BIN)/pyright --verifytypes runc_async --ignoreexternal

unit: $(READY)-dev ## the tests that need no runtime
	$(BIN)/python -m pytest -n 2 -m "not runc" tests

clean: ## remove what the targets made inside the checkout
	rm -rf $(VENV) .cache .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist docs/_build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
