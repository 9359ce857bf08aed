"""Ways out and what they cost: snapshots, hooks at acquire and release, and the watch on pins."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
from typing import Any

import pytest
from sqlalchemy import Connection, event, insert, select, text
from sqlalchemy.orm import Session

from headgate import Database
from headgate.config import LeaseOptions
from headgate.errors import ConfigError, LeaseError
from headgate.own_values import find_own_value
from headgate.pins import PINNED, TAINTED
from headgate.statements import Family

from .conftest import Arena, Item

COUNT = text("SELECT count(*) FROM item")


def database_on(arena: Arena, **options: Any) -> Database:
    scheme = "postgresql+psycopg" if arena.driver == "psycopg_async" else arena.url.drivername
    return Database(arena.url.set(drivername=scheme), **options)


@pytest.fixture
def database(arena: Arena) -> Database:
    """A Database on the arena's table."""
    return database_on(arena)


def test_a_snapshot_sees_one_picture(arena: Arena, database: Database) -> None:
    if arena.is_async:
        pytest.skip("the sync half of it; the async one is the same function")
    with database.session(snapshot=True) as session:
        assert session.scalar(COUNT) == 3
        if arena.is_postgresql:  # SQLite's rollback journal lets nobody commit meanwhile
            arena.other("INSERT INTO item (id, name) VALUES (4, 'four')")
        assert session.scalar(COUNT) == 3
        assert database.gate.statistics().in_use == 1
        session.commit()
        assert session.scalar(COUNT) == (4 if arena.is_postgresql else 3)
    database.dispose()


def test_an_async_snapshot_sees_one_picture(arena: Arena, database: Database) -> None:
    if not arena.is_async:
        pytest.skip("the async half of it")

    async def main() -> None:
        async with database.async_session(snapshot=True) as session:
            assert await session.scalar(COUNT) == 3
            if arena.is_postgresql:
                arena.other("INSERT INTO item (id, name) VALUES (4, 'four')")
            assert await session.scalar(COUNT) == 3
        await database.dispose_async()

    arena.runner.run(main())


def test_a_snapshot_only_reads(on_postgresql: Arena) -> None:
    database = database_on(on_postgresql)
    with database.session(snapshot=True) as session, pytest.raises(Exception, match="read-only transaction"):
        session.execute(insert(Item).values(id=4, name="four"))
    database.dispose()


def test_memory_has_no_snapshots() -> None:
    database = Database("sqlite://")
    with pytest.raises(ConfigError, match="file"):
        database.session(snapshot=True)


TENANT: contextvars.ContextVar[str] = contextvars.ContextVar("TENANT", default="")


def set_tenant(dbapi: Any) -> None:
    cursor = dbapi.cursor()
    cursor.execute(f"SET app.tenant = '{TENANT.get()}'")
    cursor.close()


def test_on_acquire_prepares_each_connection_for_its_new_holder(on_postgresql: Arena) -> None:
    engine = on_postgresql.make(pool_size=1, lease_options=LeaseOptions(on_acquire=set_tenant))
    statement = text("SELECT current_setting('app.tenant') AS tenant")

    def inside() -> list[str]:
        seen = []
        with Session(engine) as one, Session(engine) as other:
            for session, tenant in ((one, "a"), (other, "b"), (one, "a")):
                TENANT.set(tenant)
                seen.append(session.scalar(statement) or "")
        return seen

    assert on_postgresql.run(inside) == ["a", "b", "a"]
    assert "idle in transaction" not in on_postgresql.states()


def test_on_release_cleans_up_before_somebody_else_has_it(arena: Arena) -> None:
    events: list[str] = []
    options = LeaseOptions(on_acquire=lambda _: events.append("acquire"), on_release=lambda _: events.append("release"))
    engine = arena.make(pool_size=1, lease_options=options)

    def inside() -> None:
        with Session(engine) as one, Session(engine) as other:
            one.scalars(select(Item)).all()
            one.scalars(select(Item)).all()
            other.scalars(select(Item)).all()
            one.execute(insert(Item).values(id=4, name="four"))
            one.commit()

    arena.run(inside)
    assert events == ["acquire", "release"] * 3


