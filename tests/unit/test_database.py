from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool, QueuePool, StaticPool

from headgate import AsyncLeasePool, ConfigError, Database, GateOptions, LeasePool, lease, seams
from headgate import database as module
from headgate.gate import Gate


@pytest.mark.parametrize(
    ("url", "async_driver", "sync_driver"),
    [
        ("postgresql://app@localhost/app", "psycopg", "psycopg"),
        ("postgresql+psycopg://app@localhost/app", "psycopg", "psycopg"),
        ("postgresql+asyncpg://app@localhost/app", "asyncpg", "psycopg"),
        ("sqlite:///app.db", "aiosqlite", "pysqlite"),
        ("sqlite+aiosqlite:///app.db", "aiosqlite", "pysqlite"),
    ],
)
def test_a_url_gives_both_engines_with_one_gate(url: str, async_driver: str, sync_driver: str) -> None:
    db = Database(url)
    assert db.async_engine.dialect.driver == async_driver or async_driver == "psycopg"
    assert db.engine.dialect.driver == sync_driver
    assert isinstance(db.engine.pool, LeasePool)
    assert isinstance(db.async_engine.pool, AsyncLeasePool)
    assert db.engine.pool.gate is db.async_engine.pool.gate is db.gate
    assert db.gate.connections == 15


