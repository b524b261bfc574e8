# make demo: venv, install, and the main job. make test: everything CI checks. Both start from nothing.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEVKIT := $(VENV)/devkit

.PHONY: demo test check soak bench-quick gpu-check format docs linkcheck lock clean

demo: $(VENV)/.installed
	$(BIN)/dualdistill demo

test: check $(DEVKIT)/.installed
	OMP_NUM_THREADS=1 DUALDISTILL_DEVKIT_PYTHON=$(abspath $(DEVKIT))/bin/python $(BIN)/python -m pytest -n auto --dist loadfile

check: $(VENV)/.installed-test
	$(BIN)/ruff format --check src tests benchmarks studies examples docs tools
	$(BIN)/ruff check src tests benchmarks studies examples docs tools
	$(BIN)/mypy
	PYTHONPATH=. $(BIN)/lint-imports
	$(BIN)/python tools/check_references.py

# The long forms of tests/robust: 40 kills, one and two processes, and many damaged files.
soak: $(VENV)/.installed-test
	ROBUST_KILLS=40 ROBUST_EXAMPLES=2000 OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/robust -n 0

# Speed and memory at small sizes: to look at, never to fail by.
bench-quick: $(VENV)/.installed
	$(BIN)/python -m benchmarks --all --quick

# Whether this machine's GPU computes what a CPU does, and how fast it trains: some minutes, report in build/gpu-check.
gpu-check: $(VENV)/.installed
	$(BIN)/python tools/gpu_check.py

format: $(VENV)/.installed-test
	$(BIN)/ruff format src tests benchmarks studies examples docs tools
	$(BIN)/ruff check --fix src tests benchmarks studies examples docs tools

# The documentation site, in build/docs; a warning is an error. External links need the network and are checked apart.
docs: $(VENV)/.installed-docs
	rm -rf docs/api  # generated; pages of removed modules would stay
	$(BIN)/python -m sphinx -W --keep-going -q docs build/docs
	@echo "open build/docs/index.html"

linkcheck: $(VENV)/.installed-docs
	$(BIN)/python -m sphinx -b linkcheck -q docs build/linkcheck

# The versions that were tested, from the environment that ran the tests.
lock: $(VENV)/.installed-test
	@echo "# Versions this project was tested with: pip install -c requirements/tested.txt dualdistill. Made by \`make lock\`." > requirements/tested.txt
	$(BIN)/python -m pip freeze --exclude-editable >> requirements/tested.txt

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit("dualdistill needs Python 3.11 or newer, this is " + sys.version.split()[0] + ": make PYTHON=/path/to/python3.11") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	@echo "Installing into $(VENV) (PyTorch is large: some minutes the first time)"
	$(BIN)/python -m pip install --quiet --editable '.[synthetic]'
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	@touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	@touch $@

# The official nuScenes devkit needs numpy < 2, so it lives in an environment of its own and is run as a program.
$(DEVKIT)/.installed: | $(BIN)/python
	$(BIN)/python -m venv $(DEVKIT)
	$(DEVKIT)/bin/python -m pip install --quiet nuscenes-devkit==1.2.0
	@touch $@

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
