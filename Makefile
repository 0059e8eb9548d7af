# Each target sets itself up on a fresh machine: a virtual environment, the pinned packages, nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
# torch is named with its exact version, since a range would fetch a build with gigabytes of CUDA.
TORCH := $(shell sed -n 's/^torch==/torch==/p' constraints.txt)

.PHONY: demo test sweeps test-postgres test-ray test-trackers lint bench faults stacks notebooks wheel docs clean

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt $(TORCH)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt $(TORCH) -e '.[dev]'
	touch $(READY)

demo: $(READY)
	$(BIN)/python -m bench.demo

# one instance of each guarantee at least
test: $(READY)
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not sweep"

# the other instances: more families, platforms and places of a cut
sweeps: $(READY)
	$(BIN)/python -m pytest -n 2 --dist worksteal -m sweep

# with a server of its own, from the system's package; the tests start and stop it
test-postgres: $(READY)
	ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || command -v postgres || { apt-get update && apt-get install --yes postgresql; }
	WAKE2VEC_TEST_POSTGRES=yes $(BIN)/python -m pytest -ra tests/postgres tests/unit/runner/queue tests/unit/runner/screen/test_database.py

# with a cluster of several hosts on this machine, which the tests start and stop
test-ray: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[ray]'
	WAKE2VEC_TEST_RAY=yes $(BIN)/python -m pytest -ra tests/ray_cluster

# with W&B's and MLflow's own libraries and servers, which stand apart from those of the program
test-trackers: $(READY)
	test -x .trackers/bin/python || $(BIN)/python -m venv .trackers
	$(BIN)/python -c "import glob, site; open(glob.glob('.trackers/lib/*/site-packages')[0] + '/base.pth', 'w').write(f'import site; site.addsitedir({site.getsitepackages()[0]!r})')"
	.trackers/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt wandb mlflow
	.trackers/bin/python -m pytest -ra tests/trackers

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

bench: $(READY)
	$(BIN)/python -m bench.latency.startup
	$(BIN)/python -m bench.resilience.cadence
	$(BIN)/python -m bench.latency.restore
	$(BIN)/python -m bench.latency.start
	$(BIN)/python -m bench.resilience.month
	$(BIN)/python -m bench.latency.queue
	$(BIN)/python -m bench.speed.p1
	$(BIN)/python -m bench.speed.p2
	$(BIN)/python -m bench.memory.load
	$(BIN)/python -m bench.resilience.rehearsal
	$(BIN)/python -m bench.trials quality

faults: $(READY)
	$(BIN)/python -m bench.resilience.faults

stacks: $(READY)
	$(BIN)/python -m bench.publish.stacks

notebooks: $(READY)
	$(BIN)/python -m bench.publish.notebooks

wheel: $(READY)
	$(BIN)/python -m bench.publish.wheel

# a site of docs/ in site/; its tools stand apart from those of the program
docs: $(READY)
	test -x .docs/bin/zensical || $(PYTHON) -m venv .docs
	.docs/bin/python -m pip install --quiet --disable-pip-version-check zensical
	.docs/bin/zensical build --strict

clean:
	rm -rf $(VENV) .docs .trackers site .stacks dist build *.egg-info .pytest_cache .mypy_cache .ruff_cache
