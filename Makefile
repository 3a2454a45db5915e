# Every target sets up what it needs first: the environment lives in .venv and is built from the hashed lock file.
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
OUT    ?= demo-output
PYTEST_ARGS ?=
WORKERS ?= 2

export MPLBACKEND ?= Agg
export PYTHONUNBUFFERED := 1

# A worker takes a whole file, so that the fits of its module are made once; in their own order doctests come last, and
# no long file is left for one worker alone.
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

.PHONY: help venv demo test quick shuffle lint street docs wheel check-versions references bench lock clean

help:
	@echo "make demo   set up, fit the growth-curve example by NUTS and REML, write tables and plots to $(OUT)/"
	@echo "make test   set up and run the tests            (PYTEST_ARGS='-k kernel' to choose, WORKERS=0 for one process)"
	@echo "make quick  the tests that are not marked slow"
	@echo "make shuffle  all tests in a random order       (SEED=1 to repeat one)"
	@echo "make venv   the environment alone, in $(VENV)/"
	@echo "make lint   ruff, mypy, the contracts of imports"
	@echo "make street  draw the rooms and their imports into docs/_static/street.svg, and count them"
	@echo "make docs   build the documentation into docs/_build/html"
	@echo "make wheel  build source distribution and wheel into dist/, and use the wheel in an environment of its own"
	@echo "make check-versions  the tests under Python 3.13, 3.14 and the lowest versions that are allowed  (VERSIONS=3.13)"
	@echo "make references  the reference results of the tests by R again, compared with the frozen ones  (WRITE=1 replaces them)"
	@echo "make bench  time the fits against their peers in one run   (BENCH=reml, small_data, many_subjects, ...)"
	@echo "make lock   renew requirements/lock.txt, keeping its versions where possible  (UPGRADE=--upgrade for the newest)"

$(STAMP): requirements/lock.txt pyproject.toml tools/find_python.sh .python-version
	@python=$$(PYTHON='$(PYTHON)' ./tools/find_python.sh) || exit 1; \
	echo "Setting up $(VENV) with $$($$python --version); a first time takes a few minutes."; \
	if ! $(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 12))' >/dev/null 2>&1; then \
		$$python -m venv --clear $(VENV) || exit 1; \
	fi
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --progress-bar off --no-compile --require-hashes -r requirements/lock.txt
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation -e .
	@touch $@

venv: $(STAMP)

demo: $(STAMP)
	$(BIN)/hierlmm demo --out $(OUT)

# Processes that work side by side: the threads that a BLAS library starts in each would wait for one another.
test quick shuffle docs: export OPENBLAS_NUM_THREADS ?= 1

test: $(STAMP)
	$(PYTEST) $(PYTEST_ARGS)

quick: $(STAMP)
	$(PYTEST) -m 'not slow' $(PYTEST_ARGS)

SEED ?= default

shuffle: $(STAMP)
	$(PYTEST) -p randomly --randomly-seed=$(SEED) $(PYTEST_ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

street: $(STAMP)
	$(BIN)/python tools/street.py

docs: $(STAMP)
	$(BIN)/python -m sphinx -W --keep-going -j auto -b html docs docs/_build/html
	@echo "Open docs/_build/html/index.html"

wheel: $(STAMP)
	./tools/wheel_smoke.sh

VERSIONS ?= 3.13 3.14 lowest

check-versions: $(STAMP)
	./tools/check_versions.sh "$(VERSIONS)" $(PYTEST_ARGS)

WRITE ?=

# Needs R; no test does. Data that may not ship are used where HIERLMM_DATA names their folder.
references: $(STAMP)
	@Rscript --version >/dev/null 2>&1 || { echo "make references needs R (Rscript), with the packages of tests/reference/README.md"; exit 1; }
	@folder=$$(mktemp -d); $(BIN)/python tests/reference/R/reference_data.py $$folder/data && \
	Rscript tests/reference/R/run.R tests $$folder/data $(if $(WRITE),tests,$$folder/tests); \
	status=$$?; echo "Files made now: $(if $(WRITE),tests,$$folder/tests)"; exit $$status

BENCH ?= reml

bench: $(STAMP)
	$(BIN)/python benchmarks/$(BENCH).py

UPGRADE ?=

lock: $(STAMP)
	$(BIN)/uv pip compile --universal --python-version 3.12 --generate-hashes --no-header --no-annotate \
		--all-extras --quiet $(UPGRADE) -o requirements/lock.txt pyproject.toml

clean:
	rm -rf $(VENV) .venvs dist $(OUT) docs/_build docs/gallery docs/generated .pytest_cache .mypy_cache .ruff_cache
	find hierlmm tests -name __pycache__ -type d -prune -exec rm -rf {} +
