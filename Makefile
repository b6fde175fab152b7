# `make reproduce` and `make test` do all their own set-up; everything lives in .venv, nothing outside this folder is touched.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OUT ?= reproduction
SCALE ?= quick

.PHONY: reproduce test lint bench clean

reproduce: $(VENV)/.train
	$(BIN)/saddlescope reproduce --scale $(SCALE) --out $(OUT)

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n auto

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

bench: $(VENV)/.train
	$(BIN)/python benchmarks/trajectories.py

$(VENV)/.train: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[train]'
	touch $@

$(VENV)/.dev: $(VENV)/.train
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) $(OUT) .pytest_cache .ruff_cache
