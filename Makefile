# `make demo` and `make test` need nothing but Python 3.11 and a package index.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   ?= .venv
BIN    := $(VENV)/bin

# Processes that `make test` uses.
TEST_WORKERS ?= 2

# `make integration` needs an environment of its own: vLLM, verl, OpenRLHF and TRL in one.
INTEGRATION_VENV  ?= .venv-integration
INTEGRATION_BIN   := $(INTEGRATION_VENV)/bin
INTEGRATION_PARTS := $(shell find requirements/integration tests/integration/environment -type f)

.PHONY: demo test lint types integration soak clean

demo: $(VENV)/.installed
	$(BIN)/vrprm-reward score examples/shapes/rollouts.jsonl

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n $(TEST_WORKERS) --dist worksteal

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(VENV)/.installed-dev
	$(BIN)/mypy

integration: $(INTEGRATION_VENV)/.installed
	PYTHONPATH=$(CURDIR):$(CURDIR)/adapters $(INTEGRATION_BIN)/python -m pytest tests/integration

# Load and kill -9, by hand on a machine that does nothing else (half an hour and more); figures go
# to benchmarks/results.
soak: $(INTEGRATION_VENV)/.installed $(VENV)/.installed-dev
	$(INTEGRATION_BIN)/python -m benchmarks.soak_server
	$(INTEGRATION_BIN)/python -m benchmarks.soak_replicas
	PYTHONPATH=$(CURDIR):$(CURDIR)/adapters $(INTEGRATION_BIN)/python -W ignore -m benchmarks.verl_rows
	$(BIN)/python -m benchmarks.soak_jobs

# torch comes first and pinned: an unpinned torch pulls a CUDA build of several gigabytes.
$(VENV)/.installed: pyproject.toml vrprm_reward/version.py requirements/torch.txt requirements/local.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements/torch.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements/local.txt -e .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed requirements/server.txt requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements/server.txt -r requirements/dev.txt
	touch $@

# vLLM pulls two packages whose builds break transformers' import beside a CPU torch. deepspeed is
# built without compiling anything. The folder `site` holds what stands in for CUDA parts.
$(INTEGRATION_VENV)/.installed: $(INTEGRATION_PARTS)
	$(PYTHON) -m venv $(INTEGRATION_VENV)
	$(INTEGRATION_BIN)/python -m pip install --quiet --disable-pip-version-check \
	  -r requirements/integration/packages.txt -c requirements/integration/constraints.txt
	$(INTEGRATION_BIN)/python -m pip uninstall --quiet --yes torchaudio torchcodec
	DS_BUILD_OPS=0 $(INTEGRATION_BIN)/python -m pip install --quiet --disable-pip-version-check \
	  --no-deps --no-build-isolation -r requirements/integration/frameworks.txt
	cp -r tests/integration/environment/site/. \
	  "$$($(INTEGRATION_BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
	touch $@

clean:
	rm -rf $(VENV) $(INTEGRATION_VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
