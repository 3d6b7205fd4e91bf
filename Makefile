# Every command of the project; `make help` says what each is for.
# PYTHON=python3.12 sets up with another Python; CONSTRAINTS= takes the newest releases that settings.ini admits.
WINDOWS := $(filter Windows_NT,$(OS))
PYTHON ?= $(if $(WINDOWS),python,python3)
CONSTRAINTS ?= constraints.txt
ARGS ?=

BIN := .venv/$(if $(WINDOWS),Scripts,bin)
READY := .venv/.ready
BEGUN := .venv/.begun
# Jupyter refuses to serve as root, which is what one is in most containers, unless told that it is meant.
ROOT := $(if $(filter 0,$(shell id -u)),--allow-root)

.PHONY: help setup lab run test bench refresh hooks
.DEFAULT_GOAL := help

help: ## this list
	@sed -n 's/^\([a-z]*\):[^#]*## /  make \1 | /p' Makefile | awk -F'|' '{printf "%-16s%s\n", $$1, $$2}'

# An interrupted set-up leaves .begun behind and is started afresh; an environment made by hand is added to.
$(READY): settings.ini setup.py constraints.txt
	@if test -e $(BEGUN); then rm -rf .venv; fi
	@mkdir -p .venv && touch $(BEGUN) && rm -f $(READY)
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet $(if $(CONSTRAINTS),-c $(CONSTRAINTS)) -e '.[dev]'
	@touch $(READY) && rm $(BEGUN)

setup: $(READY) ## create .venv and install everything (the others do it when needed)

lab: $(READY) ## open the course in JupyterLab; ARGS="--no-browser --port 9999" are passed on
	$(BIN)/jupyter-lab index.ipynb $(ROOT) $(ARGS)

run: $(READY) ## run every lesson from a fresh kernel into _build/, leaving yours as they are; ARGS=nbs/01_matmul.ipynb for one
	$(BIN)/python tools/run.py $(ARGS)

# Lessons and tests make many small products, two lessons at a time: threads that wait for each other only cost time.
test: export OMP_NUM_THREADS = 1
test: $(READY) ## check that all is in step, then test every lesson and the package
	$(BIN)/python -m pytest tests/test_in_step.py
	$(BIN)/nbdev_test
	$(BIN)/nbdev_test --path index.ipynb
	$(BIN)/python -m pytest --ignore tests/test_in_step.py

bench: $(READY) ## time the package beside PyTorch, as ratios
	$(BIN)/python benchmarks/bench.py $(ARGS)

refresh: $(READY) ## for maintainers: export, run the lessons in place, clean, remake README
	$(BIN)/nbdev_export
	$(BIN)/python tools/run.py --in-place $(ARGS)
	$(BIN)/python tools/readme.py

hooks: $(READY) ## for maintainers: nbdev's git and Jupyter hooks, for clean notebook diffs
	$(BIN)/nbdev_install_hooks
