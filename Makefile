# make demo: venv, install, and the main job. make test: everything CI checks. Both start from nothing.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEVKIT := $(VENV)/devkit

.PHONY: demo test check bench-quick format clean

demo: $(VENV)/.installed
	$(BIN)/dualdistill demo

test: check $(DEVKIT)/.installed
	OMP_NUM_THREADS=1 DUALDISTILL_DEVKIT_PYTHON=$(abspath $(DEVKIT))/bin/python $(BIN)/python -m pytest -n auto --dist loadfile

check: $(VENV)/.installed-test
	$(BIN)/ruff format --check src tests benchmarks tools
	$(BIN)/ruff check src tests benchmarks tools
	$(BIN)/mypy
	PYTHONPATH=. $(BIN)/lint-imports
	$(BIN)/python tools/check_references.py

# Speed and memory at small sizes: to look at, never to fail by.
bench-quick: $(VENV)/.installed
	$(BIN)/python -m benchmarks --all --quick

format: $(VENV)/.installed-test
	$(BIN)/ruff format src tests benchmarks tools
	$(BIN)/ruff check --fix src tests benchmarks tools

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit("dualdistill needs Python 3.11 or newer, this is " + sys.version.split()[0] + ": make PYTHON=/path/to/python3.11") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	@echo "Installing into $(VENV) (PyTorch is large: some minutes the first time)"
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	@touch $@

# The official nuScenes devkit needs numpy < 2, so it lives in an environment of its own and is run as a program.
$(DEVKIT)/.installed: | $(BIN)/python
	$(BIN)/python -m venv $(DEVKIT)
	$(DEVKIT)/bin/python -m pip install --quiet nuscenes-devkit==1.2.0
	@touch $@

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
