# Every target sets up what it needs in .venv; PYTHON chooses the interpreter (3.10 to 3.12).
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# The shared data and checkpoints of the congruence tests, where they are.
CONFIG ?=

.PHONY: demo demo-real test lint bench clean help
.DEFAULT_GOAL := help

help:
	@echo "make demo                          the main job from nothing: train, build, serve, compare"
	@echo "make demo-real CONFIG=cascade.toml the same with your checkpoints and data"
	@echo "make test                          lint, types and all tests"
	@echo "make lint                          ruff and basedpyright"
	@echo "make bench CONFIG=cascade.toml     perf_analyzer benchmarks of that cascade"
	@echo "make clean                         remove what the targets above made"

$(INSTALLED): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[build,serve,dev]'
	@touch $@

demo: $(INSTALLED)
	$(BIN)/cascadebert demo

demo-real: $(INSTALLED)
	@test -n "$(CONFIG)" || { echo "name a cascade.toml: make demo-real CONFIG=path/cascade.toml"; exit 2; }
	$(BIN)/cascadebert demo $(CONFIG) --folder demo-real

lint: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/basedpyright --pythonpath $(BIN)/python

test: lint
	$(BIN)/pytest

bench: $(INSTALLED)
	@test -n "$(CONFIG)" || { echo "name a cascade.toml: make bench CONFIG=path/cascade.toml"; exit 2; }
	$(BIN)/python -m benchmarks.deferral --config $(CONFIG)
	$(BIN)/python -m benchmarks.gate_cost --config $(CONFIG)

clean:
	rm -rf $(VENV) demo demo-real dist work benchmarks/results .pytest_cache .ruff_cache
