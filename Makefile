# `make reproduce` and `make test` do all their own set-up; everything lives in .venv, nothing outside this folder is touched.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OUT ?= reproduction
PEERS := .venv-peers
SCALE ?= quick

.PHONY: reproduce test nightly lint docs bench clean

reproduce: $(VENV)/.train
	$(BIN)/saddlescope reproduce --scale $(SCALE) --out $(OUT)

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n auto

# The statistical tests with fresh seeds: a failure is evidence, as their bounds fail by chance once in 10^4 runs.
nightly: $(VENV)/.dev
	SADDLESCOPE_FREE_SEEDS=1 $(BIN)/python -m pytest -n auto

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

docs: $(VENV)/.dev
	$(BIN)/python -m mkdocs build --strict

bench: $(PEERS)/.ready
	for script in benchmarks/*.py; do $(PEERS)/bin/python $$script || exit 1; done

$(VENV)/.train: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[train]'
	touch $@

$(VENV)/.dev: $(VENV)/.train
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

# What the benchmarks compare with has an environment of its own: some of it asks for other versions than the package.
$(PEERS)/.ready: pyproject.toml constraints.txt benchmarks/peers/requirements.txt
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet -c constraints.txt -e '.[train,explorer]'
	$(PEERS)/bin/python -m pip install --quiet --no-deps -r benchmarks/peers/requirements.txt
	touch $@

clean:
	rm -rf $(VENV) $(PEERS) $(OUT) site .pytest_cache .ruff_cache
