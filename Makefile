# `make scale` and `make test` each make .venv, install what they need, and run. ARGS= passes more:
#   make scale ARGS="--op performer --tokens 256..4096"      make test ARGS="-k journal"
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: scale test slow gpu lint types format clean

scale: $(INSTALLED)
	$(BIN)/lisabench scale --op lisa $(ARGS)

test: $(INSTALLED)
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow" $(ARGS)

# Those that take over ten seconds each: programs that are killed, compilers, several processes.
slow: $(INSTALLED)
	$(BIN)/python -m pytest -n 2 --dist worksteal -m slow $(ARGS)

# On a machine with an NVIDIA GPU, and with the Python that has torch and lisabench there: no .venv, nothing is fetched.
# Without a GPU the program says so and exits 3, of which make, as of every failure, makes 2.
gpu:
	$(PYTHON) benchmarks/gpu.py $(ARGS)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# The package as it is installed: the operators lie in a folder of their own here.
types: $(INSTALLED)
	rm -rf build/types && mkdir -p build/types && cp -r lisabench build/types/ && cp -r operators build/types/lisabench/
	cd build/types && ../../$(BIN)/mypy --config-file ../../pyproject.toml -p lisabench

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# torch goes first, at the version that was tested: what follows then finds it there and chooses no other.
$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[data,dev,peers,ray,triton]"
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info
