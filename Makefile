# make bench: check and time all backends on small cases, and write a report.   make test: run all tests.
# make asv-page: publish asv's results as a page that needs no network.   make test-oldest: try the oldest versions allowed.
# They create .venv and install what they need from the package registries.

PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: bench test test-oldest lint types asv-page clean FORCE

bench: .venv/bench
	$(BIN)/rnnbench run quick --quick || [ $$? -eq 3 ]
	@echo "report: $$($(BIN)/rnnbench report results -o report.html)"

# two processes, each with whole files, so that a module's fixture is made once
test: .venv/test
	$(BIN)/python -m pytest -n 2 --dist loadfile

# the lower bounds of pyproject.toml, in an environment of their own
test-oldest:
	folder=$$(mktemp -d) && $(PYTHON) tools/oldest/oldest.py "$$folder"; code=$$?; rm -rf "$$folder"; exit $$code

lint: build/types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	cd build/types && ../../$(BIN)/lint-imports --no-logo --config ../../pyproject.toml

types: build/types
	$(BIN)/pyright --pythonpath $(BIN)/python build/types/rnnbench

# the package as it is installed: pyright and import-linter do not know of package-dir
build/types: .venv/test FORCE
	rm -rf build/types
	$(INSTALL) --no-deps --target build/types .
FORCE:

# asv's page loads its scripts from others' servers: npm brings them here
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

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
