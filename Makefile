# What one types to run, test and change TokenHub. Needs GNU make, a POSIX shell, Python >= 3.11.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup run backup test test-gevent rehearse bench lint fmt check docs migrate lock clean

VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check --no-input
INSTALL := $(PIP) install --quiet --require-hashes --only-binary :all:

# A stamp carries the checksum of what was installed: the second time there is nothing to do, and
# a checkout with other requirements installs them.
RUNTIME := $(VENV)/runtime-$(shell cksum < requirements.txt | cut -d ' ' -f 1)
DEV := $(VENV)/dev-$(shell cat requirements.txt requirements-dev.txt | cksum | cut -d ' ' -f 1)

PYTEST_MARKS := not rehearse

# import-linter has a script only, and scripts of a virtual environment cannot be moved.
LINT_IMPORTS := import sys; from importlinter.cli import lint_imports; \
	sys.exit(lint_imports(no_logo=True))

help: ## Show this help
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1#\2/p' Makefile | awk -F '#' '{ printf "%-20s %s\n", $$1, $$2 }'

setup: $(RUNTIME) ## Make .venv with the pinned requirements
	@echo "$(VENV) is ready"

run: $(RUNTIME) ## Start the gateway on 127.0.0.1:8080, with demo models until a provider is added
	@TOKENHUB_DEMO="$${TOKENHUB_DEMO:-true}" exec $(PY) -m tokenhub run

backup: $(RUNTIME) ## Copy the database into a file, while the gateway runs
	@exec $(PY) -m tokenhub backup

test: $(DEV) ## All tests of at most a few minutes: plain, under gevent, with real processes
	@$(MAKE) --no-print-directory --jobs=2 --keep-going --output-sync=target \
		test-system test-units

# Side by side, for much of the time of real processes goes by in waiting; three at once would wait
# for each other.
.PHONY: test-system test-sdks test-units test-plain test-patched
test-units: $(DEV)
	@$(MAKE) --no-print-directory --jobs=1 --keep-going test-plain test-patched test-sdks

test-system: $(DEV)
	$(PY) -m pytest -p no:cacheprovider -m "$(PYTEST_MARKS) and system" --ignore=tests/system/sdks

test-sdks: $(DEV)
	$(PY) -m pytest -p no:cacheprovider tests/system/sdks

# What the commands use, for they are not patched; the app always is.
test-plain: $(DEV)
	$(PY) -m pytest -p no:cacheprovider -m "$(PYTEST_MARKS) and not system" --ignore=tests/web

# Without what waits for nothing: the patches cannot change it.
test-patched: $(DEV)
	$(PY) -m tests.run_under_gevent -p no:cacheprovider -m "$(PYTEST_MARKS) and not system" \
		--ignore=tests/rules --ignore=tests/transcripts

test-gevent: $(DEV) ## The tests under gevent only, with those that start processes
	$(PY) -m tests.run_under_gevent -m "$(PYTEST_MARKS)"

rehearse: $(DEV) ## The tests that take minutes: soak, chaos, big tables
	$(PY) -m pytest -m rehearse

bench: $(DEV) ## Measure the gateway against a bare proxy in the same run
	$(PY) -m benchmarks

lint: $(DEV) ## Style, types and layers; all of them, whichever fails
	@failed=; \
	$(PY) -m ruff check . || failed=1; \
	$(PY) -m ruff format --check . || failed=1; \
	$(PY) -m mypy || failed=1; \
	$(PY) -c '$(LINT_IMPORTS)' || failed=1; \
	test -z "$$failed"

fmt: $(DEV) ## Rewrite the sources in the house style
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

check: lint test ## Everything that must pass before a change is merged

docs: $(RUNTIME) ## Write the generated files: .env.example, docs/settings.md, docs/tokenhubctl.md
	$(PY) -m tokenhub settings env > .env.example.new
	$(PY) -m tokenhub settings docs > docs/settings.md.new
	mv .env.example.new .env.example
	mv docs/settings.md.new docs/settings.md
	$(PY) -m tokenhub.ctl manual > docs/tokenhubctl.md.new
	mv docs/tokenhubctl.md.new docs/tokenhubctl.md

migrate: $(RUNTIME) ## Bring the database to the newest schema
	$(PY) -m alembic upgrade head

# The newest releases that the .in files allow, with the hashes of their wheels.
LOCK := $(PY) -m piptools compile --quiet --upgrade --generate-hashes --allow-unsafe --strip-extras \
	--no-header --no-emit-options --pip-args=--only-binary=:all:

lock: $(DEV) ## Renew the pinned requirements
	$(LOCK) --output-file requirements.txt requirements.in
	$(LOCK) --output-file requirements-dev.txt requirements-dev.in

clean: ## Remove .venv and every cache; data stays
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(PY):
	@for python in $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11 /usr/bin/python3; do \
	  "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
	  found=$$python; \
	  "$$python" -c 'import ensurepip, venv' 2>/dev/null || continue; \
	  echo "Making $(VENV) with $$("$$python" --version)"; \
	  rm -rf $(VENV); \
	  exec "$$python" -m venv $(VENV); \
	done; \
	if [ "$$found" ]; \
	then echo "$$found cannot make virtual environments. On Debian: apt-get install python3-venv"; \
	else echo "Python 3.11 or later is needed. On Debian: apt-get install python3 python3-venv"; \
	fi >&2; \
	exit 1

$(RUNTIME): $(PY)
	@echo "Installing the pinned requirements"
	@$(INSTALL) -r requirements.txt
	@rm -f $(VENV)/runtime-*
	@touch $@

$(DEV): $(RUNTIME)
	@echo "Installing what tests and checks need"
	@$(INSTALL) -r requirements-dev.txt
	@rm -f $(VENV)/dev-*
	@touch $@
