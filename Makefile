PYTHON ?= python3
VENV := .venv
OLDEST := .venv-oldest-hub-client
OLDEST_PYTHON ?= python3.10
# What goes into $(VENV) beside gatehub.
WITH :=
PIP := $(VENV)/bin/python -m pip --quiet --disable-pip-version-check

.PHONY: help install demo test test-slow test-oldest test-oldest-hub-client check lint typecheck clean

help:
	@echo "make install    a virtual environment in $(VENV) with gatehub and what its tests need"
	@echo "make demo       train, serve and export a few small tasks, and check the answers"
	@echo "make test       run the tests"
	@echo "make test-slow  the tests that take more than a few seconds each"
	@echo "make test-oldest   the tests with the oldest Python and PyTorch it takes"
	@echo "make test-oldest-hub-client   the hub's tests with the oldest Hub client it takes"
	@echo "make check      lint, formatting, types and tests: what a change has to pass"
	@echo "make clean      remove caches and build output ($(VENV) stays)"

install: $(VENV)/.installed

demo: $(VENV)/.installed
	$(VENV)/bin/gatehub demo

# One process for each core, one thread in each: most tests are too small for more.
test: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest --numprocesses auto --dist worksteal

test-slow: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest --numprocesses auto --dist worksteal -m slow

# The tests with the first versions of Python and torch that gatehub takes, in an environment of
# their own; torchvision goes with torch.
test-oldest:
	$(MAKE) test VENV=.venv-oldest PYTHON=$(OLDEST_PYTHON) WITH='torch==2.6.0 torchvision==0.21.0'

# The hub's tests with the first version of huggingface_hub that gatehub takes: an environment
# with that alone, which finds everything else in $(VENV).
test-oldest-hub-client: $(OLDEST)/.installed
	OMP_NUM_THREADS=1 $(OLDEST)/bin/python -m pytest --numprocesses auto --dist worksteal \
		tests/hub tests/cli/test_hub.py tests/backbone/test_backbone.py tests/huggingface

$(OLDEST)/.installed: $(VENV)/.installed
	@$(VENV)/bin/python -m venv $(OLDEST)
	@$(OLDEST)/bin/python -m pip --quiet --disable-pip-version-check install 'huggingface-hub==1.0.0'
	@$(OLDEST)/bin/python -c 'import pathlib, sysconfig; pathlib.Path(sysconfig.get_path("purelib"), \
		"main.pth").write_text("import site; site.addsitedir(\"" + str(next(pathlib.Path("$(VENV)").resolve().glob("lib*/python*/site-packages"))) + "\")\n")'
	@touch $@

check: lint typecheck test

lint: $(VENV)/.installed-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

# mypy finds packages by folder, but cli/ and export/ lie beside gatehub/ and not inside
# it; so it gets a tree of links in the shape in which the package is installed.
typecheck: $(VENV)/.installed-dev
	@rm -rf build/typecheck && mkdir -p build/typecheck/gatehub
	@for path in gatehub/* cli export; do ln -s "../../../$$path" build/typecheck/gatehub/; done
	cd build/typecheck && ../../$(VENV)/bin/mypy --config-file ../../pyproject.toml \
		--cache-dir ../../.mypy_cache --package gatehub

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
		echo "gatehub needs Python 3.10 or newer, but $(PYTHON) is not: name another one with 'make PYTHON=python3.12'." >&2; \
		exit 1; }
	@$(PYTHON) -m venv $(VENV) || { \
		rm -rf $(VENV); \
		echo "$(PYTHON) could not make a virtual environment: on Debian and Ubuntu, install the package python3-venv." >&2; \
		exit 1; }

# A stamp is newer than pyproject.toml exactly when what that file asks for is installed.
$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	@echo "Installing gatehub and what it needs into $(VENV); PyTorch is large, so the first time takes minutes."
	@$(PIP) install 'pip>=23.1'  # older ones try version after version of what the tests need
	@$(PIP) install $(WITH) --editable '.[test]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "Installing the tools for 'make check' into $(VENV)."
	@$(PIP) install --editable '.[dev]'
	@touch $@

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find gatehub cli export tests -name __pycache__ -type d -prune -exec rm -rf {} +
