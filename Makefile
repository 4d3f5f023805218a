# Formwright: `make help` lists the targets. Each creates the virtual environment if it is missing.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.PHONY: help demo test lint types proto bench clean
.DEFAULT_GOAL := help

help: ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(READY) ## compile a real Transformer; then serve, run, watch and query a search
	$(BIN)/python examples/01_compile_a_transformer.py
	$(BIN)/python examples/06_whole_product.py

test: $(READY) lint types ## lint, types and every test, three at a time: some wait
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 --dist worksteal

lint: $(READY) ## ruff: style and import order; buf: the proto files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/buf lint

# mypy does not follow the editable install's import hook, so it is shown the package by a link.
types: $(READY) ## mypy, strict
	@mkdir -p .types && ln -sfn .. .types/formwright
	MYPYPATH=.types $(BIN)/mypy -p formwright.compiler -p formwright.search -p formwright.service \
	    -m formwright -m formwright.__main__

proto: $(READY) ## generate service/wire/ from the proto files
	$(BIN)/python proto/generate.py

bench: $(READY) ## the benchmarks (hours; not part of the tests); JSON goes to docs/measurements/
	$(BIN)/python benchmarks/overhead.py
	$(BIN)/python benchmarks/latency.py
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	$(BIN)/python benchmarks/attention.py
	$(BIN)/python benchmarks/padding.py
	$(BIN)/python benchmarks/norms.py
	$(BIN)/python benchmarks/mixers.py
	$(BIN)/python benchmarks/search_quality.py
	$(BIN)/python benchmarks/search_real.py
	$(BIN)/python benchmarks/search_latency.py
	$(BIN)/python benchmarks/search_idle.py
	$(BIN)/python benchmarks/search_rate.py
	$(BIN)/python benchmarks/search_scaling.py
	$(BIN)/python benchmarks/search_minutes.py
	$(BIN)/python benchmarks/chaos.py
	$(BIN)/python benchmarks/service.py
	$(BIN)/python benchmarks/service_secure.py
	$(BIN)/python benchmarks/chaos_service.py
	$(BIN)/python benchmarks/fuzz_service.py

clean: ## remove the virtual environment and what the tools left
	rm -rf $(VENV) .types .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist *.egg-info
