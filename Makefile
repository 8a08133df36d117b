# `make demo` and `make test` each set up everything they need in .venv first. Requires python3 >= 3.11 with venv.
# Another interpreter: make test PYTHON=/path/to/python3.12

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint format lock clean

help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(STAMP) ## Grow crystals with the shipped weights (out/grown); encode, rebuild and draw the bundled ones (out/demo).
	$(BIN)/nucleate generate --formula SrTiO3 -n 8 --seed 0 --out out/grown
	$(BIN)/nucleate demo --out out/demo

# One thread in each of the two processes: more would share the same cores, and take longer.
test: $(STAMP) ## Run the whole test suite.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(STAMP) ## Check style, types and the direction of the imports.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: $(STAMP) ## Put the code into the project's format.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

setup: $(STAMP) ## Only the set-up.

# The stamp is newer than what it was built from, so that a second run starts at once. The source is installed
# editable: a changed source file needs no new set-up.
$(STAMP): pyproject.toml requirements.lock scripts/install_torch.py
	@$(PYTHON) -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "nucleate needs python3 >= 3.11 with venv (Debian, Ubuntu: apt install python3-venv), found: $$($(PYTHON) --version 2>&1 | tail -1). Name another one with: make PYTHON=/path/to/python" >&2; exit 1; }
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'pip>=24'
	$(BIN)/python scripts/install_torch.py requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint requirements.lock --editable '.[dev]'
	touch $@

lock: $(STAMP) ## Resolve every dependency afresh into requirements.lock (another torch: make lock TORCH=2.14.0).
	$(BIN)/python scripts/lock.py requirements.lock $(if $(TORCH),--torch $(TORCH))

clean: ## Remove .venv, caches and everything the targets wrote.
	rm -rf $(VENV) out dist build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
