# `make demo` and `make test` do everything on a fresh machine; PYTHON=python3.13 picks another interpreter.
PYTHON ?= python3
VENV ?= .venv/$(notdir $(PYTHON))
BIN = $(VENV)/bin
PPNMF_DATA ?=
export PPNMF_DATA

.PHONY: demo test test-slow bench lint clean

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "ppnmf needs Python >= 3.11, %s is %d.%d: try make PYTHON=python3.12" % (sys.executable, *sys.version_info[:2]))'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group dev --editable .
	touch $@

demo: $(VENV)/.installed
	$(BIN)/ppnmf demo --out demo

test: $(VENV)/.installed
	$(BIN)/python -m pytest

test-slow: $(VENV)/.installed
	$(BIN)/python -m pytest -m slow

bench: $(VENV)/.installed
	@for file in benchmarks/*.py; do $(BIN)/python $$file || exit 1; done

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf .venv demo
