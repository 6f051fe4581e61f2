# make demo: set up and run on the built-in simulated microscope.  make test: set up and run every test.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

.PHONY: demo test lint clean

$(VENV)/.runtime: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade pip
	$(BIN)/python -m pip install -q -e .
	touch $@

$(VENV)/.dev: $(VENV)/.runtime
	$(BIN)/python -m pip install -q -e .[dev,train,convert,calibrate]
	touch $@

demo: $(VENV)/.runtime
	$(BIN)/rbcedge run "sim:?seed=7&ova=0.12&tea=0.03&bur=0.03&pan=raster" --until 400

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: $(VENV)/.dev lint
	$(BIN)/python -m pytest

clean:
	rm -rf $(VENV) build dist *.egg-info
