# `make` lists the targets. One .venv holds the core and, on demand, the developers' tools. Stamps record what is
# installed: a target whose packages are installed starts at once, without network.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

SYSTEM_PYTHON ?= python3
PYTHON := .venv/bin/python
PIP := $(PYTHON) -m pip --disable-pip-version-check
INSTALLED := .venv/installed

# Options of `make train`.
CORPUS ?=
ROOT ?=
ifneq ($(CORPUS),)
ifeq ($(ROOT),)
$(error CORPUS=$(CORPUS) needs its folder: make train CORPUS=$(CORPUS) ROOT=<folder>)
endif
endif
SYNTHETIC := .cache/synthetic/ravdess
EXPERIMENT ?= $(if $(CORPUS),experiments/huang2020/netvlad_unigram.yaml,experiments/quickstart.yaml)
# A system's file and the file of CORPUS next to it.
FILES := "$(EXPERIMENT)" $(if $(CORPUS),"$(dir $(EXPERIMENT))$(CORPUS).yaml")
NEEDED := $(if $(shell grep -s "features[.]ComParE" "$(EXPERIMENT)"),opensmile,core)
ARGS ?=
OPENSMILE_LICENCE := The licence of openSMILE allows research and personal use, not products.
TEST_WORKERS ?= 2
# Tests of one file share trained runs; conftest.py starts the longest files first.
IN_WORKERS = -n $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder

# One thread per process: folds and tests run in parallel, and a second thread slows training on busy cores.
export OMP_NUM_THREADS ?= 1
# Tests and jobs start processes, each of which would compile the suite anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))
	@echo
	@echo '  make train CORPUS=ravdess ROOT=<folder>  trains on the real corpus; EXPERIMENT=<yaml> selects a system.'
	@echo '  ARGS="..." passes arguments to the command of train, test, smoke, bench, stress, report, docs and lock.'
	@echo '  SYSTEM_PYTHON=python3.12 creates .venv with another Python; TEST_WORKERS=8 sets the number of test processes.'

.PHONY: setup
setup: $(INSTALLED)/core ## Install the core into .venv (a download of 3 GB: torch with CUDA)

.PHONY: setup-dev
setup-dev: $(INSTALLED)/dev ## Install the developers' tools and all extras too

.PHONY: train
train: $(INSTALLED)/$(NEEDED) $(if $(ROOT),,$(SYNTHETIC)) ## Cross-validate the quick start on synthetic speech
	.venv/bin/ser cv $(addprefix --config=,$(FILES)) --data.init_args.root "$(or $(ROOT),$(SYNTHETIC))" $(ARGS)

.PHONY: test
test: $(INSTALLED)/dev ## Run the tests, except slow ones and those that need a browser
	$(PYTHON) -m pytest -m 'not slow and not browser' $(IN_WORKERS) $(ARGS)

.PHONY: check
check: $(INSTALLED)/dev ## Check lint, formatting, types and import contracts
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy
	.venv/bin/lint-imports

.PHONY: format
format: $(INSTALLED)/dev ## Fix lint and formatting with ruff
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

.PHONY: smoke
smoke: $(INSTALLED)/dev ## Run the slow tests: every experiment and a table on synthetic speech, all documented commands
	$(PYTHON) -m pytest -m slow $(IN_WORKERS) tests/experiments tests/cross_validation/test_cross_validate.py tests/test_documentation.py $(ARGS)

.PHONY: gpu
gpu: $(INSTALLED)/dev ## Run the tests that need a GPU, and print the memory that systems need (computed)
	$(PYTHON) -m pytest -m gpu $(ARGS)
	$(PYTHON) -m tools.gpu_memory

.PHONY: mutants
mutants: $(INSTALLED)/dev ## Mutate 600 places of the core and count those that the tests notice; 20 minutes at most
	$(PYTHON) -m tools.mutants $(ARGS)

.PHONY: bench
bench: $(INSTALLED)/dev ## Measure speed and memory against named references
	$(PYTHON) -m benchmarks $(ARGS)

.PHONY: stress
stress: $(INSTALLED)/dev ## Kill commands, fill disks and damage files for 15 minutes (ARGS="--minutes 5 --seed 1")
	$(PYTHON) -m tools.stress $(ARGS)

