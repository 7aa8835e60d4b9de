# Two commands from a fresh clone: `make demo` trains a network and analyses it, `make test` checks and tests everything.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt
INPUTS := pyproject.toml constraints.txt

.PHONY: demo test figures

demo: $(VENV)/.installed
	$(BIN)/ctrnn run flipflop

figures: $(VENV)/.installed-scenarios
	$(BIN)/ctrnn figures

# One torch thread per worker: two workers share two cores.
test: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { echo "There is no $(PYTHON): install Python 3.11, or say make PYTHON=/path/to/python" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit(f"ctrnn needs Python 3.11 or newer, and {sys.executable} is {sys.version.split()[0]}: say make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)

# The checkout itself is installed (-e), so that neither command reinstalls anything when only sources have changed.
$(VENV)/.installed: $(INPUTS) | $(BIN)/python
	$(INSTALL) -e .
	touch $@

# What some scenarios read or compare with.
$(VENV)/.installed-scenarios: $(INPUTS) | $(BIN)/python
	$(INSTALL) -e '.[scenarios]'
	touch $(VENV)/.installed $@

$(VENV)/.installed-test: $(INPUTS) | $(BIN)/python
	$(INSTALL) -e '.[test]'
	touch $(VENV)/.installed $(VENV)/.installed-scenarios $@
