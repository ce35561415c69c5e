# SAFESCALE-AMMT. `make` alone says what there is.
#
# Needs Python 3.11 or later with venv, git and make. Everything goes into .venv;
# a second call finds it there and starts at once.
#
#   PYTHON=python3.12              another interpreter
#   TORCH_INDEX_URL=https://...    another build of torch, CPU or CUDA
#   RUNNER=docker                      `make run` in containers of the stage images
#   ARGS="--set training.steps=600"    options for `make run`, or for `make cluster-test`
#   TORCH=cu130                    build of torch in the images (default cpu; training
#                                  uses CPUs in either)
#   PUSH=registry.example.org/team     where `make images` pushes them
#   BASE_IMAGE=python@sha256:...   base of the images

PYTHON ?= $(shell command -v python3.11 || command -v python3)
RUNNER ?= subprocess
ARGS ?=
TORCH ?= cpu
KEY := $(shell cat requirements.txt pyproject.toml | sha256sum | cut -c1-16)
READY := .venv/.ready-$(KEY)
BIN := .venv/bin
SPARK_READY := .venv/spark/.ready-$(shell sha256sum < requirements-spark.txt | cut -c1-16)

# Where it is set, each process of a run or a test would compile all code anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup run test cluster-test lint format golden docs engines images findings spark \
  clean distclean
.DELETE_ON_ERROR:

help: ## Says what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' Makefile

setup: $(READY) ## Makes .venv and installs the pinned packages and this project

$(READY):
	@test -n "$(PYTHON)" || { echo "No Python found; install python3.11 and python3.11-venv." >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is $$($(PYTHON) -V), Python 3.11 or later is needed: make PYTHON=..." >&2; exit 2; }
	test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet $(if $(TORCH_INDEX_URL),--extra-index-url $(TORCH_INDEX_URL)) -r requirements.txt
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	@rm -f .venv/.ready-*
	@touch $@

run: $(READY) ## Trains, judges and registers a model on the Adult data
	$(BIN)/safescale run --runner $(RUNNER) $(ARGS)

test: $(READY) lint spark ## Runs every check and test, with coverage
	$(BIN)/pytest tests/unit tests/integration -n 2 --dist loadgroup --cov --cov-report=term:skip-covered

cluster-test: $(READY) ## Accepts the Kubeflow that SAFESCALE_KFP_HOST names (ARGS="-k champion")
	$(BIN)/pytest tests/acceptance -m cluster $(ARGS)

lint: $(READY) ## Checks style, types and import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY) ## Formats the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

spark: $(READY) ## Installs PySpark for the tests, where there is a Java
	@if test -f $(SPARK_READY); then :; \
	elif ! command -v java >/dev/null; then \
	  echo "skipped: Spark's tests, because there is no Java (Debian: openjdk-17-jre-headless)"; \
	else \
	  rm -rf .venv/spark; \
	  { $(BIN)/python -m pip install --quiet --no-deps --target .venv/spark \
	    -r requirements-spark.txt && touch $(SPARK_READY); } || \
	  echo "skipped: Spark's tests, because PySpark could not be installed (see above)"; \
	fi

engines: ## Installs and starts a container engine where it can (Debian, root)
	@sh images/engines.sh

images: $(READY) ## Builds the stages' images and writes images/lock.json
	@$(BIN)/python -m images.build --torch $(TORCH) $(if $(SPARK),--spark) $(if $(PUSH),--push $(PUSH))

golden: $(READY) ## Compiles the pipelines that the tests compare with
	$(BIN)/safescale compile -o tests/golden/train.yaml
	$(BIN)/safescale compile --pipeline promote -o tests/golden/promote.yaml

docs: $(READY) ## Writes the tables of docs/ anew: keys of the config, measured claims
	$(BIN)/python -m benchmarks configuration --write
	$(BIN)/python -m benchmarks claims --write

findings: ## Lists surprises of other software; each is a script in findings/
	@awk 'FNR == 2 {name = FILENAME; sub(/.*\//, "", name); sub(/^# */, ""); \
	  printf "  %-32s %s\n", name, $$0}' findings/*.sh

clean: ## Removes caches; keeps runs, the store with its registry, and .venv
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .benchmarks
	rm -rf build dist *.egg-info .coverage .coverage.* .safescale/pipeline-root
	find . -path ./.venv -prune -o -name __pycache__ -type d -print | xargs -r rm -rf

distclean: clean ## Removes .venv and the fetched wheels too
	rm -rf .venv images/wheels/*/*.whl images/lock.json
