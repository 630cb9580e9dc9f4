# Two commands for a start: `make demo` distils a diffusion model of handwritten digits,
# `make test` checks everything. Both make .venv first where there is none.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# A GPU's torch brings its triton; without one, triton interprets and compiles in tests.
TRITON := triton==3.7.1; sys_platform == "linux" and platform_machine == "x86_64"
TORCH := $(if $(shell command -v nvidia-smi),'torch>=2.11','torch==2.13.0' '$(TRITON)')
SOURCES := $(wildcard cmake/* csrc/*.cpp csrc/*/*.*)

.PHONY: demo test lint bench aot gpu gpu-sanitize help

help:
	@echo 'make demo    distil the digits teacher and open runs/demo-*/result.png'
	@echo 'make test    lint, types and the test suite'
	@echo 'make bench   benchmarks, written to benchmarks/results/cpu.md'
	@echo 'make aot     compile the GPU kernels without a GPU, see benchmarks/results/resources.md'
	@echo 'make gpu     prove and measure on an NVIDIA GPU in 8 minutes, with the torch of $(PYTHON);'
	@echo '             PYTHON=... chooses another; nothing is installed'
	@echo 'make gpu-sanitize   compute-sanitizer over the CUDA kernels that make gpu built'

$(VENV)/.ready: requirements.txt pyproject.toml setup.py CMakeLists.txt $(SOURCES)
	@echo 'installing into $(VENV): pip and the C++ compiler take some silent minutes'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -q $(TORCH)
	$(BIN)/python -m pip install --disable-pip-version-check -q -r requirements.txt -e '.[dev]'
	touch $@

demo: $(VENV)/.ready
	$(BIN)/sidfast distill digits-cond --out runs/demo-$(shell date +%Y%m%d-%H%M%S)

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest -n auto --maxprocesses 8 --dist worksteal

bench: $(VENV)/.ready
	$(BIN)/python -m pytest benchmarks --benchmark-json=benchmarks/results/cpu.json
	$(BIN)/python benchmarks/report.py benchmarks/results/cpu.json benchmarks/results/cpu.md

# Each with the Triton that a supported torch brings.
AOT := $(addprefix $(VENV)/triton-,3.6.0 3.7.1)

$(AOT): | $(VENV)/.ready
	$(BIN)/python -m pip install --disable-pip-version-check -q --no-deps --target $@ \
		$(subst triton-,triton==,$(notdir $@))

aot: $(VENV)/.ready $(AOT)
	@failed=0; \
	for triton in $(AOT); do PYTHONPATH=$$triton $(BIN)/python benchmarks/aot.py || failed=1; done; \
	$(BIN)/python benchmarks/cuda_resources.py || failed=1; \
	exit $$failed

gpu:
	$(PYTHON) benchmarks/gpu.py

gpu-sanitize:
	$(PYTHON) benchmarks/gpu_sanitize.py
