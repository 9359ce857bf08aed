"""The cases of the benchmark of leases, in this process: what is asked, of whom, and which ratio is wanted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any

from interleaved import Arm, Plan
from lease_arms import open_async, open_sync
from lease_work import BareAsyncpg, BarePsycopg, BarePsycopgAsync, BareSqlite
from sqlalchemy import URL

TASKS = 200


@dataclass(frozen=True, slots=True)
class Setting:
    """Where the rows are, and which event loop is used; None for asyncio's own."""

    postgres: URL
    postgres_pid: int
    sqlite: URL
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None

    def url(self, driver: str) -> URL:
        """The rows' address for a driver of SQLAlchemy's, such as ``postgresql+asyncpg``."""
        return (self.sqlite if driver.startswith("sqlite") else self.postgres).set(drivername=driver)


@dataclass(frozen=True, slots=True)
class Case:
    """One line of the table.

    :ivar name: ``driver/what/way``.
    :ivar open: a context manager that yields the arms by name; all but stock and ours may be missing.
    :ivar target: what stock's time divided by ours must reach; None where nothing is asked.
    :ivar bare: what the bare driver's arm does.
    :ivar is_rate: shown as operations a second, not as microseconds an operation.
    :ivar is_here: the arms run in this process, so that a profile can see them.
    """

    name: str
    open: Callable[[], AbstractContextManager[Mapping[str, Arm]]]
    full: Plan
    quick: Plan
    target: float | None
    bare: str
    is_rate: bool = False
    is_here: bool = True


FULL, QUICK = Plan(rounds=48, operations=100), Plan(rounds=12, operations=40)

ASYNC_TARGETS = {"read_one": 1.7, "read_three": 1.3, "change": 1.0, "insert": 1.0}
SYNC_TARGETS = {"read_one": 1.3, "read_three": 1.2, "change": 1.0, "insert": 1.0}
NO_TARGETS = {"read_one": None, "read_three": None}
WORK_NAMES = {"read_one": "1-read", "read_three": "3-reads", "change": "read-change-commit", "insert": "insert-commit"}
WAYS: dict[str, dict[str, Any] | None] = {"database": None, "lease": {}, "lease-pre-ping": {"pool_pre_ping": True}}
"""How an app gets Headgate: by ``Database``, or by ``lease(engine)`` of an engine it has made with these options."""


def local_cases(setting: Setting) -> Iterator[Case]:
    """Every case but those over HTTP."""
    run_async = partial(open_async, setting.loop_factory)
    asyncpg, psycopg = setting.url("postgresql+asyncpg"), setting.url("postgresql+psycopg")
    yield from _cases("asyncpg", partial(run_async, asyncpg, BareAsyncpg), ASYNC_TARGETS, BareAsyncpg)
    yield from _cases("psycopg-async", partial(run_async, psycopg, BarePsycopgAsync), ASYNC_TARGETS, BarePsycopgAsync)
    yield from _cases("psycopg-sync", partial(open_sync, psycopg, BarePsycopg), SYNC_TARGETS, BarePsycopg)
    yield _many_tasks(partial(run_async, asyncpg, BareAsyncpg))
    sqlite, aiosqlite = setting.url("sqlite+pysqlite"), setting.url("sqlite+aiosqlite")
    yield from _cases("sqlite", partial(open_sync, sqlite, BareSqlite), NO_TARGETS, BareSqlite, ("database",))
    yield from _cases("aiosqlite", partial(run_async, aiosqlite, None), NO_TARGETS, None, ("database",))


def _cases(
    driver: str,
    open_arms: Callable[..., AbstractContextManager[Mapping[str, Arm]]],
    targets: Mapping[str, float | None],
    bare: type | None,
    ways: tuple[str, ...] = tuple(WAYS),
) -> Iterator[Case]:
    for way in ways:
        for work, target in targets.items():
            yield Case(
                name=f"{driver}/{WORK_NAMES[work]}/{way}",
                open=partial(open_arms, work, WAYS[way]),
                full=FULL,
                quick=QUICK,
                target=target,
                bare=_describe(bare),
            )


def _many_tasks(open_arms: Callable[..., AbstractContextManager[Mapping[str, Arm]]]) -> Case:
    return Case(
        name=f"asyncpg/{TASKS}-tasks/database",
        open=partial(open_arms, "read_and_await", None, concurrency=TASKS),
        full=Plan(rounds=12, operations=TASKS),
        quick=Plan(rounds=3, operations=TASKS),
        target=10.0,
        bare=_describe(BareAsyncpg),
        is_rate=True,
    )


def _describe(bare: type | None) -> str:
    return "" if bare is None else (bare.__doc__ or "").strip().splitlines()[0]
