# What people type. Everything is installed into .venv from the hash-pinned locks in config/locks.
PORT ?= 8000
DATA ?= var
CLUSTER ?= simulated
PYTHON ?= python3
# Three processes on two cores: those that wait for a Slurm leave theirs idle. More cores take more.
WORKERS ?= 3
TESTS ?= tests

BIN := .venv/bin
LOCKS := config/locks
CODE := allocator config metrics scheduler web tests
PACKAGES := allocator config metrics scheduler web
CATALOGUE := .cache/messages.pot
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# A lock is complete: nothing to resolve; and what is never imported need not be compiled. A third quicker.
PIP_LOCK := $(PIP) --require-hashes --no-deps --no-compile

.PHONY: run install test labs kernels lint bench lock i18n clean
.DEFAULT_GOAL := run

run: .venv/.run
	@exec $(BIN)/kezek up --port "$(PORT)" --data "$(DATA)" --cluster "$(CLUSTER)"

install: .venv/.run

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Kezek needs Python 3.11 or newer: make PYTHON=python3.11")'
	@$(PYTHON) -c 'import ensurepip, venv' || { echo "Python has no venv module: apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv .venv

# The stamps make a second `make run` start at once.
.venv/.run: $(LOCKS)/run.txt setup.cfg pyproject.toml | .venv/bin/python
	$(PIP_LOCK) -r $(LOCKS)/run.txt
	$(PIP) --no-deps --no-build-isolation -e .
	@rm -rf kezek.egg-info  # left over from the build; on the path it would hide newer entry points
	@touch $@

.venv/.test: $(LOCKS)/test.txt .venv/.run
	$(PIP_LOCK) -r $(LOCKS)/test.txt
	@touch $@

test: .venv/.test
	$(BIN)/python -m tests.install
	@$(MAKE) --no-print-directory -j2 lint labs kernels
	KEZEK_NO_SKIP=1 $(BIN)/python -m pytest -q -n $(WORKERS) --dist loadgroup $(TESTS)

# Slurm 26.05 and pyslurm are built once into the cache; a test that met the build would time out.
labs: .venv/.test
	$(BIN)/kezek lab prepare-forky

# The planner's kernels are compiled once; the scheduler does it in the background, tests would each do it.
kernels: .venv/.run
	$(BIN)/python -m allocator.planner.cache

lint: .venv/.test
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check --quiet $(CODE)
	$(BIN)/mypy

# A benchmark is a module of tests/benchmarks that prints lines of `figure: value unit`.
bench: .venv/.test kernels
	@test -n "$(NAME)" || { echo "Say which: make bench NAME=..."; ls tests/benchmarks | sed -n 's/^\([a-z].*\)\.py$$/  \1/p'; exit 1; }
	@$(BIN)/python -m tests.benchmarks.$(NAME)

# Resolves setup.cfg's ranges afresh, for every Python and platform at once.
UV := .cache/lock/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
	--system-certs --no-config --no-emit-index-url --no-annotate --no-header setup.cfg
lock: | .venv/bin/python
	@mkdir -p .cache $(LOCKS)
	$(PYTHON) -m venv .cache/lock
	.cache/lock/bin/python -m pip install --quiet --upgrade uv
	$(UV) --extra build --output-file $(LOCKS)/run.txt
	$(UV) --extra build --extra test --constraint $(LOCKS)/run.txt --output-file $(LOCKS)/test.txt

# New and changed strings go into every catalogue; the compiled ones are committed with them.
i18n: .venv/.run
	@mkdir -p .cache
	$(BIN)/pybabel --quiet extract --mapping-file config/locale/babel.cfg --no-location --sort-output \
		--keywords lazy_gettext --keywords lazy_ngettext:1,2 --project Kezek --version 0.1 --output-file $(CATALOGUE) $(PACKAGES)
	@for language in kk ru en; do \
		if test -f config/locale/$$language/LC_MESSAGES/messages.po; then verb="update --ignore-pot-creation-date --no-fuzzy-matching"; \
		else verb=init; fi; \
		$(BIN)/pybabel --quiet $$verb --input-file $(CATALOGUE) --output-dir config/locale --locale $$language || exit 1; \
	done
	$(BIN)/pybabel --quiet compile --directory config/locale

clean:
	rm -rf .venv .cache build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage*
	find $(CODE) -name __pycache__ -type d -prune -exec rm -rf {} +
