# The commands of CI. Every target first installs what it needs. Start with `make demo`.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SPREAD := -n auto --maxprocesses 8 --dist loadfile   # one process per core; a test file stays in one process, so its fixtures run once

export PYTHONDONTWRITEBYTECODE :=   # write .pyc files: tests start dozens of processes

.PHONY: demo test test-all lint type golden tables architecture benchmark clean

demo: $(STAMP)          ## distil the embedded digits with DM, evaluate with fresh networks, build a table
	$(BIN)/dd-bench run method=random dataset=digits model.width=32 ipc=1 num_sets=5 evaluator.num_networks=2 out=runs/demo
	$(BIN)/dd-bench run experiment=demo out=runs/demo
	$(BIN)/dd-bench leaderboard add runs/demo/records/*.json --entries runs/demo/entries
	$(BIN)/dd-bench leaderboard build --entries runs/demo/entries --out runs/demo/tables
	@cat runs/demo/tables/digits/*.md
	@echo "record:  $$(grep -l '"method": "dm"' runs/demo/records/*.json)"
	@echo "preview: $$(ls runs/demo/sets/dm-*/preview.png)"

test: $(STAMP)          ## lint, type check, fast tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q $(SPREAD)

test-all: $(STAMP)      ## also the slow tests
	$(BIN)/python -m pytest -q $(SPREAD) -m "not gpu"

lint: $(STAMP)
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

type: $(STAMP)
	$(BIN)/mypy

golden: $(STAMP)        ## regenerate golden losses and tables; check the diff before you commit it
	DD_BENCH_GOLDEN=1 $(BIN)/python -m pytest -q tests/methods/test_golden.py tests/leaderboards

tables: $(STAMP)        ## leaderboards/entries -> leaderboards/tables
	$(BIN)/dd-bench leaderboard build

architecture: $(STAMP)  ## imports -> docs/architecture.md
	$(BIN)/python docs/architecture.py

benchmark: $(STAMP)     ## time training loop, matching and recovery steps and inner loops against plain versions
	$(BIN)/python benchmarks/training_loop.py
	$(BIN)/python benchmarks/matching_step.py
	$(BIN)/python benchmarks/repeats.py
	$(BIN)/python benchmarks/inner_loop.py
	$(BIN)/python benchmarks/recover_step.py
	$(BIN)/python benchmarks/exactness.py
	$(BIN)/python benchmarks/experts.py
	test ! -d data/NCI1 || $(BIN)/python benchmarks/computation_trees.py   # needs NCI1 and ogbg_molbace in data/

# pip, not a faster resolver: pip uses wheels on the disk before it downloads gigabytes.
$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip setuptools wheel
	$(BIN)/python -m pip install --quiet --no-build-isolation -e ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache
