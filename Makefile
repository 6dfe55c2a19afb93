# Everything happens in .venv of this checkout. Install once per change of pyproject.toml.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test chaos lint serve proto report clean

.venv/serve: pyproject.toml
	@echo 'installing into .venv: a minute or two, the first time'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[cpu]'
	touch $@

.venv/dev: pyproject.toml .venv/serve
	@echo 'installing torch and what the tests need into .venv: some minutes, the first time'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'torch==2.13.0'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[cpu,train,dev]'
	touch $@

## demo: start the embedded server, play a clip through gRPC and REST, write masks and an overlay video
demo: .venv/serve
	$(BIN)/s2spp demo --output demo-output

## test: everything that CI runs; what starts no servers by two processes, the rest by one
ALONE := tests/unit tests/contract
test: .venv/dev lint
	$(BIN)/python -m pytest -n 2 --dist loadfile $(ALONE)
	$(BIN)/python -m pytest $(foreach folder,$(ALONE),--ignore=$(folder))

## chaos: the promises under attack, minutes long: servers and clients killed, broken input, a live camera too fast
chaos: .venv/dev
	$(BIN)/python -m tests.chaos

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python proto/generate.py --lint

## serve: the embedded server on ports 8000 (REST) and 50051 (gRPC)
serve: .venv/serve
	$(BIN)/s2spp serve

## proto: regenerate the gRPC stubs
proto: .venv/dev
	$(BIN)/python proto/generate.py

## report: a page of overlays of the shipped model on DATA (a DAVIS folder), successes and failures: report/index.html
DATA ?= data/davis2016
SPLIT ?= tune
report: .venv/dev
	$(BIN)/s2spp evaluate --data $(DATA) --split $(SPLIT) --report report/index.html --json report/scores.json

clean:
	rm -rf .venv demo-output build dist
