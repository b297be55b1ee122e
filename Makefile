# The commands of CI. Every target first installs what it needs. Start with `make demo`.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
RUN_STAMP := $(VENV)/.installed-run
DOCS_STAMP := $(VENV)/.installed-docs
# As many processes as cores: a process needs 16 seconds to import the tests, 28 in a new checkout, and mypy runs at the
# same time. A test file stays in one process, so its fixtures run once.
SPREAD := -n $(shell $(PYTHON) -c "import os; print(min(8, max(2, os.cpu_count() or 1)))") --dist loadfile

RESULTS := $(shell grep -l "^<!-- table " docs/results/*.md)

export PYTHONDONTWRITEBYTECODE :=   # write .pyc files: tests start dozens of processes

.PHONY: help install demo test test-all test-files lint type golden tables docs site architecture benchmark cuda-check clean

help:                   ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 14

install: $(RUN_STAMP)   ## set up .venv for runs, without the tools of developers

demo: $(RUN_STAMP)      ## distil the embedded digits with DM, evaluate with fresh networks, build a table
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
	@echo "$(BIN)/mypy, at the same time as the tests"; \
	report=$$(mktemp); $(BIN)/mypy >$$report 2>&1 & types=$$!; \
	$(BIN)/python -m pytest -q $(SPREAD); tests=$$?; \
	wait $$types; types=$$?; echo "mypy: $$(cat $$report)"; rm $$report; test $$tests -eq 0 -a $$types -eq 0

test-all: $(STAMP)      ## also the slow tests
	$(BIN)/python -m pytest -q $(SPREAD) -m "not gpu"

test-files: $(STAMP)    ## slow tests of the files of this repository: experiments, claims, the site in a browser, the notebook
	$(BIN)/python -m pytest -q $(SPREAD) -m slow tests/conformance tests/docs tests/hub tests/leaderboards

lint: $(STAMP)          ## ruff
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

type: $(STAMP)          ## mypy
	$(BIN)/mypy

golden: $(STAMP)        ## regenerate golden losses, counts, tables and the outputs of the tour; check the diff before you commit it
	$(BIN)/python benchmarks/launches.py && $(BIN)/python benchmarks/tables.py
	DD_BENCH_GOLDEN=1 $(BIN)/python -m pytest -q tests/methods/test_golden.py tests/leaderboards tests/docs/test_tour.py

tables: $(STAMP)        ## leaderboards/entries -> leaderboards/tables, leaderboards/plots, README.md and docs/results; benchmarks/results -> docs
	$(BIN)/dd-bench leaderboard build --into README.md $(RESULTS)
	$(BIN)/dd-bench leaderboard plot --changed
	$(BIN)/python benchmarks/tables.py
	$(BIN)/python docs/tables.py

docs: $(DOCS_STAMP)     ## documentation -> build/docs, with its links checked
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --site-dir build/docs   # --quiet would disable --strict

site: $(DOCS_STAMP)     ## leaderboard, with the documentation below it at docs/ -> build/site
	rm -rf build/site
	$(BIN)/dd-bench leaderboard build --site --docs docs/index.html --out build/site
	NO_MKDOCS_2_WARNING=1 BELOW_LEADERBOARD=1 $(BIN)/python -m mkdocs build --strict --site-dir build/site/docs

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
	test ! -d data/cora || $(BIN)/python benchmarks/node_speed.py   # needs Cora in data/
	$(BIN)/python benchmarks/node_scale.py

cuda-check: $(STAMP)    ## on a machine with a CUDA GPU: tests, accuracy and speed in 8 minutes -> docs/performance/cuda.md
	$(BIN)/python benchmarks/cuda_check.py; status=$$?; $(BIN)/python benchmarks/tables.py; exit $$status

# pip, not a faster resolver: pip uses wheels on the disk before it downloads gigabytes.
$(RUN_STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip setuptools wheel
	$(BIN)/python -m pip install --quiet --no-build-isolation -e .
	touch $@

$(STAMP): $(RUN_STAMP)
	$(BIN)/python -m pip install --quiet --no-build-isolation -e ".[dev]"
	touch $@

$(DOCS_STAMP): $(RUN_STAMP)
	$(BIN)/python -m pip install --quiet --no-build-isolation -e ".[docs,site]"
	touch $@

clean:                  ## remove .venv and everything built
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache
