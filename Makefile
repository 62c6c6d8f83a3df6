# make run   evolve matmul_bias_gelu on the best device found
# make test  every test that this machine allows
# make test-long  the longer tests: corpora, Ray jobs, runs killed at twenty moments
# make lint  ruff and mypy
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TEST_STAMP := $(VENV)/.installed-for-tests

.PHONY: run test test-long lint bench clean

$(STAMP): requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	touch $(STAMP)

# FlashInfer-Bench without its dependencies: tests read exported champions with its real classes.
$(TEST_STAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet --no-deps \
		flashinfer-bench==0.1.2 safetensors==0.8.0 docstring-parser==0.18.0
	touch $(TEST_STAMP)

run: $(STAMP)
	$(BIN)/evolve run matmul_bias_gelu --evaluations 80 --time 200s

LONG := tests/hacks tests/honest tests/cli/test_ray_job.py tests/engine/test_resume.py

test: $(TEST_STAMP)
	$(BIN)/python -m pytest $(addprefix --ignore ,$(LONG))

test-long: $(TEST_STAMP)
	$(BIN)/python -m pytest $(LONG)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(STAMP)
	$(BIN)/python benchmarks/engine.py

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
