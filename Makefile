# Everything a person runs by hand; `make` alone lists it. One .venv holds the core, to train and to report, and on
# demand the developers' tools on top of it. A stamp says what is installed: a target whose packages are in place starts
# at once and asks no network.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

SYSTEM_PYTHON ?= python3
PYTHON := .venv/bin/python
PIP := $(PYTHON) -m pip --disable-pip-version-check
INSTALLED := .venv/installed

# What `make train` learns from, and how.
CORPUS ?=
ROOT ?=
ifneq ($(CORPUS),)
ifeq ($(ROOT),)
$(error CORPUS=$(CORPUS) needs the folder it lies in: make train CORPUS=$(CORPUS) ROOT=<folder>)
endif
endif
SYNTHETIC := .cache/synthetic/ravdess
EXPERIMENT ?= $(if $(CORPUS),experiments/huang2020/netvlad_unigram.yaml,experiments/quickstart.yaml)
# A system's file goes with the file of CORPUS next to it.
FILES := "$(EXPERIMENT)" $(if $(CORPUS),"$(dir $(EXPERIMENT))$(CORPUS).yaml")
ARGS ?=
OPENSMILE_LICENCE := openSMILE comes with a licence for research and personal use, not for products.
TEST_WORKERS ?= 2
# A file's tests share what they have trained; conftest.py puts the longest files first.
IN_WORKERS = -n $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder

# One thread a process: on busy cores a second makes training slower, and folds and tests run side by side.
export OMP_NUM_THREADS ?= 1

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))
	@echo
	@echo '  make train CORPUS=ravdess ROOT=<folder>  trains on the corpus itself; EXPERIMENT=<yaml> runs another system.'
	@echo '  ARGS="..." is handed to the command behind train, test, smoke, bench, report, docs and lock.'
	@echo '  SYSTEM_PYTHON=python3.12 sets .venv up with another Python; TEST_WORKERS=8 runs tests in more processes.'

.PHONY: setup
setup: $(INSTALLED)/core ## Install into .venv what training needs (some 3 GB to download: torch comes with CUDA)

.PHONY: setup-dev
setup-dev: $(INSTALLED)/dev ## Install the developers' tools and every extra too, as locked

.PHONY: train
train: $(INSTALLED)/core $(if $(ROOT),root-chosen,$(SYNTHETIC)) ## Cross-validate the quick start on synthetic speech
	.venv/bin/ser cv $(addprefix --config=,$(FILES)) --data.init_args.root "$(or $(ROOT),$(SYNTHETIC))" $(ARGS)

.PHONY: test
test: $(INSTALLED)/dev ## Run the tests, except those that train or need a browser
	$(PYTHON) -m pytest -m 'not slow and not browser' $(IN_WORKERS) $(ARGS)

.PHONY: check
check: $(INSTALLED)/dev ## Lint, formatting, types, and who may import whom
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy
	.venv/bin/lint-imports

.PHONY: format
format: $(INSTALLED)/dev ## Mend what ruff can mend by itself
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

.PHONY: smoke
smoke: $(INSTALLED)/dev ## Train every experiment for a few steps on synthetic speech; run what the documentation says
	$(PYTHON) -m pytest -m slow $(IN_WORKERS) tests/experiments tests/test_documentation.py $(ARGS)

.PHONY: bench
bench: $(INSTALLED)/dev ## Measure speed and memory against named references
	$(PYTHON) -m benchmarks $(ARGS)

.PHONY: report
report: $(INSTALLED)/core ## Gather what is under runs/ into one page that compares it, with figures
	.venv/bin/ser report runs --out runs/report $(ARGS)

.PHONY: reproduction
reproduction: $(INSTALLED)/core ## Write docs/reproduction.md: every published row, its command, the paper's number, ours
	$(PYTHON) -m tools.ledger

.PHONY: docs
docs: $(INSTALLED)/dev ## Build the documentation into build/docs; a dead link or an undocumented argument stops it
	NO_MKDOCS_2_WARNING=1 $(PYTHON) -m mkdocs build $(ARGS)
	@echo 'build/docs/index.html (with a search: .venv/bin/mkdocs serve)'

.PHONY: lock
lock: | $(PYTHON) ## Choose versions anew where pyproject.toml asks for it (ARGS=--upgrade: everywhere)
	$(PIP) install --quiet uv
	$(COMPILE) --output-file requirements.lock
	$(COMPILE) --output-file requirements-opensmile.lock --extra opensmile --constraints requirements.lock
	$(COMPILE) --output-file requirements-dev.lock --all-extras --constraints requirements-opensmile.lock

# One version for every Python, so that features and scores do not depend on it; hashes are those of the default index.
COMPILE = $(PYTHON) -m uv pip compile --quiet --no-config --universal --python-version 3.11 --fork-strategy fewest \
	--generate-hashes --no-header --no-emit-index-url $(ARGS) pyproject.toml

.PHONY: clean
clean: ## Remove caches, the features of every corpus among them, and build leavings; .venv and runs/ stay
	rm -rf .cache .mypy_cache .ruff_cache .import_linter_cache .pytest_cache build dist src/*.egg-info *.egg-info
	find . -name .venv -prune -o -name runs -prune -o -name __pycache__ -prune -exec rm -rf {} +

# ---- what the targets above stand on ----

$(PYTHON):
	@$(SYSTEM_PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed: make SYSTEM_PYTHON=python3.11 ...")'
	$(SYSTEM_PYTHON) -m venv .venv

# The project itself comes last, editable, built by the setuptools that the lock holds.
$(INSTALLED)/core: requirements.lock pyproject.toml | $(PYTHON)
	$(PIP) install --progress-bar on --require-hashes --requirement requirements.lock
	$(PIP) install --quiet --no-index --no-deps --no-build-isolation --editable .
	@mkdir -p $(@D) && touch $@

# The developers' lock holds the core at the same versions, so it alone is enough.
$(INSTALLED)/dev: requirements-dev.lock pyproject.toml | $(PYTHON)
	@echo 'Every extra is installed, openSMILE too. $(OPENSMILE_LICENCE)'
	$(PIP) install --progress-bar on --require-hashes --requirement requirements-dev.lock
	$(PIP) install --quiet --no-index --no-deps --no-build-isolation --editable .
	@mkdir -p $(@D) && touch $(@D)/core $(@D)/opensmile $@

$(INSTALLED)/opensmile: requirements-opensmile.lock | $(INSTALLED)/core
	@echo 'This experiment takes its features from openSMILE. $(OPENSMILE_LICENCE)'
	$(PIP) install --progress-bar on --require-hashes --requirement $<
	@touch $@

$(SYNTHETIC): src/ser_lightning/data/synthetic.py data_modules/ravdess.py | $(INSTALLED)/core
	@rm -rf $@ $@.unfinished && mkdir -p $(@D)
	.venv/bin/ser synth ravdess $@.unfinished --speakers 8
	@mv $@.unfinished $@ && touch $@

.PHONY: root-chosen
root-chosen: $(INSTALLED)/core
	@test -d "$(ROOT)" || { echo "ROOT=$(ROOT) is not a folder"; exit 1; } >&2
	@for file in $(FILES); do test -f "$$file" || \
	  { echo "There is no $$file; see experiments/, or give another CORPUS or EXPERIMENT=<yaml>"; exit 1; } >&2; done
	@! grep -q ComParE147 "$(EXPERIMENT)" || $(MAKE) --no-print-directory $(INSTALLED)/opensmile
