# Every target sets up what it needs in .venv; PYTHON chooses the interpreter (3.10 to 3.12).
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
WITH_FP16 := $(VENV)/.installed-fp16
WITH_PEERS := $(VENV)/.installed-bench
# The shared data and checkpoints of the congruence tests, where they are.
CONFIG ?=
# Of the bench: folders of GLUE and of checkpoints, further options.
GLUE ?=
CHECKPOINTS ?=
BENCH ?=

.PHONY: demo demo-real test soak test-compose lint bench clean help
.DEFAULT_GOAL := help

help:
	@echo "make demo                          the main job from nothing: train, build, serve, compare"
	@echo "make demo-real CONFIG=cascade.toml the same with your checkpoints and data"
	@echo "make test                          lint, types and all tests"
	@echo "make test-compose                  the containers: needs root, a Docker engine, Compose"
	@echo "make soak                          the long reliability tests, for a machine that does nothing else"
	@echo "make lint                          ruff and basedpyright"
	@echo "make bench GLUE=… CHECKPOINTS=…    the bench: all contenders, targets, a report; hours"
	@echo "make bench CONFIG=cascade.toml     the same of your own two members"
	@echo "make bench BENCH=--quick           minutes, on small stand-ins: that everything works"
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

lint: $(WITH_PEERS)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/basedpyright --pythonpath $(BIN)/python

# The FP16 graphs of TensorRT stages. ModelOpt brings onnxruntime-gpu into the folder of onnxruntime:
# the latter goes in last, so that it is whole.
$(WITH_FP16): $(INSTALLED)
	$(BIN)/pip install --quiet --editable '.[build,serve,fp16,dev]'
	$(BIN)/pip install --quiet --force-reinstall --no-deps onnxruntime
	@touch $@

test: $(WITH_FP16) lint
	$(BIN)/pytest

soak: $(INSTALLED)
	CASCADEBERT_LONG=1 $(BIN)/pytest tests/reliability tests/unit/test_fuzz_*.py -s

test-compose: $(INSTALLED)
	CASCADEBERT_COMPOSE=1 $(BIN)/pytest tests/compose

# The peers among the contenders: LitServe, mosec.
$(WITH_PEERS): $(INSTALLED)
	$(BIN)/pip install --quiet --editable '.[build,serve,bench,dev]'
	@touch $@

bench: $(WITH_PEERS)
	$(BIN)/python -m benchmarks.suite $(if $(CONFIG),--config $(CONFIG)) $(if $(GLUE),--glue $(GLUE)) \
		$(if $(CHECKPOINTS),--checkpoints $(CHECKPOINTS)) $(BENCH)

clean:
	rm -rf $(VENV) demo demo-real dist work benchmarks/results .pytest_cache .ruff_cache
