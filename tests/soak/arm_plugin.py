"""The pytest plugin of both arms: notes how each test ends and, in Headgate's arm, makes our pools the default.

It is told what to do by the environment, because it is loaded into a child process whose tests are not ours.
"""

from __future__ import annotations

import json
import os
from typing import IO, Any

import pytest
from sqlalchemy.pool import QueuePool

ARM = "HEADGATE_SOAK_ARM"
RECORD = "HEADGATE_SOAK_RECORD"
MAX_CAUSE = 200

_handed_out = 0


def pytest_configure(config: pytest.Config) -> None:
    if os.environ[ARM] == "headgate":
        _lease_by_default()
    # One line a test, flushed: what a run that hangs or crashes has told stays told.
    record = open(os.environ[RECORD], "w", encoding="utf-8", buffering=1)  # noqa: SIM115
    config.pluginmanager.register(_Recorder(record))


class _Recorder:
    def __init__(self, record: IO[str]) -> None:
        self._record = record

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._note(report, "error")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or not report.passed:
            self._note(report, _outcome_of(report))

    def pytest_sessionfinish(self) -> None:
        self._write({"leases": _handed_out})

    def pytest_unconfigure(self) -> None:
        self._record.close()

    def _note(self, report: pytest.TestReport | pytest.CollectReport, outcome: str) -> None:
        self._write({"test": report.nodeid, "outcome": outcome, "cause": _cause_of(report) if report.failed else ""})

    def _write(self, entry: dict[str, Any]) -> None:
        self._record.write(json.dumps(entry) + "\n")


def _outcome_of(report: pytest.TestReport) -> str:
    if hasattr(report, "wasxfail"):
        return "xfailed"
    return "error" if report.failed and report.when != "call" else report.outcome


def _cause_of(report: pytest.TestReport | pytest.CollectReport) -> str:
    crash = getattr(report.longrepr, "reprcrash", None)
    message: str = crash.message if crash is not None else report.longreprtext.strip()
    return message.partition("\n")[0][:MAX_CAUSE]


def _lease_by_default() -> None:
    from sqlalchemy.dialects.postgresql import asyncpg, psycopg
    from sqlalchemy.dialects.sqlite import aiosqlite, pysqlite
    from sqlalchemy.pool import PoolProxiedConnection

    from headgate import AsyncLeasePool, LeasePool

    class Counting:
        def connect(self) -> PoolProxiedConnection:
            global _handed_out
            connection: PoolProxiedConnection = super().connect()  # type: ignore[misc]
            _handed_out += 1
            return connection

    class CountingLeasePool(Counting, LeasePool):
        pass

    class CountingAsyncLeasePool(Counting, AsyncLeasePool):
        pass

    _lease_by(psycopg.PGDialect_psycopg, CountingLeasePool)
    _lease_by(psycopg.PGDialectAsync_psycopg, CountingAsyncLeasePool)
    _lease_by(asyncpg.PGDialect_asyncpg, CountingAsyncLeasePool)
    _lease_by(pysqlite.SQLiteDialect_pysqlite, CountingLeasePool)
    _lease_by(aiosqlite.SQLiteDialect_aiosqlite, CountingAsyncLeasePool)


def _lease_by(dialect: Any, ours: type[QueuePool]) -> None:
    """Where a dialect would choose a queue pool it chooses ours; in-memory SQLite keeps what it has."""
    choose = dialect.get_pool_class
    dialect.get_pool_class = classmethod(lambda cls, url: ours if issubclass(choose(url), QueuePool) else choose(url))
