# One word each; `make help` says what they do. PYTHON names the interpreter to begin from.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest -n 3

# As root on Linux every test can run: one that can't is a failure, not a skip.
REQUIRE := $(shell [ "$$(id -u)" = 0 ] && echo --require-runc)

# Files or folders of tests for `make test` and `make proof`; all of them if none is named.
TESTS ?=

# What `make live` runs on: the host's own runc, and what `make runtimes` has brought.
RUNTIMES ?= runc $(wildcard $(foreach name,runc crun runsc,$(CURDIR)/runtimes/$(name)-*/$(name)))

# runsc creates no cgroup where a controller is missing, as there.
RUNTIMES_CGROUP2 ?= $(filter-out %/runsc,$(RUNTIMES))

.DEFAULT_GOAL := help
.PHONY: help demo test proof style types mypy pyright public-types complete-types unit live cgroup2 lowest wheel debian \
	runtimes docs bench bench-peers bench-quick soak sweep fuzz clean host test-host

help: ## say what the targets do
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# The tests start Python some hundred times; a module that has to be compiled for each costs more than what they try.
export PYTHONDONTWRITEBYTECODE :=

# What is made is remembered in stamp files, so that a second run is quick.
$(VENV)/.ready: pyproject.toml tools/setup-venv.sh tools/setup-common.sh
	@PYTHON="$(PYTHON)" tools/setup-venv.sh $(VENV)
	@touch $@

$(VENV)/.ready-dev: pyproject.toml tools/setup-venv.sh tools/setup-common.sh
	@PYTHON="$(PYTHON)" tools/setup-venv.sh $(VENV) dev
	@touch $@ $(VENV)/.ready

host:
	@tools/setup-host.sh

test-host:
	@tools/setup-host.sh test

demo: $(VENV)/.ready host ## run a first container: create, start, exec, look, kill, delete
	@$(BIN)/python -m runc_async
	@$(BIN)/python examples/quickstart.py

test: $(VENV)/.ready-dev $(if $(REQUIRE),test-host) ## all checks in some minutes: style, types, tests, a sample of each proof
	@$(MAKE) --no-print-directory -j 2 --output-sync=target style mypy public-types
	-@$(if $(REQUIRE),$(BIN)/python tools/runtimes.py)
	$(PYTEST) $(REQUIRE) $(TESTS)

proof: $(VENV)/.ready-dev $(if $(REQUIRE),test-host) ## every test with all that the proofs have, a table of it, coverage, all types: half an hour
	$(if $(TESTS),,@$(MAKE) --no-print-directory types)
	-@$(if $(REQUIRE),$(BIN)/python tools/runtimes.py)
	$(PYTEST) --proof $(if $(TESTS),,--cov) $(REQUIRE) $(TESTS)

style: $(VENV)/.ready-dev ## lint and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: mypy pyright complete-types ## mypy, pyright, and how complete the public types are

mypy: $(VENV)/.ready-dev
	$(BIN)/mypy

pyright: $(VENV)/.ready-dev
	$(BIN)/pyright

# What users see. The tests and tools take pyright twice as long, and mypy has read them.
public-types: $(VENV)/.ready-dev complete-types
	$(BIN)/pyright runc_async examples docs

complete-types: $(VENV)/.ready-dev
	PATH="$(CURDIR)/$(BIN):$$PATH" pyright --verifytypes runc_async --ignoreexternal

unit: $(VENV)/.ready-dev ## the tests that need no runtime
	$(PYTEST) -m "not runc"

wheel: $(VENV)/.ready-dev ## the unit tests with the wheel that a release would have, installed as a user does
	@tools/test-wheel.sh

lowest: $(VENV)/.ready-dev ## the same with the lowest versions of other libraries that pyproject.toml admits
	@tools/test-wheel.sh lowest

# The suites whose Python is another one: trixie has 3.13, forky 3.14.
SUITE ?= trixie

debian: ## the demo, the unit tests and some live ones in a bare Debian: SUITE=trixie or forky
	@tools/debian.sh $(SUITE)

