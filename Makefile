# make demo            predict Ki-67 and IDH of a synthetic patient, and print the true values
# make test            run the tests
# make check           lint, types, imports, tests
# make docs            build the documentation site into build/site
# make install         install what predicts; make install-extras: also server, client and training
# make lock            renew requirements/
# make licences        renew docs/reference/licences.md
# make sbom            list the installed packages as CycloneDX
# make slow            run the tests of load, fuzzing and tutorials, and the cases that `make test` leaves out (an hour)
# make kills           interrupt every command with kill -9 (ten minutes)
# make battery         give broken and hostile inputs to every command (25 minutes)
# make fuzz            change the headers of every format at random (MINUTES=10 for each)
# make benchmark       measure predictions of a synthetic patient, old engine beside new (minutes)
# make clean           remove what these made
#
# Needs Python 3.11, 3.12 or 3.13, git and make. Everything is installed into .venv, once, from the lock files in
# requirements/: exact versions, and only files whose SHA-256 is listed there.

PYTHON ?= $(shell for python in python3.11 python3 python3.12 python3.13; do \
	$$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null \
	&& echo $$python && break; done)
PIP_OPTIONS ?=
PYTEST_OPTIONS ?= -n auto --dist loadscope --no-loadscope-reorder

BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
LOCKED := $(PIP) --require-hashes --only-binary :all: $(PIP_OPTIONS)

# The PyTorch build: "torch-cpu", a tenth of the size, if pip has an index with it; otherwise "torch".
CPU_BUILD := $(shell sed -n 's/^\(torch[^ ]*\).*/\1/p' requirements/torch-cpu.lock)
TORCH ?= $$($(PIP) --dry-run --no-deps $(PIP_OPTIONS) $(CPU_BUILD) >/dev/null 2>&1 && echo torch-cpu || echo torch)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install install-extras demo test benchmark lint check slow battery fuzz kills lock sbom licences docs clean

help:
	@sed -n 's/^# \{0,1\}//p; /^$$/q' Makefile

# The stamp files record the last installation, which is repeated only after a change of the requirements.
.venv/made:
	@test -n "$(PYTHON)" || { echo "gliomark needs Python 3.11, 3.12 or 3.13: install one of them or select it, as in 'make demo PYTHON=...'" >&2; exit 1; }
	$(PYTHON) -m venv --clear .venv
	@touch $@

# The package itself is installed last, with the locked build tools: nothing is downloaded outside the lock files.
define install
	@echo "Installing $(1) into .venv; the first time takes minutes."
	@$(LOCKED) $(3) $(patsubst %,-r requirements/%.lock,$(2))
	$(PIP) --no-deps --no-build-isolation --no-index -e .
endef
LOCKS := $(wildcard requirements/*.lock)

.venv/installed: .venv/made pyproject.toml $(LOCKS)
	$(call install,gliomark,base)
	@touch $@

.venv/installed-extras: .venv/made pyproject.toml $(LOCKS)
	$(call install,gliomark with all extras,base extras,-r requirements/$(TORCH).lock)
	@touch .venv/installed $@

.venv/installed-dev: .venv/made pyproject.toml $(LOCKS)
	$(call install,gliomark and its test dependencies,base extras dev,-r requirements/$(TORCH).lock)
	@$(BIN)/python -m pip uninstall --quiet --yes rfc3987-syntax # jsonschema works without; half of the import of MONAI
	@touch .venv/installed .venv/installed-extras $@

install: .venv/installed

install-extras: .venv/installed-extras

demo: .venv/installed
	rm -rf demo/patients demo/results
	$(BIN)/gliomark cohort phantom --out demo/patients --seed 2023
	$(BIN)/gliomark predict demo/patients/pictures --model synthetic --clinical demo/patients/clinical.csv --out demo/results
	$(BIN)/python scripts/show_truth.py demo/patients demo/results
	@for report in demo/results/*/report.html; do \
		test -f "$$report" && echo "Report: $$PWD/$$report" || exit 1; done

test: .venv/installed-dev
	$(BIN)/python -m pytest $(PYTEST_OPTIONS)

slow: .venv/installed-dev
	$(BIN)/python -m pytest -n0 -m slow

kills: .venv/installed-dev
	$(BIN)/python -m pytest -n0 -m kills tests/experiments/test_kills.py

battery: .venv/installed-dev
	$(BIN)/python -m tests.battery.run --out results/battery.csv --workers 2

MINUTES ?= 10
fuzz: .venv/installed-dev
	$(BIN)/python -m tests.battery.fuzz --minutes $(MINUTES) --out results/fuzz.csv

benchmark: .venv/installed-dev
	$(BIN)/python -m benchmarks.inference warm --out build/benchmark
	$(BIN)/python -m benchmarks.inference cold --out build/benchmark

lint: .venv/installed-dev
	$(BIN)/python -m ruff check
	$(BIN)/python -m ruff format --check
	$(BIN)/python -m mypy
	$(BIN)/lint-imports --no-cache

check: lint test

# uv and packaging are installed from the current locks; LOCK_OPTIONS="--upgrade-package NAME" or "--upgrade" renews versions.
lock: .venv/made
	@mkdir -p build
	@sed -n '/^\(uv\|packaging\)==/,/[^\\]$$/p' requirements/*.lock > build/lock-tools.txt
	$(LOCKED) -r build/lock-tools.txt
	$(BIN)/python scripts/lock.py $(LOCK_OPTIONS)

sbom: .venv/installed-dev
	$(BIN)/python scripts/sbom.py

licences: .venv/installed-dev
	$(BIN)/python scripts/licences.py

docs: .venv/installed-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

clean:
	rm -rf .venv demo build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