def test_psycopg2_serves_sync_sessions_if_that_is_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_has_driver", lambda driver: "psycopg2" in driver or "asyncpg" in driver)
    assert module._sync_driver(Database("postgresql+asyncpg://h/d").url) == "postgresql+psycopg2"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"source": "mysql://root:hush@h/d"}, ["mysql://", "postgresql://"]),
        ({"source": "postgres://root:hush@h/d"}, ["postgres://", "write postgresql://"]),
        ({"source": "not a url, hush"}, ["URL"]),
        ({"source": 42}, ["<int>"]),
        ({"source": b"postgresql://u:hush@h/d"}, ["<bytes>"]),
        ({"source": "sqlite:///a.db", "connections": 0}, ["connections=0", "at least 1"]),
        ({"source": "sqlite:///a.db", "max_wait": -1}, ["max_wait=-1", "0 (never wait)"]),
        ({"source": "sqlite:///a.db", "max_pending": -1}, ["max_pending=-1"]),
    ],
)
def test_an_option_that_cannot_work_is_named_with_its_remedy(arguments: dict[str, Any], expected: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        Database(**arguments)
    message = str(caught.value)
    assert all(part in message for part in expected)
    assert "hush" not in message
    assert "\n" not in message


def test_a_missing_driver_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_has_driver", lambda driver: False)
    with pytest.raises(ConfigError, match="pip install asyncpg or psycopg"):
        Database("postgresql+asyncpg://h/d")


@pytest.mark.parametrize(
    ("source", "kind", "driver"),
    [
        ("sqlite:///app.db", "async_engine", "aiosqlite"),
        ("sqlite://", "async_engine", "aiosqlite"),
        ("postgresql+asyncpg://root:hush@h/d", "async_engine", "asyncpg"),
        ("postgresql+asyncpg://root:hush@h/d", "engine", "psycopg"),
        (create_async_engine("postgresql+asyncpg://root:hush@h/d"), "engine", "psycopg"),
    ],
)
def test_a_driver_that_is_missing_for_one_of_the_engines_is_named_with_its_remedy(
    monkeypatch: pytest.MonkeyPatch, source: Any, kind: str, driver: str
) -> None:
    db = Database(source)
    monkeypatch.setattr(module, "_has_driver", lambda name: driver not in name)
    with pytest.raises(ConfigError, match=rf"no driver for \w+\+{driver}:// is installed: pip install {driver}$"):
        getattr(db, kind)


def test_a_password_is_shown_nowhere() -> None:
    db = Database("postgresql+asyncpg://app:hush@localhost/app")
    assert "hush" not in repr(db) + repr(db.gate) + repr(db.engine) + repr(db.async_engine)


def test_a_password_in_the_query_is_shown_nowhere() -> None:
    assert "hush" not in repr(Database("postgresql+asyncpg://h/d?user=u&password=hush"))


def test_options_of_asyncpg_in_the_url_do_not_reach_libpq() -> None:
    db = Database("postgresql+asyncpg://h/d?ssl=disable&prepared_statement_cache_size=0&application_name=shop")
    assert db.engine.url.query == {"sslmode": "disable", "application_name": "shop"}
    assert "ssl" in db.async_engine.url.query


def test_an_engine_of_ones_own_keeps_its_options_and_gets_the_gate() -> None:
    engine = create_engine("sqlite:///app.db", pool_size=3, max_overflow=4)
    db = Database(engine)
    assert db.engine is engine
    assert isinstance(engine.pool, LeasePool)
    assert engine.pool.gate is db.gate
    assert db.gate.connections == 7


def test_an_async_engine_of_ones_own_gets_a_sync_one_beside_it() -> None:
    async_engine = create_async_engine("postgresql+asyncpg://app:hush@localhost/app", pool_size=2, max_overflow=0)
    db = Database(async_engine, connections=4)
    assert db.async_engine is async_engine
    assert db.gate.connections == 4
    assert db.engine.url.drivername == "postgresql+psycopg"
    assert db.engine.url.password == "hush"


def test_enabled_false_gives_stock_pools_of_the_same_size() -> None:
    db = Database("postgresql+asyncpg://app@localhost/app", enabled=False, connections=4, max_wait=1.5)
    assert type(db.engine.pool) is QueuePool
    assert type(db.async_engine.pool) is AsyncAdaptedQueuePool
    assert db.engine.pool.size() == 4
    assert db.engine.pool.timeout() == 1.5


def test_a_sqlalchemy_without_a_seam_gives_stock_pools_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert seams.missing_seams() == []
    monkeypatch.setattr(seams, "SEAMS", (*seams.SEAMS, ("sqlalchemy.pool", "QueuePool", ("_no_such_seam",))))
    assert type(Database("sqlite:///app.db").engine.pool) is QueuePool
    assert "sqlalchemy.pool.QueuePool._no_such_seam" in caplog.text
    with pytest.raises(ConfigError, match="_no_such_seam"):
        _ = Database("sqlite:///app.db", strict=True).engine


def test_an_unknown_driver_gives_a_stock_pool() -> None:
    assert type(LeasePool(lambda: None)) is QueuePool


def test_in_memory_sqlite_is_one_connection_for_everybody() -> None:
    db = Database("sqlite://")
    assert type(db.engine.pool) is StaticPool
    with db.transaction() as session:
        session.execute(text("CREATE TABLE t (n int)"))
    with db.session() as session:
        assert session.execute(text("SELECT count(*) FROM t")).scalar_one() == 0
    with pytest.raises(ConfigError, match="two databases"):
        _ = db.async_engine
    db.dispose()


@pytest.mark.parametrize("kind", ["engine", "async_engine"])
def test_in_memory_sqlite_is_said_not_to_be_leased(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "headgate.pool"):
        getattr(Database("sqlite://"), kind)
    assert caplog.messages == ["connections are not leased: the engine's pool is a StaticPool"]


def test_a_transaction_commits_at_the_end_and_not_after_an_exception(tmp_path: Path) -> None:
    db = Database(f"sqlite:///{tmp_path / 'app.db'}")
    with db.transaction() as session:
        session.execute(text("CREATE TABLE t (n int)"))

    def fail() -> None:
        with db.transaction() as session:
            session.execute(text("INSERT INTO t VALUES (1)"))
            raise LookupError

    with pytest.raises(LookupError):
        fail()
    with db.transaction() as session:
        session.execute(text("INSERT INTO t VALUES (2)"))
    with db.session() as session:
        assert session.execute(text("SELECT n FROM t")).scalars().all() == [2]
    db.dispose()


async def test_an_async_transaction_does_the_same(tmp_path: Path) -> None:
    db = Database(f"sqlite:///{tmp_path / 'app.db'}")
    async with db.async_transaction() as session:
        await session.execute(text("CREATE TABLE t (n int)"))

    async def fail() -> None:
        async with db.async_transaction() as session:
            await session.execute(text("INSERT INTO t VALUES (1)"))
            raise LookupError

    with pytest.raises(LookupError):
        await fail()
    async with db.async_session() as session:
        assert (await session.execute(text("SELECT count(*) FROM t"))).scalar_one() == 0
    await db.check()
    assert db.gate.statistics().in_use == 0
    await db.dispose_async()
    await asyncio.sleep(0)


@pytest.mark.parametrize("made_before", ["engine", "async_engine", None])
@pytest.mark.parametrize("depth", [1, 2])
async def test_engines_made_in_a_rolled_back_block_share_the_budget_after_it(
    tmp_path: Path, made_before: str | None, depth: int
) -> None:
    db = Database(f"sqlite:///{tmp_path / 'app.db'}", connections=1)
    if made_before is not None:
        getattr(db, made_before)
    async with AsyncExitStack() as blocks:
        for _ in range(depth):
            await blocks.enter_async_context(db.rolled_back())
        _ = db.engine, db.async_engine
    sync_pool, async_pool = db.engine.pool, db.async_engine.pool
    assert isinstance(sync_pool, LeasePool)
    assert sync_pool.places.pools() == [async_pool, sync_pool]
    with db.session() as session:
        assert session.scalar(text("SELECT 1")) == 1  # the one connection of the budget is idle now
    async with db.async_session() as async_session:
        assert await async_session.scalar(text("SELECT 1")) == 1
    await db.dispose_async()


def test_an_unbounded_pool_cannot_be_a_budget() -> None:
    with pytest.raises(ConfigError, match="max_overflow=-1"):
        create_engine("sqlite:///app.db", poolclass=LeasePool, max_overflow=-1)
    with pytest.raises(ConfigError, match="max_overflow=-1"):
        Database(create_engine("sqlite:///app.db", max_overflow=-1))


def test_one_function_name_is_not_taken_for_a_list_of_letters() -> None:
    with pytest.raises(ConfigError, match=r"\['similar_titles'\]"):
        Database("sqlite:///app.db", read_functions="similar_titles")


@pytest.mark.parametrize("option", ["connections", "max_wait", "max_pending"])
def test_a_number_as_text_is_named(option: str) -> None:
    arguments: dict[str, Any] = {option: "5"}
    with pytest.raises(ConfigError, match=f"{option}='5'"):
        Database("sqlite:///app.db", **arguments)


def test_lease_wants_an_engine() -> None:
    with pytest.raises(ConfigError, match="<str>"):
        lease("sqlite:///app.db")  # type: ignore[type-var]


def test_an_engine_may_get_a_gate_of_its_own() -> None:
    gate = Gate(GateOptions(connections=15, max_wait=0.5), name="app")
    engine = lease(create_engine("sqlite:///app.db"), gate=gate)
    assert isinstance(engine.pool, LeasePool)
    assert engine.pool.gate is gate


@pytest.mark.parametrize(
    "make",
    [
        lambda gate: lease(create_engine("sqlite:///app.db"), gate=gate),
        lambda gate: lease(create_async_engine("sqlite+aiosqlite:///app.db"), gate=gate),
        lambda gate: create_engine("sqlite:///app.db", poolclass=LeasePool, gate=gate),
    ],
)
def test_the_options_of_a_gate_are_not_taken_for_one(make: Callable[[Any], object]) -> None:
    with pytest.raises(ConfigError, match=r"gate=<GateOptions>.*Gate\(GateOptions\(.*from headgate\.gate import Gate"):
        make(GateOptions())


def test_headgate_off_is_said_once_for_each_pool(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("HEADGATE", "off")
    assert type(Database("sqlite:///app.db").engine.pool) is QueuePool
    assert caplog.text.count("HEADGATE=off") == 1


@pytest.mark.parametrize("name", ["engine", "async_engine"])
def test_threads_that_ask_first_at_once_get_one_engine(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    makes_one, may_go_on = threading.Event(), threading.Event()
    maker = {"engine": "create_engine", "async_engine": "create_async_engine"}[name]
    make = getattr(module, maker)
    made: list[object] = []

    def make_slowly(*args: object, **options: object) -> object:
        makes_one.set()
        assert may_go_on.wait(10)
        made.append(make(*args, **options))
        return made[-1]

    monkeypatch.setattr(module, maker, make_slowly)
    db = Database("postgresql://nobody@localhost/nothing")
    threads = [threading.Thread(target=getattr, args=(db, name)) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert makes_one.wait(10)
    may_go_on.set()
    for thread in threads:
        thread.join()
    assert made == [getattr(db, name)]
