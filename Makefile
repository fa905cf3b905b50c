# make bench: check and time all backends on small cases, and write a report.
# make test: run all tests.   make test-oldest: try the oldest allowed versions of dependencies.
# make docs: build the documentation into build/docs.   make asv-page: publish asv's results as a page that works offline.
# All create .venv and install what they need from package registries.

PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: bench test test-oldest lint types docs asv-page clean FORCE

bench: .venv/bench
	$(BIN)/rnnbench run quick --quick || [ $$? -eq 3 ]
	@echo "report: $$($(BIN)/rnnbench report results -o report.html)"

# two processes; each runs whole files, so that module fixtures are set up once
test: .venv/test
	$(BIN)/python -m pytest -n 2 --dist loadfile

# install the lower bounds of pyproject.toml in a separate environment
test-oldest:
	folder=$$(mktemp -d) && $(PYTHON) tools/oldest/oldest.py "$$folder"; code=$$?; rm -rf "$$folder"; exit $$code

lint: build/types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	cd build/types && ../../$(BIN)/lint-imports --no-logo ../../pyproject.toml

types: build/types
	$(BIN)/pyright --pythonpath $(BIN)/python build/types/rnnbench

# pyright and import-linter do not support package-dir, so they read the installed package
build/types: .venv/test FORCE
	rm -rf build/types
	$(INSTALL) --no-deps --target build/types .
FORCE:

# warnings are errors; nothing is fetched; tutorials run
docs: .venv/docs
	$(BIN)/python -m sphinx -q -W --keep-going -E docs build/docs

# asv's page loads scripts from other servers; npm downloads them
asv-page: .venv/test
	$(BIN)/asv publish
	$(BIN)/python tools/asv_offline/asv_offline.py .asv/html

.venv/bench: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(INSTALL) -e '.[torch,report]'
	@touch $@

.venv/test: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(INSTALL) -e '.[torch,report,peers,dev]'
	@touch $@ .venv/bench

.venv/docs: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(INSTALL) -e '.[docs]'
	@touch $@

clean:
	rm -rf .venv build dist docs/auto_examples *.egg-info .pytest_cache .ruff_cache .hypothesis
