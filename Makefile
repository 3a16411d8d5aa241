# Everything lives in .venv, made once from constraints.txt. The two commands to know: make run, make test.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Three tests at a time on two cores, since many wait for processes; who is done early takes over from the others.
PYTEST := $(BIN)/python -m pytest -q --numprocesses 3 --dist worksteal
# Where the environment forbids to keep what Python compiles, every process of a test would compile all again.
unexport PYTHONDONTWRITEBYTECODE
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: run test test-all check lint bench clean

run: $(VENV)/.ready  ## baselines and 8 candidates at the micro preset, in ./lab
	$(BIN)/asi-lab --no-tui --preset micro --experiments 8

test: $(VENV)/.ready-dev  ## the fast tests, 10 to 30 minutes on two cores
	$(PYTEST)

test-all: $(VENV)/.ready-dev  ## slow ones too
	$(PYTEST) -m "slow or not slow"

check: lint test  ## before each commit

lint: $(VENV)/.ready-dev  ## lint, format, types, who imports whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.ready-dev  ## the measurements in docs/ that take minutes, as tables
	$(BIN)/python benchmarks/errors.py
	$(BIN)/python benchmarks/delta_rule.py
	$(BIN)/python benchmarks/training.py
	$(BIN)/python benchmarks/store.py
	$(BIN)/python benchmarks/retrieval.py
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/zoo.py
	$(BIN)/python benchmarks/sandbox.py
	$(BIN)/python benchmarks/slots.py
	$(BIN)/python benchmarks/moderation.py
	$(BIN)/python benchmarks/faults.py --fast

clean:  ## remove the environment and caches; labs stay
	rm -rf $(VENV) *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

# torch first and alone: pinned exactly, pip finds a local wheel where one is configured.
# Annoy has no wheel and needs a C++ compiler; without it search is exact (asi-lab doctor says so).
$(VENV)/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; say which with: make PYTHON=python3.11" >&2; exit 1; }
	@echo "Installing into $(VENV); the first time takes a few minutes." >&2
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch==2.13.0
	$(PIP) --editable .
	@$(PIP) annoy >$(VENV)/annoy.log 2>&1 || echo "Annoy could not be built; search will be exact." >&2
	@touch $@

$(VENV)/.ready-dev: $(VENV)/.ready
	$(PIP) --editable ".[dev]"
	@touch $@
