# Each target sets up what it needs in .venv by itself; the second time there is nothing left to set up.
# PYTHON=/path/to/python3.12 chooses another Python for .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip -qq --disable-pip-version-check
PINNED := pyproject.toml constraints.txt
TESTS_AT_A_TIME ?= 2
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(TESTS_AT_A_TIME) --dist loadfile

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo app notebooks test test-all lint bench doctor clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' Makefile

demo: $(VENV)/.use ## features, baseline, fine-tuning, evaluation and a before/after table, on real Spanish speech
	$(BIN)/lengua demo

app: $(VENV)/.use ## serve the app: speak or upload, and read what was said
	$(BIN)/python app.py

notebooks: $(VENV)/.dev ## run all notebooks from top to bottom, and keep what their tagged cells show
	$(BIN)/python benchmarks/record_notebooks.py

test: $(VENV)/.dev ## run the tests of every invariant, in minutes; as many files at a time as TESTS_AT_A_TIME says (2)
	$(PYTEST) -m "not slow and not real"

test-all: test ## and then the rest: browser, notebooks, Ray, real weights and real speech, other programs
	$(PYTEST) -m "slow or real"

lint: $(VENV)/.lint ## check style and formatting with ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench: $(VENV)/.bench ## measure a finished demo against the usual ways: speed, training, Common Voice, every program
	$(BIN)/python benchmarks/inference.py
	$(BIN)/python benchmarks/training.py
	$(BIN)/python benchmarks/common_voice.py
	$(BIN)/python benchmarks/parity.py
	$(BIN)/python benchmarks/hour.py
	$(BIN)/python benchmarks/silence.py

doctor: $(VENV)/.core ## tell what this machine has, what is missing, and what to do about it
	$(BIN)/lengua doctor

clean: ## remove .venv and caches; runs/ and stores/ stay
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The environment, in layers. A layer's stamp is older than its pins: pip looks again and changes only what differs.
# Once torch is in place nothing pins it any more, so that whichever torch is there stays.

$(VENV)/.use: $(VENV)/.torch $(PINNED)
	@echo "lengua with [train] and [app] into $(VENV) (a minute or two the first time)"
	@grep -v '^torch==' constraints.txt > $(VENV)/constraints.txt
	@$(PIP) install --constraint $(VENV)/constraints.txt --editable '.[train,app]'
	@touch $@ $(VENV)/.core

$(VENV)/.dev: $(VENV)/.use $(PINNED)
	@echo "tools for tests and notebooks into $(VENV) (a minute the first time)"
	@$(PIP) install --constraint $(VENV)/constraints.txt --editable '.[dev]'
	@touch $@

$(VENV)/.bench: $(VENV)/.dev $(PINNED)
	@echo "other programs to measure against into $(VENV)"
	@$(PIP) install --constraint $(VENV)/constraints.txt --editable '.[bench]'
	@touch $@

$(VENV)/.core: $(VENV)/.python $(PINNED)
	@echo "lengua without torch into $(VENV)"
	@$(PIP) install --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.lint: $(VENV)/.python $(PINNED)
	@$(PIP) install --constraint constraints.txt ruff
	@touch $@

$(VENV)/.torch: $(VENV)/.python $(PINNED)
	@echo "torch for this machine into $(VENV) (200 MB without a GPU, gigabytes with one)"
	@$(BIN)/python -m lengua.runtime.install_torch --constraint constraints.txt
	@touch $@

# Debian keeps part of venv in python3-venv. Where that is missing, the environment is made without pip, and the pip
# that is here puts one in. pip 25.3 is the first that looks at torch without fetching it.
$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "expected Python 3.11 or newer;" \
	  "found $$($(PYTHON) --version 2>&1); run make again with PYTHON=/path/to/a/newer/python3" >&2; exit 1; }
	@$(BIN)/python -m pip --version > /dev/null 2>&1 || $(PYTHON) -m venv $(VENV) > /dev/null 2>&1 || \
	  { $(PYTHON) -m venv --without-pip $(VENV) && \
	    $(PYTHON) -m pip -qq --python $(BIN)/python install pip; } > /dev/null 2>&1 || \
	  { echo "expected a Python that makes environments; found that $(PYTHON) -m venv fails here;" \
	  "run apt install python3-venv, then make again" >&2; exit 1; }
	@$(PIP) install --upgrade 'pip>=25.3'
	@touch $@