.PHONY: report
report: $(INSTALLED)/core ## Write a page that compares the runs under runs/
	.venv/bin/ser report runs --out runs/report $(ARGS)

.PHONY: reproduction
reproduction: $(INSTALLED)/core ## Write docs/reproduction.md: each published row, its command, the paper's scores, ours
	$(PYTHON) -m tools.ledger

.PHONY: docs
docs: $(INSTALLED)/dev ## Build the documentation into build/docs, run its notebook; fail on dead links
	NO_MKDOCS_2_WARNING=1 $(PYTHON) -m mkdocs build $(ARGS)
	WANDB_MODE=offline .venv/bin/jupyter execute --inplace build/docs/notebooks/first_steps.ipynb
	@echo 'build/docs/index.html (with a search: .venv/bin/mkdocs serve)'

.PHONY: lock
lock: | $(PYTHON) ## Update the lock files after a change of pyproject.toml (ARGS=--upgrade: update all versions)
	$(PIP) install --quiet uv
	$(COMPILE) --output-file requirements.lock
	$(COMPILE) --output-file requirements-opensmile.lock --extra opensmile --constraints requirements.lock
	$(COMPILE) --output-file requirements-dev.lock --all-extras --constraints requirements-opensmile.lock

# One version for all Pythons, so that features and scores do not depend on the Python; hashes of the default index.
COMPILE = $(PYTHON) -m uv pip compile --quiet --no-config --universal --python-version 3.11 --fork-strategy fewest \
	--generate-hashes --no-header --no-emit-index-url $(ARGS) pyproject.toml

.PHONY: clean
clean: ## Remove caches (all stored features too) and build output; keep .venv and runs/
	rm -rf .cache .mypy_cache .ruff_cache .import_linter_cache .pytest_cache build dist mutants src/*.egg-info *.egg-info
	find . -name .venv -prune -o -name runs -prune -o -name __pycache__ -prune -exec rm -rf {} +

# ---- files that the targets depend on ----

$(PYTHON):
	@$(SYSTEM_PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed: make SYSTEM_PYTHON=python3.11 ...")'
	$(SYSTEM_PYTHON) -m venv .venv

# The project is installed last, editable, with the locked setuptools.
$(INSTALLED)/core: requirements.lock pyproject.toml | chosen $(PYTHON)
	$(PIP) install --progress-bar on --require-hashes --requirement requirements.lock
	$(PIP) install --quiet --no-index --no-deps --no-build-isolation --editable .
	@mkdir -p $(@D) && touch $@

# The developers' lock contains the core at the same versions.
$(INSTALLED)/dev: requirements-dev.lock pyproject.toml | $(PYTHON)
	@echo 'All extras are installed, including openSMILE. $(OPENSMILE_LICENCE)'
	$(PIP) install --progress-bar on --require-hashes --requirement requirements-dev.lock
	$(PIP) install --quiet --no-index --no-deps --no-build-isolation --editable .
	@mkdir -p $(@D) && touch $(@D)/core $(@D)/opensmile $@

$(INSTALLED)/opensmile: requirements-opensmile.lock | $(INSTALLED)/core
	@echo 'This experiment uses openSMILE features. $(OPENSMILE_LICENCE)'
	$(PIP) install --progress-bar on --require-hashes --requirement $<
	@touch $@

$(SYNTHETIC): src/ser_lightning/data/synthetic.py data_modules/ravdess.py | $(INSTALLED)/core
	@rm -rf $@ $@.unfinished && mkdir -p $(@D)
	.venv/bin/ser synth ravdess $@.unfinished --speakers 8
	@mv $@.unfinished $@ && touch $@

# What was chosen for `make train`, checked before anything is installed.
.PHONY: chosen
chosen:
	@test -z "$(ROOT)" || test -d "$(ROOT)" || { echo "ROOT=$(ROOT) is not a folder"; exit 1; } >&2
	@for file in $(FILES); do test -f "$$file" || \
	  { echo "There is no $$file; see experiments/, and set CORPUS or EXPERIMENT=<yaml>"; exit 1; } >&2; done
