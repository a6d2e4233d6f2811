# make demo    predict a synthetic patient        make test    run the tests
# make check   lint, types, imports, tests        make clean   remove what these made
#
# Needs Python 3.11 (or 3.12), git and make. Everything is installed into .venv, once.

PYTHON ?= $(shell for python in python3.11 python3 python3.12; do \
	$$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' 2>/dev/null \
	&& echo $$python && break; done)
PIP_OPTIONS ?=
PYTEST_OPTIONS ?= -n auto --dist loadscope

BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt $(PIP_OPTIONS)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test lint check clean

help:
	@sed -n 's/^# \{0,1\}//p; /^$$/q' Makefile

# A stamp is as old as the last install; it is made again only when what to install has changed.
.venv/made:
	@test -n "$(PYTHON)" || { echo "gliomark needs Python 3.11 or 3.12: install it, or name it as in 'make demo PYTHON=...'" >&2; exit 1; }
	$(PYTHON) -m venv --clear .venv
	@touch $@

.venv/installed: .venv/made pyproject.toml constraints.txt
	@echo "Installing gliomark into .venv; the first time takes minutes."
	$(INSTALL) -e .
	@touch $@

.venv/installed-dev: .venv/made pyproject.toml constraints.txt
	@echo "Installing gliomark and its tests' needs into .venv; the first time takes minutes."
	$(INSTALL) -e ".[dev]"
	@touch .venv/installed $@

demo: .venv/installed
	rm -rf demo/patients demo/results
	$(BIN)/gliomark cohort phantom --out demo/patients --seed 7
	$(BIN)/gliomark predict demo/patients/pictures --clinical demo/patients/clinical.csv --out demo/results
	@for report in demo/results/*/report.html; do \
		test -f "$$report" && echo "Report: $$PWD/$$report" || exit 1; done

test: .venv/installed-dev
	$(BIN)/python -m pytest $(PYTEST_OPTIONS)

lint: .venv/installed-dev
	$(BIN)/python -m ruff check
	$(BIN)/python -m ruff format --check
	$(BIN)/python -m mypy
	$(BIN)/lint-imports --no-cache

check: lint test

clean:
	rm -rf .venv demo build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
