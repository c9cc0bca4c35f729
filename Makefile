# make demo     real work under limits, half a minute, no server
# make retry-demo [BROKER=url]   a task that always fails, and one whose worker is killed: their signals, and a proof of what is left
# make test     ruff, mypy, pytest, without the tests that are marked slow or integrations
# make test-slow   those: kills at random, outages, one more variation of an incident
# make test-integrations   projects of Django and other frameworks, with real workers
# make lint     ruff and mypy alone
# make essentials   lint, the contract on memory and SQLite, the incidents of the isolation part: what another Python must pass
#               … PYTHON=python3.13: with that interpreter, in a virtual environment of its own (any of these targets)
# make bench    how time-outs are enforced, here and in other systems: everything, hours, into bench/out and bench/report
# make bench-quick   the same in two minutes, a first look
# make figures  the single benches of this machine, into bench/out
# make repeat   the incidents twenty times over: what is rare shows itself
# make races    results at the instant of their kill, ten thousand of them at the hard limit
# make kills    five thousand isolates killed at random under load
# make hostile  every hostile handler twenty times over, on an idle, a held and a full machine
# make chaos    workers killed at random under load
# make chaos-redis [SECONDS=600] [SEED=n]   isolates, workers and a Redis server killed at random, then the books

# A shell that forbids it would have each of some thousand processes that the tests start compile the package anew: a sixth of a start.
unexport PYTHONDONTWRITEBYTECODE

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.PHONY: demo retry-demo test test-slow test-integrations lint essentials interpreter bench bench-quick figures repeat races kills hostile chaos chaos-redis clean

BENCHES := $(filter-out __init__ harness __main__ driver handlers chaos chaos_app chaos_redis chaos_redis_app chaos_redis_judge redis_depth hostile stuck,$(basename $(notdir $(wildcard bench/*.py))))
VENV ?= .venv$(if $(PYTHON),-$(notdir $(PYTHON)))
PY := $(VENV)/bin/python
# The shims of pyenv name Pythons that they do not run: where one fails, pyenv says which version has it.
FIND_PYTHON := for p in $(or $(PYTHON),python3 python3.14 python3.13 python3.12 python3.11); do \
	for candidate in "$$p" "$$(PYENV_VERSION=$$(pyenv whence "$$p" 2>/dev/null | tail -n 1) pyenv which "$$p" 2>/dev/null || :)"; do \
		found=$$("$$candidate" -c 'import sys; print(sys.executable if sys.version_info >= (3, 11) else "")' 2>/dev/null) || continue; \
		if [ "$$found" ]; then echo "$$found"; exit; fi; done; done; \
	echo "stem_iso needs Python 3.11 or later; $(if $(PYTHON),$(PYTHON) is none,none was found)" >&2; exit 1

demo: $(VENV)/stamp
	@$(PY) -m entrypoints.scan

retry-demo: $(VENV)/stamp
	@$(PY) -m entrypoints.retry_task $(if $(BROKER),--broker '$(BROKER)')

# Three for two cores: a test of processes and servers waits for them a third of its time.
PYTEST := $(PY) -m pytest --numprocesses 3 --dist worksteal

test: lint
	$(PYTEST) -m 'not slow and not integrations'

test-slow: $(VENV)/stamp
	$(PYTEST) -m slow

test-integrations: $(VENV)/stamp
	$(PYTEST) -m integrations

essentials: lint
	$(PYTEST) -k 'not Redis' tests/brokers/test_contract.py tests/isolate

interpreter:
	@$(FIND_PYTHON)

lint: $(VENV)/stamp
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m mypy

bench: $(VENV)/stamp
	@$(PY) -m pip install --quiet --disable-pip-version-check --group bench
	$(PY) -m bench all
	$(PY) -m bench report bench/out/reference

bench-quick: $(VENV)/stamp
	@$(PY) -m pip install --quiet --disable-pip-version-check --group bench
	$(PY) -m bench enforce --quick --out bench/out/quick
	$(PY) -m bench report bench/out/quick

figures: $(VENV)/stamp
	@$(PY) -m pip install --quiet --disable-pip-version-check --group bench
	for name in $(BENCHES); do $(PY) -m bench.$$name; done

repeat: $(VENV)/stamp
	for round in $$(seq 20); do $(PY) -m pytest -m repeat || exit 1; done

chaos: $(VENV)/stamp
	$(PY) -m bench.chaos

chaos-redis: $(VENV)/stamp
	@$(PY) -m bench.chaos_redis --seconds $(or $(SECONDS),600) $(if $(SEED),--seed $(SEED))

races: $(VENV)/stamp
	STEM_ISO_RACES=10000 $(PY) -m pytest -s tests/isolate/test_the_race.py
	STEM_ISO_RACES=2000 $(PY) -m pytest tests/isolate/test_shared_row.py

kills: $(VENV)/stamp
	STEM_ISO_KILLS=5000 $(PY) -m pytest -s tests/isolate/test_random_kills.py

hostile: $(VENV)/stamp
	$(PY) -m bench.hostile

# pip below 25.1 knows no --group, so it is upgraded first. The stamp makes the second time quick.
$(VENV)/stamp: pyproject.toml
	@python=$$($(FIND_PYTHON)); [ -x $(PY) ] || "$$python" -m venv $(VENV)
	@$(PY) -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	@$(PY) -m pip install --quiet --disable-pip-version-check --editable . --group dev
	@touch $@

clean:
	rm -rf .venv .venv-* dist
