# Every command of the project; `make help` says what each is for. On the command line,
# PYTHON=python3.12 sets up with another Python, INDEX=URL lets pip look in one more package index,
# CONSTRAINTS= takes the newest releases that settings.ini admits, and ALL=1 adds the slow tests.
WINDOWS := $(filter Windows_NT,$(OS))
PYTHON ?= $(if $(WINDOWS),python,python3)
CONSTRAINTS ?= constraints.txt
INDEX =
ALL =
ARGS ?=

BIN := .venv/$(if $(WINDOWS),Scripts,bin)
READY := .venv/.ready
BEGUN := .venv/.begun
INSTALL = $(BIN)/python -m pip install --quiet $(if $(CONSTRAINTS),-c $(CONSTRAINTS)) $(if $(INDEX),--extra-index-url $(INDEX)) -e '.[dev]'
# The learner's own notebooks, without new versions that were put beside them.
MY = $(sort $(filter-out %.new.ipynb,$(wildcard my/[0-9][0-9]_*.ipynb)))

.PHONY: help setup lab status grade run test bench workbook refresh hooks
.DEFAULT_GOAL := help

help: ## this list
	@sed -n 's/^\([a-z]*\):[^#]*## /  make \1 | /p' Makefile | awk -F'|' '{printf "%-16s%s\n", $$1, $$2}'

ifeq ($(wildcard $(READY)),)
# The first time. Interrupted, it leaves .begun behind and is started afresh; an environment made by hand is added to.
NEEDED := $(shell sed -n 's/^min_python = *//p' settings.ini)
OLD := Python %s is too old: the course needs $(NEEDED) or later. Name one that is there, as in: make $(MAKECMDGOALS) PYTHON=python$(NEEDED)
$(READY):
	@$(PYTHON) -c 'import sys; sys.version_info >= tuple(map(int, "$(NEEDED)".split("."))) or sys.exit("$(OLD)" % sys.version.split()[0])'
	@if test -e $(BEGUN); then rm -rf .venv/*; fi
	@if test -z "$$(ls .venv 2>/dev/null)"; then mkdir -p .venv && touch $(BEGUN); fi
	$(PYTHON) -m venv .venv
	$(INSTALL)
	@touch $(READY) && rm -f $(BEGUN)
else
$(if $(INDEX),$(info INDEX has no effect on what is installed already: `rm -r .venv` first, and all of it is looked for there.))
# From then on it is brought up to date where pip can do it, and kept as it is where pip cannot: offline, for one.
# A package whose installation was cut off has no RECORD, and pip would take it for a whole one.
$(READY): settings.ini setup.py constraints.txt
	@for info in .venv/lib/*/site-packages/*.dist-info .venv/Lib/site-packages/*.dist-info; do test -e "$$info/RECORD" || rm -rf "$$info"; done
	@if $(INSTALL) --no-build-isolation --retries 1; then touch $(READY); else \
	echo "Changed since .venv was set up: $?. It could not be brought up to date, for the reason that pip gives above," \
	"and is used as it is; \`make setup\` tries again. Asked for and not installed:" \
	$$($(BIN)/python -m pip freeze --all | sed 's/+.*//' | grep -vxFf - constraints.txt | grep ==) >&2; $(if $(filter setup,$(MAKECMDGOALS)),false,true); fi
endif

setup: $(READY) ## create .venv and install everything (the others do it when needed)

lab: $(READY) ## open your own copies of the lessons in JupyterLab, or ARGS=nbs/01_matmul.ipynb; ARGS="--no-browser --port 9999" are passed on
	@$(BIN)/python tools/lab.py $(ARGS)

status: $(READY) ## show which exercises you have passed, and what is next
	@test -d my || { echo 'You have no copies of the lessons yet: `make lab` makes them.' >&2; exit 1; }
	@cd my && ../$(BIN)/python -m groundup.checks --status

grade: $(READY) ## run your copies from a fresh kernel and report which exercises pass; ARGS=my/03_einsum.ipynb for one
	@$(BIN)/python -m groundup.checks $(or $(ARGS),$(MY))

run: $(READY) ## run every lesson from a fresh kernel into _build/, leaving yours as they are; ARGS=nbs/01_matmul.ipynb for one
	$(BIN)/python tools/run.py $(ARGS)

# Lessons and tests make many small products, several at a time: threads that wait for each other only cost time.
test: export OMP_NUM_THREADS = 1
test: $(READY) ## test every lesson and the package, then check that all is in step; ALL=1 for the slow tests too
	$(BIN)/nbdev_test --do_print
	$(BIN)/nbdev_test --do_print --path index.ipynb
	$(BIN)/python -m pytest -n logical --maxprocesses 8 --dist loadfile $(if $(ALL),-m "") --ignore tests/test_in_step.py
	$(BIN)/python -m pytest --tb=line tests/test_in_step.py

bench: $(READY) ## time the package beside PyTorch, as ratios
	$(BIN)/python benchmarks/bench.py $(ARGS)

workbook: $(READY) ## for maintainers: write the learner's edition, workbook/; ARGS="--teacher DIR" for one with the solutions
	$(BIN)/python tools/workbook.py $(ARGS)

refresh: $(READY) ## for maintainers: export, run in place what has changed (or ARGS), clean, remake workbook/ and README
	$(BIN)/nbdev_export
	$(BIN)/python tools/run.py --in-place $(ARGS)
	$(BIN)/python tools/pages.py
	$(BIN)/python tools/workbook.py

# nbdev's hooks are called by name, which works in an activated environment only; a clone's own settings may hold full paths.
hooks: $(READY) ## for maintainers: nbdev's git and Jupyter hooks, for clean notebook diffs
	$(BIN)/nbdev_install_hooks
	@git config --local merge.nbdev-merge.driver '"$(abspath $(BIN))/nbdev_merge" %O %A %B %P'
	@hook=$$(git rev-parse --git-path hooks/post-merge) && printf '#!/bin/sh\n"%s"\n' "$(abspath $(BIN))/nbdev_trust" > "$$hook" && chmod +x "$$hook"
