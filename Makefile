# `make demo` sets up and runs the main job; `make test` sets up and tests.
PYTHON ?= python3
VENV ?= .venv
WORKDIR ?= runs/digits
# A whole run and the parts that changes of JAX, Flax, Orbax and NumPy break first.
FAST = tests/metrics tests/students \
  $(addprefix tests/data/test_,image_preparation.py loaders.py stock_tfds.py tfds.py) \
  $(addprefix tests/runtime/test_,checkpoint.py damaged_files.py lock.py memory.py) \
  tests/repo/test_configs.py::test_debug_variant_runs_the_whole_pipeline
UV := $(shell command -v uv 2>/dev/null)

.PHONY: demo install test test-fast test-lowest test-long lint format docs docs-links clean

demo: install
	$(VENV)/bin/python -m launch.run --config=configs/digits.py --workdir=$(WORKDIR)
	@echo "The digits show that everything works, not that perturbations help:"
	@echo "one network does almost as well on them as four, so no student has a"
	@echo "gap worth closing."

install: $(VENV)/.installed

test: $(VENV)/.installed-test
	$(VENV)/bin/python -m pytest -n 2 --dist worksteal -m "not long" tests

# For another Python: make test-fast PYTHON=python3.13 VENV=.venv-3.13
test-fast: $(VENV)/.installed-test
	$(VENV)/bin/python -m pytest -q -n 2 -m "not long" $(FAST)

# The lowest versions that setup.py allows: a constraint for each ">=".
test-lowest:
	mkdir -p build
	sed -nE 's/^ +"([A-Za-z0-9_-]+)>=([0-9.]+).*/\1==\2/p' setup.py > build/lowest.txt
	PIP_CONSTRAINT=$(CURDIR)/build/lowest.txt UV_CONSTRAINT=$(CURDIR)/build/lowest.txt \
	  $(MAKE) test-fast VENV=.venv-lowest

test-long: $(VENV)/.installed-long
	$(VENV)/bin/python -m pytest -n 2 tests

lint: $(VENV)/.installed-test
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

format: $(VENV)/.installed-test
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

# Warnings are errors; nothing is fetched but packages.
docs: $(VENV)/.installed-docs
	$(VENV)/bin/python -m sphinx -b html -W --keep-going -n -q docs build/docs
	@echo "build/docs/index.html"

# The links that lead elsewhere, of the README too; needs the network.
docs-links: $(VENV)/.installed-docs
	$(VENV)/bin/python -m sphinx -b linkcheck -t links -q docs build/links

clean:
	rm -rf $(VENV) .venv-lowest build *.egg-info

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "edp needs Python 3.11 or later; $(PYTHON) is older." \
	    "Try: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 2; }
ifdef UV
	$(UV) venv --seed --python $(PYTHON) $(VENV)
else
	$(PYTHON) -m venv $(VENV)
endif

ifdef UV
PIP = $(UV) pip install --python $(VENV)/bin/python
else
PIP = $(VENV)/bin/python -m pip install --disable-pip-version-check
endif

$(VENV)/.installed: setup.py | $(VENV)/bin/python
	$(PIP) -e .
	@touch $@

$(VENV)/.installed-test: setup.py | $(VENV)/bin/python
	$(PIP) -e ".[test]"
	@touch $@ $(VENV)/.installed

# With the converter to ONNX, whose tests are skipped without it.
$(VENV)/.installed-long: setup.py | $(VENV)/bin/python
	$(PIP) -e ".[test,onnx]"
	@touch $@ $(VENV)/.installed-test $(VENV)/.installed

$(VENV)/.installed-docs: setup.py | $(VENV)/bin/python
	$(PIP) -e ".[docs]"
	@touch $@ $(VENV)/.installed
