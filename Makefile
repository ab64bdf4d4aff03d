# Two front doors: `make reproduce` runs the study and builds the book, `make test` checks everything.
# Both create .venv first, the only step that needs a network.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
NOTEBOOKS := $(patsubst notebooks/%.ipynb,%,$(wildcard notebooks/*.ipynb))
BOOK := _build/html/index.html

# One thread per process: two notebooks share two cores without fighting, and sums are added in the same order everywhere.
export OMP_NUM_THREADS ?= 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help reproduce test test-units test-notebooks paper pages book lint clean quick venv \
  $(NOTEBOOKS) $(NOTEBOOKS:%=paper-%) $(NOTEBOOKS:%=page-%)

help:
	@echo "make reproduce   run every notebook in its quick profile, two at a time, and build the book"
	@echo "make test        unit tests, statistical tests and every notebook"
	@echo "make NAME        one notebook in its quick profile; NAME is one of: $(NOTEBOOKS)"
	@echo "make paper       the recorded run: every notebook with all seeds, into book/results (hours)"
	@echo "make paper-NAME  one notebook of the recorded run"
	@echo "make pages       the recorded numbers through today's notebooks, into book/results (seconds a page)"
	@echo "make book        build the book from book/results        make lint, make clean"

reproduce: $(READY)
	@$(MAKE) --no-print-directory -j2 quick
	@$(MAKE) --no-print-directory book

quick: $(NOTEBOOKS)

$(NOTEBOOKS): $(READY)
	@mkdir -p results/quick
	@echo "$@: running (quick profile)"
	@$(BIN)/papermill notebooks/$@.ipynb results/quick/$@.ipynb -p profile quick --engine ipc --kernel python3 --no-progress-bar --log-level WARNING
	@echo "$@: done, results/quick/$@.ipynb"

paper: $(NOTEBOOKS:%=paper-%)

# papermill writes cell by cell; the committed copy is replaced only by a run that reached its end.
$(NOTEBOOKS:%=paper-%): paper-%: $(READY)
	@mkdir -p _build/paper book/results
	$(BIN)/papermill notebooks/$*.ipynb _build/paper/$*.ipynb -p profile paper --engine ipc --kernel python3
	@mv _build/paper/$*.ipynb book/results/$*.ipynb
	@$(BIN)/nagkit verify --write
	@echo "$*: recorded, book/results/$*.ipynb"

# The committed numbers through today's notebooks, judge and figures: the pages of the book, without computing anything.
pages: $(NOTEBOOKS:%=page-%)

$(NOTEBOOKS:%=page-%): page-%: $(READY)
	@$(BIN)/papermill notebooks/$*.ipynb book/results/$*.ipynb -p profile recorded --engine ipc --kernel python3 --no-progress-bar --log-level WARNING
	@echo "$*: book/results/$*.ipynb"

book: $(READY)
	@$(BIN)/jupyter-book build --quiet --keep-going book/
	@echo "The book is ready; open file://$(CURDIR)/$(BOOK)"

test: $(READY)
	@$(MAKE) --no-print-directory -j2 --output-sync=target test-units test-notebooks

test-units: $(READY)
	$(BIN)/pytest

# The notebooks run on the embedded data, wherever the tables are, so that each is compared with its golden numbers.
test-notebooks: $(READY)
	env -u NAGKIT_MIRROR -u NAGKIT_IMAGES NAGKIT_CACHE=$(CURDIR)/_build/test $(BIN)/pytest --nbval-lax --nbval-cell-timeout=300 notebooks

lint: $(READY)
	$(BIN)/ruff check --extend-exclude book/results .

venv: $(READY)

$(READY): constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "nagkit needs Python 3.11 or newer, and '$(PYTHON)' is not; name another one: make PYTHON=python3.12"; exit 2; }
	@echo "Installing into $(VENV): a few minutes, and the only step that needs a network"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	@touch $@

clean:
	rm -rf _build results/quick build dist .pytest_cache .ruff_cache .hypothesis