def test_a_connection_that_on_acquire_cannot_prepare_is_nobodys(arena: Arena) -> None:
    fails = False

    def prepare(_: Any) -> None:
        if fails:
            raise LookupError("no tenant")

    engine = arena.make(pool_size=1, lease_options=LeaseOptions(on_acquire=prepare))

    def inside() -> None:
        nonlocal fails
        with engine.connect() as connection:
            connection.execute(COUNT)
        fails = True
        with pytest.raises(LookupError), engine.connect() as connection:
            connection.execute(COUNT)
        fails = False
        with engine.connect() as connection:
            assert connection.scalar(COUNT) == 3

    arena.run(inside)


def test_a_hook_must_be_a_plain_function() -> None:
    async def prepare(_: Any) -> None: ...

    with pytest.raises(ConfigError, match="on_acquire"):
        LeaseOptions(on_acquire=prepare)


def test_hooks_of_a_database_run_on_an_engine_that_leases_already(arena: Arena) -> None:
    if arena.is_async:
        pytest.skip("the sync half of it")
    calls: list[Any] = []
    engine = arena.make()
    database = Database(engine, on_acquire=calls.append, connections=1)
    with database.session() as session:
        assert session.scalar(COUNT) == 3
    assert len(calls) == 1
    assert engine.pool.gate is database.gate  # type: ignore[attr-defined]
    assert database.gate.connections == 1


def test_an_engine_in_use_takes_no_new_options(on_sync: Arena) -> None:
    engine = on_sync.make()
    with engine.connect() as connection:
        connection.execute(COUNT)
    with pytest.raises(ConfigError, match="too late"):
        _ = Database(engine, on_pin="warn").engine


