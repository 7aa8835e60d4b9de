# Two commands from a fresh clone: `make demo` trains a network and analyses it, `make test` checks and tests everything.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt
# What an installation is made of; changed Python sources need none.
KERNELS := $(wildcard ctrnn/native/src/*.cpp ctrnn/native/src/*.h ctrnn/native/src/*.hpp ctrnn/native/src/CMakeLists.txt)
INPUTS := pyproject.toml constraints.txt $(KERNELS)
SANITIZED := build/sanitized

.PHONY: demo test figures sanitize bench

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

# On every core, about a quarter of an hour.
bench: $(VENV)/.installed-bench
	$(BIN)/python -m benchmarks

# The kernels' own tests on a library that stops at any access out of bounds; every warning of the compiler is an error.
sanitize: $(VENV)/.installed-test
	@if ! echo 'int main() {}' | $(CXX) -x c++ -fsanitize=address,undefined -o /dev/null - 2>/dev/null; then \
		echo "SKIPPED sanitize: $(CXX) has no runtime of AddressSanitizer and UndefinedBehaviorSanitizer"; exit; \
	fi; \
	set -e; \
	isa=$$($(BIN)/python -c 'import sys, ctrnn.native.library as native; print(native.instruction_set()); sys.exit(native.missing())'); \
	$(BIN)/cmake --fresh -S ctrnn/native/src -B $(SANITIZED) -DCTRNN_SANITIZE=$$isa -DCMAKE_CXX_COMPILER=$(CXX); \
	$(BIN)/cmake --build $(SANITIZED) --parallel 2; \
	runtimes=$$(ldd $(SANITIZED)/libctrnn.so | awk '/lib(asan|stdc\+\+)/ {printf "%s:", $$3}'); \
	CTRNN_LIBRARY=$(SANITIZED)/libctrnn.so LD_PRELOAD="$$runtimes" ASAN_OPTIONS=detect_leaks=0 OMP_NUM_THREADS=1 \
		$(BIN)/python -m pytest -n 2 -m "not slow" $(filter-out %_build.py,$(wildcard tests/test_native_*.py))

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

# pytorch-dnc asks for a package that nothing in it needs.
$(VENV)/.installed-bench: $(INPUTS) | $(BIN)/python
	$(INSTALL) -e '.[bench]'
	$(INSTALL) --no-deps dnc
	touch $(VENV)/.installed $@
