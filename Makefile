# Two commands matter: `make demo` and `make test`. Both set up .venv with the tested versions first.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check

.PHONY: demo test test-slow test-cluster test-real lint format benchmark explorer docs clean

demo: $(VENV)/.demo
	$(BIN)/unifeat demo

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not real and not gpu and not cluster and not slow"

test-slow: $(VENV)/.dev $(VENV)/.docs
	$(BIN)/python -m pytest -n auto --dist worksteal -m "slow and not gpu" --durations=12

test-cluster: $(VENV)/.dev
	$(BIN)/python -m pytest -m cluster

test-real: $(VENV)/.dev $(VENV)/.demo $(VENV)/.docs
	$(BIN)/python -m pytest -m real --durations=12

lint: $(VENV)/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(VENV)/.dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

benchmark: $(VENV)/.dev
	$(BIN)/python benchmarks/correlation.py
	$(BIN)/python benchmarks/permutations.py

explorer:
	cd explorer && npm ci --no-audit --no-fund && npm run build

$(VENV)/.installed: pyproject.toml requirements/constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) -c requirements/constraints.txt torch==2.13.0
	$(PIP) -c requirements/constraints.txt --editable .
	touch $@

$(VENV)/.dev: $(VENV)/.installed requirements/oracles.txt
	$(PIP) -c requirements/constraints.txt --editable '.[dev]'
	$(PIP) --no-deps -r requirements/oracles.txt
	touch $@

$(VENV)/.demo: $(VENV)/.installed src/unifeat/demo/packages.txt packages/demo-saes/pyproject.toml
	$(PIP) --no-deps -r src/unifeat/demo/packages.txt
	$(PIP) --no-deps --editable packages/demo-saes
	touch $@

docs: $(VENV)/.docs
	$(BIN)/sphinx-build -q -E -W --keep-going -b html docs site
	@echo site/index.html

$(VENV)/.docs: $(VENV)/.installed requirements/docs.txt
	$(PIP) -c requirements/constraints.txt -r requirements/docs.txt
	touch $@

clean:
	rm -rf $(VENV) build dist site .pytest_cache .mypy_cache .ruff_cache