runtimes: $(VENV)/.ready-dev ## bring newer runtimes and criu into runtimes/, from Debian's archive
	@$(BIN)/python tools/runtimes.py

live: $(VENV)/.ready-dev test-host ## the tests that run real containers, on each runtime that is there
	@for runtime in $(RUNTIMES); do \
		echo "== $$runtime"; $(PYTEST) -m runc --require-runc --runtime $$runtime tests/live || exit; \
	done

cgroup2: $(VENV)/.ready-dev test-host ## the same where cgroup v2 is all there is, in a private mount namespace
	@for runtime in $(RUNTIMES_CGROUP2); do \
		echo "== $$runtime"; tools/cgroup2.sh $(PYTEST) -m runc --require-runc --runtime $$runtime tests/live || exit; \
	done

docs: $(VENV)/.ready-dev $(if $(REQUIRE),test-host) ## write the reference and the table of features, draw the rooms, build the site into build/docs, run every example
	@mkdir -p build
	$(BIN)/python tools/reference.py > build/reference.md && mv build/reference.md docs/reference/index.md
	$(BIN)/python tools/feature_table.py > build/README.md && mv build/README.md README.md
	$(BIN)/python tools/rooms.py > build/rooms.svg && mv build/rooms.svg docs/topics/rooms.svg
	$(BIN)/python -m sphinx -W --keep-going -n -q -E -b html -d build/doctrees docs build/docs
	$(PYTEST) $(REQUIRE) tests/project/test_readme.py tests/project/test_docs.py

$(VENV)/.ready-bench: pyproject.toml tools/setup-venv.sh tools/setup-common.sh
	@PYTHON="$(PYTHON)" tools/setup-venv.sh $(VENV) bench
	@touch $@ $(VENV)/.ready

# A peer that can't be had is left out, and its rows say so.
bench-peers:
	-@if ! command -v cc || ! command -v go || ! [ -d /usr/share/gocode/src/github.com/containerd/go-runc ]; then \
		. tools/setup-common.sh; install_packages gcc libc6-dev golang-go golang-github-containerd-go-runc-dev; \
	fi >/dev/null

bench: $(VENV)/.ready-bench host bench-peers ## measure runc_async beside others; a table, build/bench.json and build/bench.png
	@mkdir -p build
	@$(BIN)/python -m bench --json build/bench.json --plot build/bench.png

bench-quick: $(VENV)/.ready host bench-peers ## the same in two minutes; fails if a ratio is much worse than its bar
	@$(BIN)/python -m bench --quick --guard

soak: $(VENV)/.ready-bench host ## ten minutes of random operations on real containers; draws build/soak.png
	@mkdir -p build
	@PYTHONPATH=tests/support $(BIN)/python tests/proof/soak.py --plot build/soak.png --json build/soak.json $(SOAK)

sweep: $(VENV)/.ready-dev test-host ## every call cut short at every step, in every way, and every death of a runtime, 100,000 files of a hostile container: an hour
	-@$(BIN)/python tools/runtimes.py
	SWEEP_ALL=1 $(PYTEST) --proof --require-runc --timeout 1200 \
		tests/proof/test_cancel_sweep.py tests/proof/test_live_cancel_sweep.py tests/proof/test_misbehaving.py
	RUNC_ASYNC_ATTEMPTS=50000 $(PYTEST) --require-runc --timeout 3600 tests/live/test_files.py -k hostile

$(VENV)/.ready-fuzz: pyproject.toml tools/setup-venv.sh tools/setup-common.sh
	@PYTHON="$(PYTHON)" tools/setup-venv.sh $(VENV) fuzz
	@touch $@ $(VENV)/.ready

fuzz: $(VENV)/.ready-fuzz ## five minutes of fuzzing what reads foreign bytes, guided by coverage
	@$(BIN)/python tools/fuzz.py $(FUZZ)

clean: ## remove what the targets made in this checkout
	rm -rf $(VENV) .cache .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
