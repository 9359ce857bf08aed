# Two commands are all a new machine needs: `make lab` and `make test`. Python >= 3.11, make and a package index.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
PYTEST := $(BIN)/python -m pytest

.PHONY: lab test unit contract integration browser \
	soak soak-unit soak-sqlalchemy soak-sqlmodel soak-differential soak-proof soak-failures soak-xray soak-overload matrix check fix clean

lab: $(READY)  ## the published experiments, stock beside Headgate
	$(BIN)/headgate lab --quick

test: unit contract integration browser  ## everything a change must pass

unit: $(READY)
	@echo "== unit and house tests"
	$(PYTEST) tests/unit tests/house

contract: $(READY)
	@echo "== contract tests: one suite over sync and async, over every driver"
	$(PYTEST) tests/contract

integration: $(READY)
	@echo "== integration tests: a real PostgreSQL, a real uvicorn"
	$(PYTEST) tests/integration

browser: $(READY)
	@echo "== browser tests: the report in a real Chromium, where there is one"
	$(PYTEST) tests/browser

soak: $(READY)  ## what takes too long for every change; goes on after a failure, logs in .soak/
	$(PYTEST) -q tests/soak
	$(MAKE) --keep-going soak-unit soak-sqlalchemy soak-sqlmodel soak-differential soak-proof soak-failures soak-xray soak-overload

soak-unit: $(READY)
	@echo "== properties of the pure parts, thousands of examples of each"
	HYPOTHESIS_PROFILE=long $(PYTEST) -q --timeout 0 -m hypothesis tests/unit

soak-sqlalchemy: $(READY)
	@echo "== SQLAlchemy's own tests, over its pools and over ours"
	$(BIN)/python tests/soak/sqlalchemy_suite.py

soak-sqlmodel: $(READY)
	@echo "== SQLModel's own tests, over SQLAlchemy's pools and over ours"
	$(BIN)/python tests/soak/sqlmodel_suite.py

soak-differential: $(READY)
	@echo "== random programs, stock and leased: two drivers at a time, progress in .soak/differential-*.log"
	$(MAKE) --keep-going --jobs 2 $(addprefix soak-differential-,psycopg_async asyncpg psycopg aiosqlite pysqlite)

soak-differential-%: $(READY)
	@mkdir -p .soak
	@HYPOTHESIS_PROFILE=soak $(BIN)/python -X faulthandler -m pytest --timeout 0 -W ignore::ResourceWarning \
		"tests/contract/test_differential.py::test_no_program_can_tell_the_difference[$*]" > .soak/differential-$*.log 2>&1 \
		|| { tail -n 80 .soak/differential-$*.log; exit 1; }
	@grep "^differential" .soak/differential-$*.log | tail -n 1

soak-proof: $(READY)
	@echo "== statements judged reads, run against PostgreSQL and SQLite"
	HYPOTHESIS_PROFILE=soak $(PYTEST) --timeout 0 tests/contract/test_proof.py

soak-failures: $(READY)
	@echo "== cancellation at every await, kills, forks, hooks, deadlines, requests: in full, with their tables"
	HEADGATE_SOAK=1 $(PYTEST) -s --timeout 0 $(wildcard tests/integration/test_failure_*.py) \
		tests/integration/test_deadlines.py tests/integration/test_fastapi_service.py

soak-xray: $(READY)
	@echo "== the X-ray of whole services under load, and headgate run with every server"
	HEADGATE_SOAK=1 $(PYTEST) $(wildcard tests/integration/test_xray_*.py) tests/integration/test_run_command.py

soak-overload: $(READY)
	@echo "== overload, a minute a load; nothing else may run meanwhile, report in .soak/overload/"
	HEADGATE_SOAK=1 $(PYTEST) -s --timeout 0 tests/soak/test_overload_minutes.py

matrix: $(READY)  ## unit, house and contract tests over every Python and SQLAlchemy, as far as the machine has them
	$(BIN)/python tests/soak/matrix.py

check: $(READY)  ## format, lint, types, house tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pyright
	$(PYTEST) -q tests/house

fix: $(READY)  ## what ruff can mend by itself
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) lab-report .soak .matrix

$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "make: no Python >= 3.11 found; install one, or run: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "== setting up $(VENV) with $(PYTHON) (about half a minute the first time)"
	@if command -v uv >/dev/null 2>&1; then uv venv --quiet --allow-existing --seed --python "$(PYTHON)" $(VENV); else "$(PYTHON)" -m venv $(VENV); fi
	@echo "== installing headgate and its development tools"
	@if command -v uv >/dev/null 2>&1 && uv pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[dev]'; then :; \
	else $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'; fi
	@touch $(READY)
