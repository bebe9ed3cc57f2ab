# Every target sets up what it needs in .venv; PYTHON chooses the interpreter (3.10 to 3.12).
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Python compiles what a program imports, which is a part of what pip would compile.
INSTALL := $(BIN)/pip install --quiet --no-compile --constraint constraints.txt
INSTALLED := $(VENV)/.installed
FOR_DEMO := $(VENV)/.installed-demo
WITH_PEERS := $(VENV)/.installed-bench
FOR_TESTS := $(VENV)/.installed-tests
FOR_DOCS := $(VENV)/.installed-docs
PYTEST := $(BIN)/pytest
# Hundreds of processes of the tests import the same packages. Without byte code each of them compiles
# them: 23 CPU seconds in each process of pytest.
unexport PYTHONDONTWRITEBYTECODE
# Two processes a core on two cores, because tests wait for servers. The tests of a file stay in one
# process, and the fast unit tests come last, so that all processes end at about the same time.
IN_PARALLEL := -n 4 --dist loadscope --no-loadscope-reorder
# The cascade.toml of `demo-real` and `bench`.
CONFIG ?=
# For the bench: folders of GLUE and of checkpoints, further options.
GLUE ?=
CHECKPOINTS ?=
BENCH ?=

.PHONY: help demo demo-real check test soak test-compose lint docs dist coverage bench clean \
	ruff package-types unit-tests parallel-tests busy-tests
.DEFAULT_GOAL := help

help:
	@echo "make demo                          the main job from nothing: train, build, serve, compare"
	@echo "make demo-real CONFIG=cascade.toml the same with your checkpoints and data"
	@echo "make check                         lint, types and the unit tests: about a minute"
	@echo "make test                          lint, types and all tests"
	@echo "make coverage                      all tests, and the lines that they reach (see CONTRIBUTING)"
	@echo "make test-compose                  the containers: needs root, a Docker engine, Compose"
	@echo "make soak                          the long reliability tests, for a machine that does nothing else"
	@echo "make lint                          ruff and basedpyright"
	@echo "make docs                          the documentation site, in site/"
	@echo "make dist                          the wheel and the source distribution, in dist/"
	@echo "make bench GLUE=… CHECKPOINTS=…    the bench: all contenders, targets, a report; hours"
	@echo "make bench CONFIG=cascade.toml     the same of your own two members"
	@echo "make bench BENCH=--quick           minutes, on small stand-ins: that everything works"
	@echo "make clean                         remove what the targets above made"

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --editable '.[build,serve,dev]'
	@touch $@

# What the demo needs, and no tools for development. pip says what it fetches; while it unpacks it
# says nothing, so a line tells every 20 s how much there is.
$(FOR_DEMO): pyproject.toml constraints.txt
	@echo "installing into $(VENV): about 1.6 GB, 2 to 5 minutes"
	@$(PYTHON) -m venv $(VENV)
	@start=$$(date +%s); \
	( while sleep 20; do echo "… $$(du -sm $(VENV) | cut -f1) MB after $$(($$(date +%s) - start)) s"; done ) & \
	signs=$$!; trap 'kill $$signs 2>/dev/null' EXIT; \
	$(BIN)/pip install --no-compile --constraint constraints.txt --editable '.[demo]'
	@touch $@

# All extras, in one go. Of `fp16` the extra `dev` has what the tests need, without its 600 MB for GPUs.
# Of kserve only the source of its types is read.
$(FOR_TESTS): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --editable '.[build,serve,score,bench,dev]'
	$(INSTALL) --no-deps kserve==0.21.0
	@touch $(INSTALLED) $(WITH_PEERS) $(FOR_DOCS) $@

# The site needs neither torch nor a server.
$(FOR_DOCS): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --editable '.[docs]'
	@touch $@

# An environment for development has all of it already.
demo: $(if $(wildcard $(INSTALLED)),$(INSTALLED),$(FOR_DEMO))
	$(BIN)/cascadebert demo

demo-real: $(if $(wildcard $(INSTALLED)),$(INSTALLED),$(FOR_DEMO))
	@test -n "$(CONFIG)" || { echo "name a cascade.toml: make demo-real CONFIG=path/cascade.toml"; exit 2; }
	$(BIN)/cascadebert demo $(CONFIG) --folder demo-real

check: $(INSTALLED)
	@$(MAKE) --no-print-directory --jobs 3 --output-sync ruff package-types unit-tests

ruff: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check

# The types of the benchmarks and of the tests are up to `lint`.
package-types: $(INSTALLED)
	$(BIN)/basedpyright --pythonpath $(BIN)/python client build model_repository/cascade

unit-tests: $(INSTALLED)
	$(PYTEST) -n 3 --dist loadscope tests/unit

lint: $(FOR_TESTS)
	@$(MAKE) --no-print-directory ruff
	$(BIN)/basedpyright --pythonpath $(BIN)/python

# Strict: a broken link, an unknown anchor or a page that no menu has is an error. The variable leaves
# out Material's advertisement of its successor.
docs: $(FOR_DOCS)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

dist: $(INSTALLED)
	rm -rf dist
	cd client && ../$(BIN)/python -m build --outdir ../dist ..  # in the root, build/ is a module
	$(BIN)/twine check --strict dist/*

# The exports that tests share serve both runs of pytest.
test coverage: export CASCADEBERT_TEST_EXPORTS = $(CURDIR)/$(VENV)/test-exports
test: $(FOR_TESTS)
	@rm -rf $(VENV)/test-exports
	$(MAKE) --no-print-directory --jobs 2 lint docs parallel-tests
	$(MAKE) --no-print-directory busy-tests

parallel-tests: $(FOR_TESTS)
	$(PYTEST) $(IN_PARALLEL) --durations=20 -m "not busy" $(COVERAGE)

# Two at a time: each often waits for a server that starts or comes back.
busy-tests: $(FOR_TESTS)
	$(PYTEST) -n 2 --dist worksteal --durations=10 -m busy $(COVERAGE)

coverage: COVERAGE = --cov --cov-append --cov-report=
coverage: $(FOR_TESTS)
	@rm -rf .coverage $(VENV)/test-exports
	$(MAKE) --no-print-directory parallel-tests busy-tests COVERAGE="$(COVERAGE)"
	$(BIN)/coverage report

soak: $(FOR_TESTS)
	CASCADEBERT_LONG=1 $(BIN)/pytest tests/reliability tests/unit/test_fuzz_*.py -s

test-compose: $(INSTALLED)
	CASCADEBERT_COMPOSE=1 $(BIN)/pytest tests/compose

# The peers among the contenders: LitServe, mosec.
$(WITH_PEERS): $(INSTALLED)
	$(INSTALL) --editable '.[build,serve,bench,dev]'
	@touch $@

bench: $(WITH_PEERS)
	$(BIN)/python -m benchmarks.suite $(if $(CONFIG),--config $(CONFIG)) $(if $(GLUE),--glue $(GLUE)) \
		$(if $(CHECKPOINTS),--checkpoints $(CHECKPOINTS)) $(BENCH)

clean:
	rm -rf $(VENV) demo demo-real dist site work benchmarks/results .pytest_cache .ruff_cache
