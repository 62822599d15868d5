# `make demo` shows the whole road from a trained checkpoint to answers, `make test` runs every check that CI runs.
# Both need nothing but Python, 3.11 for choice, and an index that pip reaches; PYTHON=... names another interpreter.

ifndef PYTHON
# A name on PATH may be a version manager's stub for a Python that is not selected, so each is tried.
PYTHON := $(firstword $(foreach name,python3.11 python3 python3.12 python3.10,\
    $(shell $(name) -c 'import sys; sys.version_info >= (3, 10) and print("$(name)")' 2>/dev/null)))
endif

# Linters beside each other, and beside the installation of optimum; the tests run alone.
MAKEFLAGS += --jobs=2

BIN := .venv/bin
INSTALLED := .venv/installed
OPTIMUM := $(CURDIR)/.venv/optimum
# What both runs of the tests make of torch alone, made by the first.
export TESTS_ONCE := $(CURDIR)/.venv/once
ZENSICAL := $(CURDIR)/.venv/docs
OF_TRANSFORMERS := tests/huggingface tests/bench/test_optimum_peer.py tests/cli/test_optimum_command.py \
    $(addprefix tests/checkpoint/test_,convert_fid.py huggingface.py fid.py tokenizer.py) \
    tests/bench/test_run.py::test_every_contender_decodes_just_so_many_tokens \
    tests/packaging/test_imports.py::test_optimum_cli_starts_without_our_heavy_imports \
    tests/packaging/test_wheel.py::test_optimum_finds_our_command_where_the_wheel_is_installed
DEMO := demo-output
PORT := 8080
GLIMMER := $(BIN)/glimmer-export

.DELETE_ON_ERROR:
.PHONY: help setup demo serve test lint types imports docs tests tests-optimum clean

help:
	@echo 'make demo   export the demo checkpoint, build its memory store, quantise it, compare, ask three questions'
	@echo 'make serve  serve the demo: a page to ask it questions, at http://127.0.0.1:8080; PORT=... is another port'
	@echo 'make test   ruff, mypy, import-linter and pytest, as CI runs them'
	@echo 'make docs   build the site of docs/ in site/; a link that leads nowhere is an error'
	@echo 'make clean  remove .venv and $(DEMO)'

setup: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@test -n '$(PYTHON)' || { echo 'no Python 3.10 or newer found: install one, or name it with PYTHON=...' >&2; exit 1; }
	@echo 'installing into .venv (minutes where packages must be downloaded)'
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install -qq --no-compile -c constraints.txt -e '.[dev]'
	@touch $@

# The models of demo and tests are tiny: a second thread gains nothing, and on busy cores threads wait for each other
# many times longer than they compute.
demo serve tests: export OMP_NUM_THREADS := 1

demo: setup
	$(GLIMMER) demo-data -o $(DEMO)/world --questions 200 --overwrite
	$(GLIMMER) export $(DEMO)/world/checkpoint -o $(DEMO)/bundle --overwrite
	$(GLIMMER) memory build $(DEMO)/bundle --corpus $(DEMO)/world/corpus.jsonl --codec int8 -o $(DEMO)/store --overwrite
	$(GLIMMER) parity $(DEMO)/bundle --checkpoint $(DEMO)/world/checkpoint --store $(DEMO)/store \
	    --questions $(DEMO)/world/questions.jsonl
	$(GLIMMER) calibrate $(DEMO)/bundle --store $(DEMO)/store --questions $(DEMO)/world/questions.jsonl --samples 100
	$(GLIMMER) quantize $(DEMO)/bundle --precision int8 --target cpu -o $(DEMO)/bundle-int8 --overwrite
	$(GLIMMER) parity $(DEMO)/bundle-int8 --reference $(DEMO)/bundle --store $(DEMO)/store \
	    --questions $(DEMO)/world/questions.jsonl --batch-size 32 --html $(DEMO)/parity.html --gate demo
	$(GLIMMER) ask $(DEMO)/bundle --store $(DEMO)/store "On which date was Iondax Syndicate founded?"
	$(GLIMMER) ask $(DEMO)/bundle --store $(DEMO)/store "Opttrix Refinery [SEP] product"
	$(GLIMMER) ask $(DEMO)/bundle --store $(DEMO)/store "Where is Maldale Cross located?"

# What `make demo` has left is served as it is; each of these stands there whole or not at all.
$(DEMO)/world: | setup
	$(GLIMMER) demo-data -o $@ --questions 200

$(DEMO)/bundle: | $(DEMO)/world
	$(GLIMMER) export $(DEMO)/world/checkpoint -o $@

$(DEMO)/store: | $(DEMO)/bundle
	$(GLIMMER) memory build $(DEMO)/bundle --corpus $(DEMO)/world/corpus.jsonl --codec int8 -o $@

# The browser comes once something listens: how long that takes is the machine's affair.
serve: | $(DEMO)/store
	@test -z "$$DISPLAY$$WAYLAND_DISPLAY" || for second in $$(seq 60); do sleep 1; \
	    if $(BIN)/python -c 'import socket; socket.create_connection(("127.0.0.1", $(PORT)))' 2>/dev/null; then \
	        $(BIN)/python -m webbrowser http://127.0.0.1:$(PORT)/ >/dev/null; break; fi; done &
	@echo 'Open the page in a browser and ask it: When did Garvin Kingscroft get married?   Ctrl-C ends it.'
	$(GLIMMER) serve $(DEMO)/bundle --store $(DEMO)/store --port $(PORT)

# optimum and the release of transformers that it needs, in a folder that goes before .venv's own.
$(OPTIMUM)/installed: constraints-optimum.txt $(INSTALLED)
	@rm -rf $(OPTIMUM)
	@$(BIN)/python -m pip install -qq --no-compile --no-deps --target $(OPTIMUM) -r constraints-optimum.txt
	@touch $@

# What builds the site of docs/, in a folder that goes before .venv's own: nothing else needs it.
$(ZENSICAL)/installed: constraints-docs.txt $(INSTALLED)
	@rm -rf $(ZENSICAL)
	@mkdir -p $(ZENSICAL)
	@$(BIN)/python -m pip install -qq --no-compile --no-deps --target $(ZENSICAL) -r constraints-docs.txt
	@touch $@

docs: $(ZENSICAL)/installed
	@if $(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then \
	    PYTHONPATH=$(ZENSICAL) $(BIN)/python -m zensical build --strict --clean; \
	else echo 'docs: not built, Zensical needs Python 3.11'; fi

test: lint types imports $(OPTIMUM)/installed docs tests tests-optimum

lint: setup
	$(BIN)/ruff check .

types: setup
	$(BIN)/mypy

imports: setup
	$(BIN)/lint-imports

# After the linters, so that what is cheap fails first.
tests: setup lint types imports $(OPTIMUM)/installed
	@rm -rf $(TESTS_ONCE)
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

# With transformers 4.57: what opens checkpoints, and what needs optimum.
tests-optimum: export OMP_NUM_THREADS := 1
tests-optimum: tests
	PYTHONPATH=$(OPTIMUM) $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile $(OF_TRANSFORMERS)

clean:
	rm -rf .venv $(DEMO)
