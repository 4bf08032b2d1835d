# Needs python3 (3.11 or newer) and make; everything else goes into $(VENV).
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PARITY_VENV ?= .venv-parity
PARITY_BIN := $(PARITY_VENV)/bin
# Two processes: tests mostly compile, which takes one core. Small models run as fast without most of
# the compiler's work; all that is not `make test` runs on what it makes by default.
PARALLEL ?= -n 2 --dist loadfile
QUICK ?= XLA_FLAGS="--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
PIP_FLAGS ?= -q --disable-pip-version-check

.PHONY: help demo test test-slow test-parity test-parity-slow test-app examples docs package lint bench golden clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

$(VENV)/.run: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "dualcodec_jax needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install $(PIP_FLAGS) -e ".[demo]"
	touch $@

$(VENV)/.dev: $(VENV)/.run
	$(BIN)/pip install $(PIP_FLAGS) -e ".[dev,tokens,train]"
	touch $@

# The originals pin packages that cannot live beside current ones, hence --no-deps.
$(PARITY_VENV)/.ready: pyproject.toml
	$(PYTHON) -m venv $(PARITY_VENV)
	$(PARITY_BIN)/pip install $(PIP_FLAGS) torch==2.13.0
	$(PARITY_BIN)/pip install $(PIP_FLAGS) -e ".[dev,parity,train]"
	$(PARITY_BIN)/pip install $(PIP_FLAGS) --no-deps dualcodec==0.4.2 descript-audiotools==0.7.2 torchaudio==2.11.0
	touch $@

demo: $(VENV)/.run ## speech to codes and back, on a bundled recording
	$(BIN)/dualcodec-jax demo

test: $(VENV)/.dev ## the tests that need neither torch nor a network
	$(QUICK) $(BIN)/pytest tests --ignore=tests/parity --ignore=tests/browser --ignore=tests/examples -m "not slow" $(PARALLEL)

test-slow: $(VENV)/.dev ## the longer ones of these
	$(BIN)/pytest tests --ignore=tests/parity --ignore=tests/browser --ignore=tests/examples -m slow $(PARALLEL)

test-parity: $(PARITY_VENV)/.ready ## against the PyTorch originals (installs torch)
	$(PARITY_BIN)/pytest tests/parity -m "not slow" $(PARALLEL)

test-parity-slow: $(PARITY_VENV)/.ready ## the longer ones of these
	$(PARITY_BIN)/pytest tests/parity -m slow

$(VENV)/.app: $(VENV)/.dev
	$(BIN)/pip install $(PIP_FLAGS) -e ".[app,browser]"
	touch $@

$(VENV)/.docs: $(VENV)/.dev
	$(BIN)/pip install $(PIP_FLAGS) -e ".[docs]"
	touch $@

$(VENV)/.notebook: $(VENV)/.dev
	$(BIN)/pip install $(PIP_FLAGS) -e ".[notebook]"
	touch $@

test-app: $(VENV)/.app ## the app in a headless browser (needs chromium and chromium-driver)
	$(BIN)/pytest tests/browser

examples: $(VENV)/.notebook ## the notebook and the example scripts, shortened
	$(BIN)/pytest tests/examples

docs: $(VENV)/.docs ## the documentation, as build/docs/index.html; its snippets are run
	$(BIN)/sphinx-build -W --keep-going -q -b doctest docs build/docs/doctest
	$(BIN)/sphinx-build -W --keep-going -q -b html docs build/docs

package: $(VENV)/.dev ## wheel and sdist in dist/, each installed into a new environment and tested
	$(BIN)/python packaging/check.py

lint: $(VENV)/.dev ## style, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(PARITY_VENV)/.ready ## speed beside the PyTorch originals; BENCH="--model 12hz_v1 --batch 4"
	$(PARITY_BIN)/python benchmarks/codec_speed.py $(BENCH)

golden: $(PARITY_VENV)/.ready ## rewrite the golden files from the PyTorch originals
	$(PARITY_BIN)/python tests/golden/make_golden.py

clean: ## remove environments and caches
	rm -rf $(VENV) $(PARITY_VENV) .cache .pytest_cache .ruff_cache .mypy_cache .hypothesis demo_output