@pytest.mark.parametrize("why", ["off", "disabled", "memory"])
def test_hooks_run_where_connections_are_not_leased(on_sync: Arena, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    if why == "off":
        monkeypatch.setenv("HEADGATE", "off")
    url = "sqlite://" if why == "memory" else on_sync.url
    database = Database(url, enabled=why != "disabled", on_acquire=calls.append)
    with database.session() as session:
        session.execute(text("SELECT 1"))
    assert len(calls) == 1
    database.dispose()


def test_a_forgotten_connection_that_on_release_has_not_seen_is_nobodys(on_postgresql: Arena) -> None:
    if on_postgresql.is_async:
        pytest.skip("the sync half of it")
    engine = on_postgresql.make(pool_size=1, lease_options=LeaseOptions(on_release=lambda _: None))
    connection = engine.connect()
    connection.execute(text("SET app.tenant = 'acme'"))
    del connection
    gc.collect()
    with engine.connect() as connection:
        assert not connection.scalar(text("SELECT current_setting('app.tenant', true)"))


def test_a_snapshot_needs_transactions(on_postgresql: Arena) -> None:
    database = Database(on_postgresql.make(isolation_level="AUTOCOMMIT"))
    if on_postgresql.is_async:
        pytest.skip("the sync half of it")
    with pytest.raises(ConfigError, match="AUTOCOMMIT"):
        database.session(snapshot=True)


def test_a_cursor_with_arguments_of_its_own_taints(on_postgresql: Arena) -> None:
    if on_postgresql.is_async:
        pytest.skip("psycopg's own")
    engine = on_postgresql.make(pool_size=2)

    def inside() -> None:
        raw: Any = engine.raw_connection()
        cursor = raw.cursor(row_factory=None)
        cursor.execute("SELECT pg_advisory_lock(9)")
        raw.commit()
        with engine.connect() as other:
            assert other.scalar(text("SELECT pg_try_advisory_lock(9)")) is False, "the holder still has it"
        cursor.execute("SELECT pg_advisory_unlock(9)")
        assert cursor.fetchone() == (True,)
        raw.close()

    on_postgresql.run(inside)


# on_pin

PINS = [
    pytest.param(lambda c: c.execute(text("SELECT my_own(1)")), "my_own", id="an unknown function"),
    pytest.param(lambda c: c.connection.dbapi_connection, "reached for", id="the driver"),
    pytest.param(lambda c: c.execution_options(yield_per=2).execute(COUNT), "streamed", id="a stream"),
]


@pytest.fixture
def with_own_function(on_postgresql: Arena) -> Arena:
    """A function of the application's own."""
    on_postgresql.other("CREATE OR REPLACE FUNCTION my_own(integer) RETURNS integer LANGUAGE sql AS 'SELECT $1'")
    return on_postgresql


@pytest.mark.parametrize(("use", "reason"), PINS)
def test_on_pin_names_each_place_once(
    with_own_function: Arena, use: Any, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    engine = with_own_function.make(lease_options=LeaseOptions(on_pin="warn"))

    def body(connection: Connection) -> None:
        use(connection)

    with caplog.at_level(logging.WARNING, "headgate.pins"):
        for _ in range(3):
            with_own_function.connected(body, engine)
    (record,) = caplog.records
    message = record.getMessage()
    assert reason in message
    assert "test_escapes.py:" in message
    assert "Remedies: 1. " in message


@pytest.mark.parametrize(
    ("use", "until", "still_kept"),
    [
        pytest.param(lambda c: c.execution_options(yield_per=2).execute(COUNT), PINNED[0], 0, id="a stream"),
        pytest.param(lambda c: c.execute(text("SET app.tenant = 'acme'")), TAINTED[0], 1, id="a SET"),
        pytest.param(lambda c: c.connection.dbapi_connection, TAINTED[0], 1, id="the driver"),
    ],
)
def test_on_pin_says_until_when_a_connection_is_kept(
    on_postgresql: Arena, use: Any, until: str, still_kept: int, caplog: pytest.LogCaptureFixture
) -> None:
    engine = on_postgresql.make(lease_options=LeaseOptions(on_pin="warn"))
    gate = engine.pool.gate  # type: ignore[attr-defined]

    def on_core(connection: Connection) -> None:
        use(connection)
        connection.commit()
        assert gate.statistics().in_use == still_kept

    def in_session(session: Session) -> None:
        use(session.connection())
        session.commit()
        assert gate.statistics().in_use == 0

    on_postgresql.connected(on_core, engine)
    on_postgresql.play(in_session, engine)
    (record,) = caplog.records
    assert f": a connection is kept until {until}, because" in record.getMessage()


def test_on_pin_error_raises_before_the_statement_runs(with_own_function: Arena) -> None:
    engine = with_own_function.make(lease_options=LeaseOptions(on_pin="error"))

    def body(connection: Connection) -> None:
        with pytest.raises(LeaseError, match="my_own"):
            connection.execute(text("SELECT my_own(1)"))
        assert connection.scalar(COUNT) == 3

    with_own_function.connected(body, engine)


def test_on_pin_does_not_mind_writes_nor_what_is_meant(on_postgresql: Arena) -> None:
    database = database_on(on_postgresql, on_pin="error")
    with database.transaction() as session:
        session.add(Item(id=4, name="four"))
    with database.session() as session:
        session.pin()
        session.scalars(select(Item).with_for_update()).all()
    with database.session(snapshot=True) as session:
        session.scalars(select(Item)).all()
    database.dispose()


def test_currval_of_another_connection_is_an_error(on_postgresql: Arena) -> None:
    on_postgresql.other("CREATE TABLE IF NOT EXISTS counted (id serial, a integer)")
    engine = on_postgresql.make(pool_size=2)

    def inside() -> None:
        with engine.connect() as one, engine.connect() as two, engine.connect() as three:
            one.execute(text("INSERT INTO counted (a) VALUES (1)"))
            one.commit()
            two.execute(insert(Item).values(id=4, name="four"))
            three.execute(insert(Item).values(id=5, name="five"))  # has revoked what was left with one
            two.rollback()
            with pytest.raises(LeaseError, match="RETURNING"):
                one.scalar(text("SELECT currval('counted_id_seq')"))

    on_postgresql.run(inside)


@pytest.mark.parametrize(
    "statement",
    ["SELECT my_own(lastval) FROM readings", "CREATE TABLE readings (lastval int)", "SET my.own = 'lastval()'"],
)
def test_a_name_is_not_taken_for_currval(with_own_function: Arena, statement: str) -> None:
    with_own_function.other("DROP TABLE IF EXISTS readings")
    engine = with_own_function.make(pool_size=2)
    if statement.startswith("SELECT"):
        with_own_function.other("CREATE TABLE readings (lastval int)")

    def inside() -> None:
        with engine.connect() as one, engine.connect() as two, engine.connect() as three:
            one.execute(insert(Item).values(id=6, name="six"))
            one.commit()
            two.execute(insert(Item).values(id=4, name="four"))
            three.execute(insert(Item).values(id=5, name="five"))  # has revoked what was left with one
            two.rollback()
            one.execute(text(statement))

    with_own_function.run(inside)


@pytest.mark.parametrize(
    ("statement", "family", "found"),
    [
        ("SELECT lastval()", "postgresql", "lastval"),
        ('SELECT pg_catalog."currval" ($1)', "postgresql", "currval"),
        ("DO $$ BEGIN PERFORM lastval(); END $$", "postgresql", "lastval"),
        ("SELECT f(lastvalue), lastval /* lastval() */ FROM m WHERE a = 'lastval()'", "postgresql", None),
        ("CREATE TABLE lastval (currval int)", "postgresql", None),
        ("SELECT changes()", "postgresql", None),
        ("SELECT changes()", "sqlite", "changes"),
        ("SELECT 1 + total_changes()", "sqlite", "total_changes"),
        ("SELECT last_insert_rowid()", "sqlite", "last_insert_rowid"),
        ("CREATE TABLE IF NOT EXISTS main.changes (id)", "sqlite", None),
    ],
)
def test_what_answers_for_ones_own_writes_is_found(statement: str, family: Family, found: str | None) -> None:
    assert find_own_value(statement, family) == found


def test_changes_of_another_connection_are_an_error(on_sqlite: Arena) -> None:
    if on_sqlite.is_async:
        pytest.skip("the sync half of it")
    engine = on_sqlite.make(pool_size=1)
    with engine.connect() as one, engine.connect() as other:
        one.execute(text("UPDATE item SET name = name"))
        one.commit()
        other.execute(text("DELETE FROM item WHERE id = 0"))
        other.commit()
        with pytest.raises(LeaseError, match=r"changes\(\)"):
            one.scalar(text("SELECT changes()"))


@pytest.mark.parametrize("listened", ["checkin", "invalidate"])
def test_a_listener_that_talks_to_its_connection_does_not_hurt_the_other_side(
    on_postgresql: Arena, listened: str
) -> None:
    if not on_postgresql.is_async:
        pytest.skip("async connections cannot be talked to in a thread; the other way round blocks")
    database = database_on(on_postgresql, connections=1, max_wait=5)

    def talk(dbapi: Any, *_: Any) -> None:
        if dbapi is not None:
            cursor = dbapi.cursor()
            cursor.execute("SELECT 1")
            cursor.close()
            dbapi.rollback()

    for name in {listened, "checkin"}:
        event.listen(database.async_engine.sync_engine, name, talk)

    def read() -> None:
        with database.session() as session:
            assert session.scalar(COUNT) == 3

    async def main() -> None:
        async with database.async_session() as session:
            for _ in range(3):
                assert await session.scalar(COUNT) == 3
                await asyncio.to_thread(read)
        await database.dispose_async()

    on_postgresql.runner.run(main())
