# make test    set up a virtual environment and run the tests, two files at a time
# make demo    set up, then train teachers and students on drawn images and print one table
# make lint    ruff
# make docs    the pages of docs/ as a site, in site/
#
# PYTHON=python3.12     another interpreter (3.10 to 3.13)
# TORCH_INDEX=https://download.pytorch.org/whl/cpu    take torch from this index

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
TORCH_INDEX ?=

.PHONY: test demo lint docs clean

# torch goes first, and pinned: a plain `pip install` of its dependants would fetch the newest.
$(VENV)/installed: requirements.txt setup.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) \
		"$$(grep '^torch==' requirements.txt)"
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

test: $(VENV)/installed
	$(BIN)/ruff check .
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile $(PYTEST_ARGS)

demo: $(VENV)/installed
	$(BIN)/python tools/demo.py

docs: $(VENV)/installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

lint: $(VENV)/installed
	$(BIN)/ruff check .

clean:
	rm -rf $(VENV) build site *.egg-info
