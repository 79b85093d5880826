# `make demo` and `make test` do everything on a fresh machine; PYTHON=python3.13 picks another interpreter.
PYTHON ?= python3
VENV ?= .venv/$(notdir $(PYTHON))
BIN = $(VENV)/bin
PPNMF_DATA ?=
export PPNMF_DATA

.PHONY: setup demo test test-slow bench docs lint clean

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "ppnmf needs Python >= 3.11, %s is %d.%d: try make PYTHON=python3.12" % (sys.executable, *sys.version_info[:2]))'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group dev --editable .
	touch $@

setup: $(VENV)/.installed

demo: $(VENV)/.installed
	$(BIN)/ppnmf compare digits --rank 10 --out demo/digits
	$(BIN)/ppnmf rank toy60x40 --ranks 1:6 --method chib --out demo/rank-of-a-drawn-matrix
	$(BIN)/ppnmf rank digits --ranks 10,15,20,25 --method heldout --draws 50 --warmup 50 --out demo/rank-of-digits
	@echo "Pictures, posteriors and run.json are in demo/"

test: $(VENV)/.installed
	$(BIN)/python -m pytest -n auto --dist loadfile

test-slow: $(VENV)/.installed
	$(BIN)/python -m pytest -m slow

bench: $(VENV)/.installed
	@for file in benchmarks/*.py; do $(BIN)/python $$file || exit 1; done

docs: $(VENV)/.installed
	$(BIN)/python -m sphinx --fail-on-warning --quiet docs docs/_build
	@echo "Open docs/_build/index.html"

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --strict --follow-imports silent tests/typed/usage.py

clean:
	rm -rf .venv demo docs/_build
	find ppnmf -name '*.nb[ic]' -delete  # compiled kernels: Numba does not see a change in a module they inline
