# millstream's commands, in GNU make 3.81's syntax (macOS still ships it).
#
#   make demo     load real data into a database of its own and ask it questions
#   make test     the tests (ARGS="-k name" to choose)
#   make sim      simulated worlds, faults and all, from SEED on (SEED=1 WORLDS=20; KIND=items
#                 or transactions or triggers; ARGS=--quiet)
#   make crash    SIGKILL under load, again and again (N=50; ARGS="--workload triggers" or
#                 "--workload regions", with partitions)
#   make powercut power cuts on a model of the disk (IMAGES=200; needs strace)
#   make damage   flipped bits and cut files (SAMPLES=2000)
#   make fuzz     random bytes, changed requests, broken HTTP (SECONDS=60 SEED=1)
#   make conformance  the independent suite recorded on AWS (DIR=its checkout)
#   make bench    throughput and CPU beside installed peers (BENCH=memory, scale, engine,
#                 triggers or regions; ARGS)
#   make check    lint, types, the rooms' layers, the tidy test
#   make wheel-test   install the built wheel and sdist elsewhere and run the demo there
#   make clean    remove what make made
#
# The environment lives in .venv and is made once; `make demo` installs only what the database
# itself needs, the other targets add the tools. Set PYTHON to choose an interpreter.

SHELL := /bin/sh
BIN := .venv/bin
RUN_STAMP := .venv/installed
DEV_STAMP := .venv/installed-dev
export MYPYPATH := .types
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: all demo test sim crash powercut damage fuzz conformance bench check wheel-test clean
.DELETE_ON_ERROR:

all: check test

demo: $(RUN_STAMP)
	@$(BIN)/millstream demo

test: $(DEV_STAMP)
	@$(BIN)/python -m pytest -q $(ARGS)

SEED := 1
WORLDS := 20
KIND := all

sim: $(RUN_STAMP)
	@$(BIN)/python -m millstream.simulation --seed $(SEED) --worlds $(WORLDS) --kind $(KIND) $(ARGS)

N := 50
IMAGES := 200
SAMPLES := 2000

crash: $(RUN_STAMP)
	@$(BIN)/python -m millstream.tools.crash --kills $(N) $(ARGS)

powercut: $(RUN_STAMP)
	@$(BIN)/python -m millstream.tools.powercut --images $(IMAGES) $(ARGS)

damage: $(RUN_STAMP)
	@$(BIN)/python -m millstream.tools.damage --samples $(SAMPLES) $(ARGS)

SECONDS := 60

fuzz: $(RUN_STAMP)
	@$(BIN)/python -m millstream.tools.fuzz --seconds $(SECONDS) --seed $(SEED) $(ARGS)

conformance: $(RUN_STAMP)
	@$(BIN)/python -m millstream.tools.conformance $(DIR) $(ARGS)

bench: $(RUN_STAMP)
	@$(BIN)/python -m millstream.bench$(if $(BENCH),.$(BENCH)) $(ARGS)

check: $(DEV_STAMP) .types/millstream
	@$(BIN)/ruff check .
	@$(BIN)/mypy --strict -p millstream
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/python -m pytest -q tests/test_tidy.py tests/test_packaging.py

wheel-test: $(DEV_STAMP)
	@.ci/wheel-test $(BIN)/python

$(RUN_STAMP): pyproject.toml constraints.txt .ci/environment
	@.ci/environment .venv .
	@touch $@

$(DEV_STAMP): $(RUN_STAMP)
	@.ci/environment .venv '.[dev]'
	@touch $@

# The root of the checkout is the package, which type checkers can only see under its own name.
.types/millstream:
	@mkdir -p .types
	@ln -sfn .. $@

clean:
	rm -rf .venv .types build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
