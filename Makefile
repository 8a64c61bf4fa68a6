# make sweep SIZE=grid_small   the whole arrow: environment, data, plan, trainings, laws, figures
# make test                    the whole test suite
# make check                   what CI runs: lint, types, tests
# Everything installs itself into .venv first; versions are those of constraints/python.txt.

SIZE ?= grid_small
SWEEP = sweeps/$(SIZE).yaml
OUT ?= results/$(SIZE)
DATA ?= data/synthetic
PYTHON ?= python3
BIN = .venv/bin

# uv ignores pip's find-links unless it is told; torch needs both the link and the pin
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
export UV_CONSTRAINT = constraints/python.txt
export RAY_USAGE_STATS_ENABLED ?= 0

.PHONY: install data sweep plan fit report test lint format types check bench bench-data bench-laws bench-train bench-gpu bench-sweep faults clean

install: .venv/installed

.venv/installed: pyproject.toml constraints/python.txt
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode -e '.[train]' --group dev
	touch $@

# the embedded data set; a folder that holds the same records is left as it is
data: install
	@if [ "$(DATA)" = data/synthetic ]; then $(BIN)/ecgscale data synth --out $(DATA); fi

plan: install
	$(BIN)/ecgscale plan $(SWEEP)

sweep: data
	$(BIN)/ecgscale sweep $(SWEEP) --data $(DATA) --out $(OUT)
	$(BIN)/ecgscale fit-laws $(OUT)

fit: install
	$(BIN)/ecgscale fit-laws $(OUT)

report: install
	$(BIN)/ecgscale report $(OUT)

test: install
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder -m 'not gpu'

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: install
	$(BIN)/mypy

check: lint types test

bench: bench-data bench-laws bench-train bench-sweep

bench-data: install
	OMP_NUM_THREADS=1 $(BIN)/python tests/bench_data.py

bench-laws: install
	OMP_NUM_THREADS=1 $(BIN)/python tests/bench_laws.py

bench-train: install
	OMP_NUM_THREADS=1 $(BIN)/python tests/bench_train.py

# on a machine with a GPU; without one it prints the same columns for small rungs on the CPU
bench-gpu: install
	OMP_NUM_THREADS=1 $(BIN)/python tests/bench_gpu.py

bench-sweep: install
	OMP_NUM_THREADS=1 $(BIN)/python tests/bench_sweep.py

# 50 random kills of drivers, workers and Ray nodes while 48 trials run; prints what it did and what came of it
faults: install
	OMP_NUM_THREADS=1 $(BIN)/python tests/faults/storm.py --seeds 6

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
