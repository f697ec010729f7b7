# make run    the shipped example, from nothing
# make test   everything CI checks
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: run test check lock docs clean test-lowest native

run: $(VENV)/installed
	$(BIN)/deploy run

test: $(VENV)/test-installed
	bash tests/setup.sh
	$(MAKE) check
	$(BIN)/pytest

check: $(VENV)/test-installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Regenerate what is generated: schemas, blocks of the README and its pages.
docs: $(VENV)/test-installed
	$(BIN)/python docs/generate.py

# The C programs for devices without Python; needs Debian's gcc-aarch64-linux-gnu and libc6-dev-arm64-cross.
native: $(VENV)/installed
	$(BIN)/python -m targets.native.build aarch64

# Pin everything again; needs uv.
lock:
	uv pip compile --quiet --universal --python-version 3.11 --no-header --extra tensorflow --extra torch --group test --group test-torch pyproject.toml -o requirements/test.lock
	uv pip compile --quiet --universal --python-version 3.11 --no-header --extra tensorflow -c requirements/test.lock pyproject.toml -o requirements/run.lock
	uv pip compile --quiet --universal --python-version 3.11 --no-header --resolution lowest-direct --extra tensorflow --group test pyproject.toml -o requirements/lowest.lock

# The oldest versions that pyproject.toml admits: the example runs on them, and the unit tests pass.
test-lowest:
	test -d .venv-lowest || $(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet --no-input --disable-pip-version-check -r requirements/lowest.lock
	.venv-lowest/bin/python -m pip install --quiet --no-input --disable-pip-version-check --no-deps -e .
	.venv-lowest/bin/deploy run --state .venv-lowest/state --out .venv-lowest/out
	.venv-lowest/bin/pytest -W default --ignore tests/unit/test_docs.py tests/unit

clean:
	rm -rf $(VENV) .deploy deploy-out dist

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or later is needed; try: make PYTHON=python3.11 run"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { \
	  if [ "$$(id -u)" = 0 ]; then apt-get update -q && apt-get install -y --no-install-recommends python3-venv; \
	  else echo "python3 has no venv module here; run: sudo apt-get install python3-venv"; exit 1; fi; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: $(VENV)/bin/python requirements/run.lock pyproject.toml
	$(BIN)/python -m pip install --quiet --no-input --disable-pip-version-check -r requirements/run.lock
	$(BIN)/python -m pip install --quiet --no-input --disable-pip-version-check --no-deps -e .
	@touch $@

$(VENV)/test-installed: $(VENV)/installed requirements/test.lock
	$(BIN)/python -m pip install --quiet --no-input --disable-pip-version-check -r requirements/test.lock
	@touch $@
