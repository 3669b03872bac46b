# Everything runs in .venv, made with the standard venv module and pip. `make PYTHON=python3.12 demo` takes another interpreter.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO_DIR ?= lethe-demo
ROUNDS ?= 10

.PHONY: demo test test-slow laws lint bench up clean install

demo: $(STAMP) ## run the whole walk on data that every installation has
	$(BIN)/lethe demo --dir $(DEMO_DIR)

test: $(STAMP) ## the whole suite, without a GPU; in the order of the folders, so that the long files of tests/flows come early
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-slow: $(STAMP)
	$(BIN)/python -m pytest -m slow

laws: $(STAMP) ## the properties alone, on other examples in each of ROUNDS
	for round in $$(seq $(ROUNDS)); do $(BIN)/python -m pytest -q -n 2 -m "hypothesis and not gpu" --hypothesis-profile=laws || exit 1; done

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/pyright --pythonpath $(BIN)/python

bench: $(STAMP) ## one table, ratios within one run
	$(BIN)/python -m tests.bench

up: $(STAMP)
	$(BIN)/lethe up

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Lethe needs Python 3.11 or newer; use: make PYTHON=python3.x")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) $(DEMO_DIR) build *.egg-info .pytest_cache .ruff_cache .hypothesis
