# `make demo` and `make test` need nothing but Python 3.11 and a package index.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   ?= .venv
BIN    := $(VENV)/bin

.PHONY: demo test lint types soak clean

demo: $(VENV)/.installed
	$(BIN)/vrprm-reward score examples/shapes/rollouts.jsonl

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(VENV)/.installed-dev
	$(BIN)/mypy

# By hand, on a machine that does nothing else; results go to benchmarks/results.
soak: $(VENV)/.installed-dev
	$(BIN)/python -m benchmarks.soak_jobs

# torch comes first and pinned: an unpinned torch pulls a CUDA build of several gigabytes.
$(VENV)/.installed: pyproject.toml requirements/torch.txt requirements/local.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements/torch.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements/local.txt -e .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed requirements/server.txt requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements/server.txt -r requirements/dev.txt
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
