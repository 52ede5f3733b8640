# Everything runs in .venv, which the first target that needs it makes. `make demo` and `make test` are all a newcomer needs.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# One training thread: the figures do not depend on how many cores the machine has.
export OMP_NUM_THREADS ?= 1

help:  ## this text
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

# torch first and pinned, so that nothing below asks for another build of it; then what building needs; then softknee.
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "softknee needs Python 3.10 or newer; try make PYTHON=python3.12 …")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing softknee into $(VENV) (once) …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch numpy setuptools wheel
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-build-isolation -e '.[dev]'
	@touch $@

# The compiled kernels, again whenever their source changes.
$(VENV)/.kernels: $(VENV)/.installed setup.py $(wildcard src/softknee/kernels/cpu/*.cpp src/softknee/kernels/cpu/*.h)
	@echo "Building the kernels …"
	@$(BIN)/python setup.py --quiet build_ext --inplace
	@touch $@

install: $(VENV)/.kernels  ## set up .venv

demo: install  ## a network that does not learn: the cause, the repair, the proof (build/demo/report.html)
	@$(BIN)/softknee demo --output build/demo

test: install  ## the whole suite, at most 10 minutes on 2 cores
	@$(BIN)/python -m pytest -n 2

check: install  ## lint, format, types, generated files
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/python tools/stubs.py --check || (echo "functional.pyi is out of date: run python tools/stubs.py" && exit 1)
	@$(BIN)/python tools/kernels.py --check || (echo "the kernels are out of date: run python tools/kernels.py" && exit 1)
	@$(BIN)/python tools/polynomials.py --check || (echo "polynomials.h is out of date: run tools/polynomials.py" && exit 1)
	@$(BIN)/python tools/accuracy.py --check || (echo "docs/accuracy.md is out of date: run python tools/accuracy.py --docs" && exit 1)

format: install  ## mend what lint and format can mend
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .
	@$(BIN)/python tools/stubs.py
	@$(BIN)/python tools/kernels.py

docs: install  ## the site, to be opened offline: build/site/index.html; a link that leads nowhere fails
	@$(BIN)/python tools/docs.py
	@$(BIN)/mkdocs build --strict
	@$(BIN)/python tools/docs.py --check

accuracy: install  ## how exact every path of every activation is (5 minutes); writes accuracy.json and docs/accuracy.md
	@$(BIN)/python tools/accuracy.py

exhaustive: install  ## all 2³² float32 inputs of every kernel, f and f′ (1 hour, goes on after Ctrl-C); writes ulp.json
	@$(BIN)/python tools/exhaustive.py

bench: install  ## import cost, cost of every entry, cost of a call, the kernels, softmax, kernelize, watch's overhead, report size, false alarms; writes benchmarks/results/
	@$(BIN)/python benchmarks/imports.py
	@$(BIN)/python benchmarks/costs.py
	@$(BIN)/python benchmarks/calls.py
	@$(BIN)/python benchmarks/softmax.py
	@$(BIN)/python benchmarks/cpu.py
	@$(BIN)/python benchmarks/kernelize.py
	@$(BIN)/python benchmarks/allocation.py
	@$(BIN)/python benchmarks/watch.py
	@$(BIN)/python benchmarks/healthy.py
	@$(BIN)/python benchmarks/report.py

bench-identify: install  ## which activation a function, a file, a port really uses: how often that is told (10 minutes)
	@$(BIN)/python benchmarks/identify.py

clean:  ## remove .venv, build products and caches
	rm -rf $(VENV) build dist .ruff_cache .mypy_cache .hypothesis src/*.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: help install demo test check format docs accuracy exhaustive bench bench-identify clean
