# The two commands a newcomer needs: `make demo` and `make test`. Each makes the environment it runs in.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test lint bench docs claims clean

demo: $(VENV)/.installed
	$(BIN)/headwater demo --out runs/demo-$$(date +%Y%m%d-%H%M%S)

test: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.dev
	for script in views overhead probe index estimators; do $(BIN)/python benchmarks/$$script.py || exit 1; done

docs: $(VENV)/.installed
	$(BIN)/python docs/generate.py

claims: $(VENV)/.dev
	$(BIN)/python benchmarks/claims.py
	$(BIN)/python benchmarks/digits.py --write

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/.dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps 'aeon>=1.6' # its series; its code wants another numpy
	touch $@

clean:
	rm -rf $(VENV) runs
