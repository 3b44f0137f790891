# make demo   installs recloop into .venv and runs the built-in ground-truth world
# make test   installs recloop into .venv and runs the tests
# make check  lint, format and types
# make docs   the pages, into docs/_build/html

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python -m
# Two processes, each with whole files: their fixtures are fitted once.
TWO := -n 2 --dist loadfile

# Small batches: one thread, and threads that sleep while they wait.
export OMP_NUM_THREADS ?= 1
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: demo test test-slow check docs clean

demo: $(VENV)/installed
	$(VENV)/bin/recloop demo

test: $(VENV)/installed
	$(RUN) pytest -q $(TWO) -m "not slow and not gpu"

test-slow: $(VENV)/installed
	$(RUN) pytest -q $(TWO) -m "slow and not gpu"

check: $(VENV)/installed
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	rm -rf build/types
	$(RUN) pip install --quiet --no-deps --target build/types .
	cp -r experiments/studies experiments/bench build/types/recloop/experiments/
	$(RUN) mypy -p recloop

docs: $(VENV)/installed
	$(RUN) sphinx -W -q -b html docs docs/_build/html

$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "recloop needs Python 3.11 or newer, %s is %s; run make PYTHON=/path/to/python3.11" % (sys.executable, sys.version.split()[0]))'
	$(PYTHON) -m venv $(VENV)
	$(RUN) pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(RUN) pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[all,dev]"
	touch $@

clean:
	rm -rf $(VENV) build dist docs/_build *.egg-info
