# `make demo` and `make test` set themselves up: a .venv is made on first use (with uv if it is
# there, else with plain venv and pip) and made again when pyproject.toml changes.
PYTHON ?= python3
BIN := .venv/bin
UV := $(shell command -v uv 2>/dev/null)

ifdef UV
  VENV = $(UV) venv --quiet --clear --python $(PYTHON) .venv
  INSTALL = $(UV) pip install --quiet --python $(BIN)/python
else
  VENV = $(PYTHON) -m venv --clear .venv
  INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check
endif

.PHONY: demo test busy check bench slow fuzz docs clean

demo: .venv/runtime.stamp
	$(BIN)/dlbench tune demo:mlp --zipf 1.1 --distinct 20000 --budget 170s --study demo.db --fresh --csv results.csv --recommended best.toml --plot
	$(BIN)/dlbench report demo.db

# Two at a time, a file's tests together: most of them wait for processes.
test: .venv/dev.stamp
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

# The same beside one busy loop per core: no test may depend on how fast the machine is.
busy: .venv/dev.stamp
	$(BIN)/python tests/busy.py --numprocesses 2 --dist loadfile

slow: .venv/dev.stamp
	$(BIN)/python -m pytest -m slow

# A minute of broken HTTP and one of little input that would be much work; SEED=N for other inputs.
fuzz: .venv/dev.stamp
	$(BIN)/python tests/fuzz/http_fuzz.py --seconds 60 --seed $(or $(SEED),1)
	$(BIN)/python tests/fuzz/bombs.py --seconds 60 --seed $(or $(SEED),1)

check: .venv/dev.stamp
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

# The pages as a site in site/; a link that leads nowhere is an error.
docs: .venv/docs.stamp
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

BENCHMARKS = $(addprefix simulated.,policies batcher autoscalers cache_policies intervals rate_search rate_at_bound twin_speed tuner) \
	$(addprefix live.,worker front hits memory overload faults unequal split scaling hostile proxy) \
	$(addprefix generator.,loadgen truth omission) peers.foreign $(addprefix tuning.,twin batch_sizes)
# These go on for an hour or more, in pieces: tuning.exhaustive, tuning.agreement, tuning.cases.

bench: .venv/dev.stamp
	$(foreach name,$(BENCHMARKS),$(BIN)/python -m benchmarks.$(name) &&) true

.venv/created.stamp: pyproject.toml
	$(VENV)
	touch $@

.venv/runtime.stamp: .venv/created.stamp
	$(INSTALL) --editable .
	touch $@

.venv/dev.stamp: .venv/created.stamp
	$(INSTALL) --editable '.[dev]'
	touch $@ .venv/runtime.stamp

.venv/docs.stamp: .venv/created.stamp
	$(INSTALL) --editable '.[docs]'
	touch $@ .venv/runtime.stamp

clean:
	rm -rf .venv build dist site *.egg-info
