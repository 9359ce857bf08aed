"""Every numbered point of «Leases», over every driver."""

from __future__ import annotations

import asyncio
import gc
import itertools
import logging
import sys
import threading
import time
from typing import Any

import pytest
from psycopg.rows import dict_row
from sqlalchemy import Connection, MetaData, create_engine, event, func, insert, inspect, select, text, update
from sqlalchemy.exc import IntegrityError, InvalidRequestError, OperationalError, ProgrammingError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import QueuePool, StaticPool

import headgate
from headgate import Overloaded
from headgate.gate import Gate
from headgate.lease import VirtualConnection
from headgate.lending import PING_AFTER_IDLE_NS

from .conftest import Arena, Base, Item

BACKEND = text("SELECT pg_backend_pid()")
COUNT = text("SELECT count(*) FROM item")


def held(session: Session | Connection) -> int:
    """How many physical connections are out."""
    engine = session.get_bind() if isinstance(session, Session) else session.engine
    return int(engine.pool.gate.statistics().in_use)  # type: ignore[union-attr]


# 1. no connection before the first statement


def test_a_session_holds_nothing_before_its_first_statement(arena: Arena) -> None:
    def body(session: Session) -> None:
        session.connection()
        assert held(session) == 0

    arena.play(body)


def test_sqlalchemy_is_given_a_virtual_connection(arena: Arena) -> None:
    def body(connection: Connection) -> None:
        assert isinstance(connection.connection, VirtualConnection)

    arena.connected(body)


def test_questions_about_the_connection_do_not_acquire_one(arena: Arena) -> None:
    def body(connection: Connection) -> None:
        raw = connection.connection
        assert raw.is_valid
        assert not raw.is_detached
        assert not raw.closed
        assert not raw.broken
        raw.info["mine"] = 1
        assert connection.info == {"mine": 1}
        assert held(connection) == 0

    arena.connected(body)


def test_info_belongs_to_the_checkout_and_record_info_to_the_physical_connection(arena: Arena) -> None:
    engine = arena.make(pool_size=1)

    def leave_a_mark(connection: Connection) -> None:
        connection.connection.info["checkout"] = True
        record_info = connection.connection.record_info
        assert record_info is not None
        record_info["physical"] = True

    def look(connection: Connection) -> None:
        assert "checkout" not in connection.connection.info
        record_info = connection.connection.record_info
        assert record_info is not None
        assert record_info["physical"]

    arena.connected(leave_a_mark, engine)
    arena.connected(look, engine)


def test_a_refusal_leaves_with_its_own_type(arena: Arena) -> None:
    engine = arena.make(pool_size=1, pool_timeout=0.01)

    def body(session: Session) -> None:
        session.execute(update(Item).values(name="held"))
        with Session(engine) as second, pytest.raises(Overloaded) as caught:
            second.scalars(select(Item)).all()
        assert type(caught.value) is Overloaded
        assert caught.value.reason == "deadline"

    arena.play(body, engine)


def test_a_pool_timeout_of_zero_refuses_at_once(arena: Arena) -> None:
    engine = arena.make(pool_size=1, pool_timeout=0)

    def body(session: Session) -> None:
        session.execute(update(Item).values(name="held"))
        with Session(engine) as second, pytest.raises(Overloaded):
            second.scalars(select(Item)).all()

    arena.play(body, engine)


def test_a_refusal_names_the_line_that_holds_the_connection(arena: Arena) -> None:
    engine = arena.make(pool_size=1, pool_timeout=0.01)

    def body(session: Session) -> None:
        session.execute(update(Item).values(name="held"))
        with Session(engine) as second, pytest.raises(Overloaded, match=r"Held by: .*test_leases\.py:\d+ \(1\)"):
            second.scalars(select(Item)).all()

    arena.play(body, engine)


def test_a_connect_error_leaves_with_its_own_type(on_postgresql: Arena) -> None:
    on_postgresql.url = on_postgresql.url.set(port=1)

    def body(session: Session) -> None:
        with pytest.raises((OperationalError, OSError)):
            session.scalars(select(Item)).all()

    on_postgresql.play(body)


# 2. late BEGIN


def test_nothing_is_held_after_a_read(arena: Arena) -> None:
    def body(session: Session) -> None:
        assert [item.name for item in session.scalars(select(Item).order_by(Item.id))] == [
            "one",
            "two",
            "three",
        ]
        assert held(session) == 0
        assert session.get(Item, 2).name == "two"  # type: ignore[union-attr]
        assert session.execute(text("SELECT count(*) FROM item")).scalar_one() == 3
        assert held(session) == 0
        assert session.in_transaction(), "the session itself notices nothing"

    arena.play(body)


def test_the_server_sees_no_transaction_after_a_read(on_postgresql: Arena) -> None:
    def body(session: Session) -> None:
        session.scalars(select(Item)).all()
        assert on_postgresql.states() == {"idle": 1}

    on_postgresql.play(body)


def test_the_first_write_opens_a_transaction_and_keeps_its_connection(arena: Arena) -> None:
    def body(session: Session) -> None:
        item = session.get(Item, 1)
        assert item is not None
        item.name = "changed"
        session.flush()
        assert held(session) == 1
        assert arena.names()[0] == "one", "not committed yet"
        if arena.is_postgresql:
            assert arena.states() == {"idle in transaction": 1}
        session.scalars(select(Item)).all()
        assert held(session) == 1, "a read inside the transaction belongs to it"
        session.commit()
        assert held(session) == 0
        assert arena.names()[0] == "changed"

    arena.play(body)


def test_a_transaction_stays_on_one_connection(on_postgresql: Arena) -> None:
    def body(session: Session) -> None:
        session.execute(insert(Item).values(id=4, name="four"))
        assert len({session.scalar(BACKEND) for _ in range(5)}) == 1

    on_postgresql.play(body)


def test_a_rolled_back_write_is_gone(arena: Arena) -> None:
    def body(session: Session) -> None:
        session.add(Item(id=4, name="four"))
        session.flush()
        session.rollback()
        assert held(session) == 0
        assert session.scalar(select(func.count()).select_from(Item)) == 3

    arena.play(body)
    assert arena.names() == ["one", "two", "three"]


def test_a_write_that_is_not_committed_is_gone(arena: Arena) -> None:
    arena.play(lambda session: session.execute(insert(Item).values(id=4, name="four")))
    assert arena.names() == ["one", "two", "three"]


def test_reads_and_writes_alternate(arena: Arena) -> None:
    def body(session: Session) -> None:
        for number in range(4, 10):
            session.add(Item(id=number, name=str(number)))
            session.commit()
            assert held(session) == 0
            assert session.scalar(select(func.max(Item.id))) == number
            assert held(session) == 0

    arena.play(body)
    assert len(arena.names()) == 9


@pytest.mark.parametrize("reach", ["cursor", "dbapi_connection"])
def test_a_write_through_a_raw_cursor_is_not_lost(arena: Arena, reach: str) -> None:
    def body(connection: Connection) -> None:
        connection.execute(text("SELECT 1"))
        raw: Any = connection.connection
        cursor = raw.cursor() if reach == "cursor" else raw.dbapi_connection.cursor()
        cursor.execute("INSERT INTO item (id, name) VALUES (4, 'raw')")
        cursor.close()
        connection.execute(text("SELECT 1"))
        assert held(connection) == 1
        connection.commit()

    arena.connected(body)
    assert arena.names()[-1] == "raw"


def test_a_raw_connection_reads_and_writes(arena: Arena) -> None:
    engine = arena.make()

    def body() -> None:
        raw = engine.raw_connection()
        cursor = raw.cursor()
        cursor.execute("SELECT name FROM item ORDER BY id")
        assert cursor.fetchone()[0] == "one"
        assert [row[0] for row in cursor.fetchall()] == ["two", "three"]
        cursor.close()
        cursor = raw.cursor()
        cursor.execute("UPDATE item SET name = 'raw' WHERE id = 1")
        assert cursor.rowcount == 1
        cursor.close()
        raw.commit()
        raw.close()

    arena.run(body)
    assert arena.names()[0] == "raw"


def test_executemany_and_bulk_operations_are_transactional(arena: Arena) -> None:
    def body(session: Session) -> None:
        session.execute(insert(Item), [{"id": n, "name": str(n)} for n in range(4, 8)])
        session.bulk_save_objects([Item(id=8, name="8")])
        session.rollback()
        session.execute(insert(Item), [{"id": n, "name": str(n)} for n in range(4, 8)])
        session.commit()

    arena.play(body)
    assert len(arena.names()) == 7


# 3. the proof works on the text the driver gets


@pytest.mark.parametrize(
    "statement",
    ["SELECT nextval('counter')", "SELECT id FROM item FOR UPDATE", "SELECT set_config('a.b', 'c', true)"],
)
def test_a_select_that_is_more_than_a_read_pins(on_postgresql: Arena, statement: str) -> None:
    on_postgresql.other("CREATE SEQUENCE IF NOT EXISTS counter")

    def body(session: Session) -> None:
        session.execute(text(statement)).all()
        assert held(session) == 1
        assert on_postgresql.states() == {"idle in transaction": 1}

    on_postgresql.play(body)


def test_a_hint_added_at_the_last_moment_is_judged_too(on_postgresql: Arena) -> None:
    engine = on_postgresql.make()

    @event.listens_for(engine, "before_cursor_execute", retval=True)
    def lock_rows(conn: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> Any:
        return statement + (" FOR UPDATE" if "item" in statement else ""), parameters

    def body(session: Session) -> None:
        session.scalars(select(Item)).all()
        assert held(session) == 1

    on_postgresql.play(body, engine)


def test_functions_of_ones_own_read_if_they_are_listed(on_postgresql: Arena) -> None:
    on_postgresql.other("CREATE OR REPLACE FUNCTION shout(text) RETURNS text LANGUAGE sql AS 'SELECT upper($1)'")
    statement = text("SELECT shout('x')")

    def pins(session: Session) -> None:
        session.execute(statement)
        assert held(session) == 1

    def reads(session: Session) -> None:
        session.execute(statement)
        assert held(session) == 0

    on_postgresql.play(pins)
    options = headgate.LeaseOptions(read_functions=frozenset({"shout"}))
    on_postgresql.play(reads, on_postgresql.make(lease_options=options))


# 5. between statements


def test_a_budget_of_one_serves_many_sessions_that_wait_for_something_else(arena: Arena) -> None:
    engine = arena.make(pool_size=1, pool_timeout=0.1)

    def body() -> None:
        sessions = [Session(engine) for _ in range(5)]
        for _ in range(3):
            for session in sessions:
                assert session.get(Item, 1, populate_existing=True) is not None
        for session in sessions:
            session.close()

    arena.run(body)


def test_rows_that_are_still_being_read_keep_their_connection(arena: Arena) -> None:
    """sqlite3 steps through rows one by one; the other drivers have them all when execute returns."""

    def body(connection: Connection) -> None:
        rows = connection.execute(text("SELECT name FROM item ORDER BY id"))
        assert rows.fetchone() == ("one",)
        assert held(connection) == (1 if arena.driver == "pysqlite" else 0)
        assert rows.fetchall() == [("two",), ("three",)]
        assert held(connection) == 0

    arena.connected(body)


# 6. three classes of statement, and escapes


def test_a_savepoint_pins_until_the_transaction_ends(arena: Arena) -> None:
    def body(session: Session) -> None:
        with session.begin_nested():
            session.add(Item(id=4, name="four"))
        assert held(session) == 1
        session.add(Item(id=5, name="five"))
        with pytest.raises(IntegrityError), session.begin_nested():
            session.execute(insert(Item).values(id=4, name="twice"))
        session.commit()
        assert held(session) == 0

    arena.play(body)
    assert arena.names()[3:] == ["four", "five"]


def test_session_state_taints_until_the_checkout_ends(on_postgresql: Arena) -> None:
    def body(connection: Connection) -> None:
        connection.execute(text("SET statement_timeout = '12345ms'"))
        connection.commit()
        assert held(connection) == 1
        assert connection.scalar(text("SHOW statement_timeout")) == "12345ms"

    engine = on_postgresql.make()
    on_postgresql.connected(body, engine)
    assert engine.pool.gate.statistics().in_use == 0  # type: ignore[attr-defined]


def test_a_temporary_table_survives_the_transaction(on_postgresql: Arena) -> None:
    def body(connection: Connection) -> None:
        connection.execute(text("CREATE TEMPORARY TABLE scratch (n int)"))
        connection.commit()
        connection.execute(text("INSERT INTO scratch VALUES (1)"))
        connection.commit()
        assert connection.scalar(text("SELECT n FROM scratch")) == 1

    on_postgresql.connected(body)


def test_set_local_in_a_listener_gives_row_level_security_one_tenant(on_postgresql: Arena) -> None:
    for statement in (
        "DROP ROLE IF EXISTS tenant_app",
        "CREATE ROLE tenant_app LOGIN PASSWORD 'x'",
        "CREATE TABLE IF NOT EXISTS bill (tenant text, amount int)",
        "TRUNCATE bill",
        "INSERT INTO bill VALUES ('red', 1), ('blue', 2)",
        "GRANT ALL ON bill TO tenant_app",
        "ALTER TABLE bill ENABLE ROW LEVEL SECURITY",
        "DROP POLICY IF EXISTS own ON bill",
        "CREATE POLICY own ON bill USING (tenant = current_setting('app.tenant'))",
    ):
        on_postgresql.other(statement)
    engine = on_postgresql.make(pool_size=1)
    on_postgresql.url = on_postgresql.url.set(username="tenant_app", password="x")
    engine = on_postgresql.make(pool_size=1)

    def body(tenant: str) -> list[tuple[str, int]]:
        with Session(engine) as session:

            @event.listens_for(session, "after_begin")
            def choose(session: Session, transaction: Any, connection: Connection) -> None:
                connection.execute(text(f"SET LOCAL app.tenant = '{tenant}'"))

            seen = [tuple(row) for row in session.execute(text("SELECT tenant, amount FROM bill"))]
            session.commit()
            return seen + [tuple(row) for row in session.execute(text("SELECT tenant, amount FROM bill"))]

    try:
        for tenant, amount in (("red", 1), ("blue", 2), ("red", 1)):
            assert on_postgresql.run(lambda tenant=tenant: body(tenant)) == [(tenant, amount)] * 2  # type: ignore[misc]
    finally:
        on_postgresql.other("DROP TABLE bill")


def test_streaming_pins_until_the_transaction_ends(on_postgresql: Arena) -> None:
    def body(connection: Connection) -> None:
        rows = connection.execution_options(stream_results=True).execute(text("SELECT name FROM item ORDER BY id"))
        assert rows.fetchone() == ("one",)
        assert held(connection) == 1
        assert rows.fetchmany(1) == [("two",)]
        rows.close()
        connection.rollback()
        assert held(connection) == 0

    on_postgresql.connected(body)


def test_a_stream_left_open_cannot_reach_a_connection_that_went_back(on_postgresql: Arena) -> None:
    def body(connection: Connection) -> None:
        rows = connection.execution_options(stream_results=True).execute(text("SELECT generate_series(1, 10000)"))
        rows.fetchone()
        connection.rollback()
        assert held(connection) == 0
        with pytest.raises(Exception):  # noqa: B017, PT011  # each driver has its own word for a closed cursor
            rows.fetchmany(5000)

    on_postgresql.connected(body)


def test_whoever_reaches_for_the_driver_keeps_the_connection(arena: Arena) -> None:
    def body(connection: Connection) -> None:
        physical = connection.connection.driver_connection
        connection.execute(text("SELECT 1")).all()
        connection.commit()
        assert held(connection) == 1
        assert connection.connection.driver_connection is physical

    arena.connected(body)


def test_a_finished_cursor_does_not_give_its_connection_away(on_postgresql: Arena) -> None:
    def body(connection: Connection) -> None:
        cursor = connection.connection.cursor()
        cursor.execute("SELECT 1")
        assert held(connection) == 0
        assert hasattr(cursor, "connection") is not on_postgresql.is_async  # SQLAlchemy's adapters have none
        # SQLAlchemy's adapters have little that reaches a connection, and 2.0.43 has nothing.
        errors = (headgate.LeaseError, AttributeError) if on_postgresql.is_async else headgate.LeaseError
        with pytest.raises(errors):
            _ = cursor.setinputsizes if on_postgresql.is_async else cursor.copy
        assert held(connection) == 0

    on_postgresql.connected(body)


def test_instrumentation_that_asks_a_cursor_does_not_cost_a_connection(arena: Arena) -> None:
    engine = arena.make()

    @event.listens_for(engine, "before_cursor_execute")
    @event.listens_for(engine, "after_cursor_execute")
    def instrument(conn: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        getattr(getattr(cursor, "connection", None), "info", None)
        assert getattr(cursor, "_query", None) is None
        assert getattr(cursor, "no_such_thing", None) is None
        assert cursor.arraysize >= 1

    def body(session: Session) -> None:
        for _ in range(2):
            session.scalars(select(Item)).all()
            assert held(session) == 0

    arena.play(body, engine)


def test_a_detached_connection_counts_until_it_is_closed(arena: Arena) -> None:
    engine = arena.make(pool_size=1, pool_timeout=0.01)

    def body(connection: Connection) -> None:
        connection.detach()
        assert connection.scalar(text("SELECT count(*) FROM item")) == 3
        assert held(connection) == 1

    arena.connected(body, engine)
    arena.connected(lambda connection: connection.execute(text("SELECT 1")).all(), engine)


def test_pin_gives_a_classic_transaction_from_here(on_postgresql: Arena) -> None:
    engine = on_postgresql.make()

    def body() -> None:
        with headgate.Session(engine) as session:
            session.pin()
            assert len({session.scalar(BACKEND) for _ in range(3)}) == 1
            assert held(session) == 1
            session.commit()
            assert held(session) == 0

    on_postgresql.run(body)


# 7. where it does not lease, it is SQLAlchemy


def sees_one_picture(arena: Arena, session: Session) -> bool:
    before = session.scalar(text("SELECT name FROM item WHERE id = 1"))
    arena.other("UPDATE item SET name = name || '!' WHERE id = 1")
    return bool(session.scalar(text("SELECT name FROM item WHERE id = 1")) == before)


def test_reads_under_read_committed_see_what_is_committed(on_postgresql: Arena) -> None:
    on_postgresql.play(lambda session: pytest.fail("stale") if sees_one_picture(on_postgresql, session) else None)


@pytest.mark.parametrize("source", ["create_engine", "engine_options", "connection", "session", "role", "listener"])
@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_a_stronger_isolation_from_any_source_keeps_one_connection(
    on_postgresql: Arena, source: str, level: str
) -> None:
    arena = on_postgresql
    default = f"default_transaction_isolation TO '{level.lower()}'"
    options = {"isolation_level": level} if source == "create_engine" else {}
    if source == "role":
        arena.other(f"ALTER ROLE CURRENT_USER SET {default}")
    try:
        engine = arena.make(**options)
        if source == "listener":

            @event.listens_for(engine, "connect")
            def set_default(dbapi: Any, record: Any) -> None:
                cursor = dbapi.cursor()
                cursor.execute(f"SET {default}")
                cursor.close()
                dbapi.commit()

        bound = engine.execution_options(isolation_level=level) if source == "engine_options" else engine

        def body(session: Session) -> None:
            if source in ("session", "connection"):
                session.connection(execution_options={"isolation_level": level})
            assert sees_one_picture(arena, session)
            assert engine.pool.gate.statistics().in_use == 1  # type: ignore[attr-defined]

        arena.play(body, bound)
        assert engine.pool.gate.statistics().in_use == 0  # type: ignore[attr-defined]
        if source in ("session", "connection", "engine_options"):
            arena.play(lambda session: pytest.fail("kept") if sees_one_picture(arena, session) else None, engine)
    finally:
        if source == "role":
            arena.other("ALTER ROLE CURRENT_USER RESET default_transaction_isolation")


def test_it_says_once_why_it_does_not_lease(on_postgresql: Arena, caplog: pytest.LogCaptureFixture) -> None:
    engine = on_postgresql.make(isolation_level="SERIALIZABLE")
    with caplog.at_level(logging.INFO, "headgate"):
        for _ in range(3):
            on_postgresql.play(lambda session: session.scalars(select(Item)).all(), engine)
    said = [record.message for record in caplog.records if record.name.startswith("headgate")]
    assert len(said) == 1
    assert "not leased" in said[0]


def test_an_autocommit_engine_leases_and_stays_autocommit(on_postgresql: Arena) -> None:
    engine = on_postgresql.make(isolation_level="AUTOCOMMIT")

    def body(connection: Connection) -> None:
        connection.execute(text("SELECT 1")).all()
        assert held(connection) == 0
        connection.execute(text("UPDATE item SET name = 'now' WHERE id = 1"))
        assert on_postgresql.names()[0] == "now"

    for _ in range(2):
        on_postgresql.connected(body, engine)


def test_every_flip_is_undone(on_postgresql: Arena) -> None:
    """An engine that stayed in autocommit would measure wonderfully and lose rollbacks."""
    engine = on_postgresql.make(pool_size=1)

    def body(session: Session) -> None:
        session.scalars(select(Item)).all()
        with pytest.raises(ProgrammingError):
            session.execute(text("SELECT count(no_such_column) FROM item"))
        session.rollback()
        session.execute(text("UPDATE item SET name = 'gone'"))
        assert on_postgresql.states() == {"idle in transaction": 1}
        session.rollback()

    on_postgresql.play(body, engine)
    assert on_postgresql.names() == ["one", "two", "three"]


def use_begin_recipe(engine: Any) -> None:
    @event.listens_for(engine, "connect")
    def leave_transactions_to_us(dbapi: Any, record: Any) -> None:
        dbapi.isolation_level = None

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN")


def test_sqlite_with_the_begin_recipe_does_not_lease(on_sqlite: Arena) -> None:
    arena = on_sqlite
    engine = arena.make()
    use_begin_recipe(engine)

    def body(session: Session) -> None:
        session.scalars(select(Item)).all()
        assert held(session) == 1
        session.add(Item(id=4, name="four"))
        session.flush()
        session.rollback()
        assert held(session) == 0

    arena.play(body, engine)
    assert len(arena.names()) == 3


@pytest.mark.skipif(sys.version_info < (3, 12), reason="sqlite3's autocommit attribute came with Python 3.12")
def test_sqlite_without_legacy_transactions_does_not_lease(on_sqlite: Arena) -> None:
    arena = on_sqlite
    engine = arena.make(connect_args={"autocommit": False})

    def body(session: Session) -> None:
        session.scalars(select(Item)).all()
        assert held(session) == 1

    arena.play(body, engine)


def test_lease_leaves_a_pool_of_one_shared_connection_alone(caplog: pytest.LogCaptureFixture) -> None:
    engine = create_engine("sqlite://", poolclass=StaticPool)
    with caplog.at_level(logging.INFO, "headgate"):
        assert headgate.lease(engine) is engine
    assert type(engine.pool) is StaticPool
    assert "StaticPool" in caplog.text


def test_headgate_off_gives_stock_behaviour(arena: Arena, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADGATE", "off")

    def body(session: Session) -> None:
        session.scalars(select(Item)).all()
        pool: QueuePool = session.get_bind().pool  # type: ignore[union-attr]
        assert pool.checkedout() == 1
        assert not isinstance(session.connection().connection, VirtualConnection)

    arena.play(body)


# 8. the ends of transactions and connections


def test_the_end_of_a_reading_transaction_costs_nothing(arena: Arena) -> None:
    engine = arena.make()

    def body(session: Session) -> None:
        session.scalars(select(Item)).all()
        before = engine.pool.gate.statistics().acquired  # type: ignore[attr-defined]
        session.commit()
        session.rollback()
        assert engine.pool.gate.statistics().acquired == before  # type: ignore[attr-defined]

    arena.play(body, engine)


def test_a_failed_read_leaves_the_session_reading(on_postgresql: Arena) -> None:
    def body(connection: Connection) -> None:
        with pytest.raises(ProgrammingError):
            connection.execute(text("SELECT no_such_column FROM item"))
        assert held(connection) == 0
        assert connection.scalar(text("SELECT count(*) FROM item")) == 3

    on_postgresql.connected(body)


def test_a_failed_write_aborts_its_transaction(on_postgresql: Arena) -> None:
    def body(session: Session) -> None:
        session.execute(insert(Item).values(id=4, name="four"))
        with pytest.raises(IntegrityError):
            session.execute(insert(Item).values(id=4, name="again"))
        session.rollback()
        assert held(session) == 0

    on_postgresql.play(body)
    assert on_postgresql.names() == ["one", "two", "three"]


def test_an_invalidated_connection_gives_its_permit_back(arena: Arena) -> None:
    engine = arena.make(pool_size=1, pool_timeout=0.5)

    def body(connection: Connection) -> None:
        connection.execute(insert(Item).values(id=4, name="four"))
        connection.invalidate()
        assert held(connection) == 0
        connection.rollback()
        assert connection.scalar(text("SELECT count(*) FROM item")) == 3

    arena.connected(body, engine)


def test_a_connection_that_was_invalidated_from_below_goes_back_quietly(arena: Arena) -> None:
    def body(connection: Connection) -> None:
        virtual: Any = connection.connection
        assert virtual.dbapi_connection is not None
        virtual._lease.with_fairy().invalidate()

    arena.connected(body)


def test_a_killed_backend_is_a_disconnect_as_in_sqlalchemy(on_postgresql: Arena) -> None:
    engine = on_postgresql.make(pool_size=1)

    def body(connection: Connection) -> None:
        connection.execute(insert(Item).values(id=4, name="four"))
        pid = connection.scalar(BACKEND)
        on_postgresql.other(f"SELECT pg_terminate_backend({pid}, 5000)")
        with pytest.raises(Exception) as caught:  # noqa: PT011  # OperationalError or InterfaceError, by driver
            connection.execute(text("SELECT 1")).all()
        assert getattr(caught.value, "connection_invalidated", False)
        assert held(connection) == 0
        with pytest.raises(InvalidRequestError):
            connection.execute(text("SELECT 1"))
        connection.rollback()
        assert connection.scalar(text("SELECT count(*) FROM item")) == 3

    on_postgresql.connected(body, engine)


def test_a_reader_does_not_notice_that_its_idle_connection_was_killed(on_postgresql: Arena) -> None:
    def body(session: Session) -> None:
        session.scalars(select(Item)).all()
        on_postgresql.other(
            f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            f"WHERE application_name = '{on_postgresql.application}'"
        )
        assert len(session.scalars(select(Item)).all()) == 3

    on_postgresql.play(body, on_postgresql.make(pool_size=1))


def test_a_reader_does_not_notice_that_a_plan_went_stale(on_postgresql: Arena) -> None:
    statement = text("SELECT * FROM item ORDER BY id")

    def body(session: Session) -> None:
        for _ in range(8):  # psycopg prepares after five
            assert len(session.execute(statement).all()[0]) == 2
        on_postgresql.other("ALTER TABLE item ADD COLUMN size int")
        assert len(session.execute(statement).all()[0]) == 3

    on_postgresql.play(body, on_postgresql.make(pool_size=1))


@pytest.mark.filterwarnings("ignore:The garbage collector:sqlalchemy.exc.SAWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_forgotten_session_gives_its_permit_back(arena: Arena) -> None:
    engine = arena.make(pool_size=1, pool_timeout=0.5)

    def forget() -> None:
        session = Session(engine)
        session.execute(insert(Item).values(id=4, name="four"))
        assert held(session) == 1

    def body() -> None:
        forget()
        gc.collect()
        with Session(engine) as session:
            assert session.scalar(select(func.count()).select_from(Item)) == 3

    arena.run(body)


def test_a_detached_connection_gives_its_place_back_however_it_ends(arena: Arena) -> None:
    engine = arena.make(pool_size=1, pool_timeout=0.05)

    def invalidate(connection: Connection) -> None:
        connection.detach()
        connection.invalidate()

    def close_behind_our_back(connection: Connection) -> None:
        connection.detach()
        connection.connection.dbapi_connection.close()

    for end in (invalidate, close_behind_our_back, Connection.detach):
        arena.connected(end, engine)  # type: ignore[arg-type]
        arena.connected(lambda connection: connection.execute(text("SELECT 1")).all(), engine)


def test_a_connect_listener_that_fails_leaves_no_place_behind(arena: Arena) -> None:
    engine = arena.make(pool_size=1, pool_timeout=0.05)
    arena.connected(lambda connection: connection.execute(text("SELECT 1")).all(), engine)
    arena.run(engine.dispose)
    failures = ["first"]

    @event.listens_for(engine, "connect")
    def fail_once(dbapi: Any, record: Any) -> None:
        if failures:
            raise LookupError(failures.pop())

    def body(connection: Connection) -> None:
        connection.execute(text("SELECT 1")).all()

    with pytest.raises(LookupError):
        arena.connected(body, engine)
    arena.connected(body, engine)


def test_connections_opened_before_a_dispose_go_on_with_the_new_pool(arena: Arena) -> None:
    engine = arena.make(pool_size=1, max_overflow=2, pool_timeout=0.5)

    def body() -> None:
        connections = [engine.connect() for _ in range(3)]
        for connection in connections:
            connection.execute(insert(Item).values(id=100 + id(connection) % 1000, name="x"))
            connection.rollback()
            if not arena.is_postgresql:
                break
        engine.dispose()
        for connection in connections:
            assert connection.scalar(text("SELECT count(*) FROM item")) == 3
            connection.close()
        assert engine.pool.checkedout() == 0
        assert engine.pool.checkedin() == 1

    arena.run(body)


def test_a_refused_stream_leaves_with_its_own_type(on_postgresql: Arena) -> None:
    engine = on_postgresql.make(pool_size=1, pool_timeout=0.01)

    def body(connection: Connection) -> None:
        connection.execute(insert(Item).values(id=4, name="four"))
        with engine.connect() as second, pytest.raises(Overloaded):
            second.execution_options(stream_results=True).execute(text("SELECT 1"))

    on_postgresql.connected(body, engine)


def test_an_option_set_on_a_raw_cursor_counts_for_its_next_statement(on_sync: Arena) -> None:
    if not on_sync.is_postgresql:
        pytest.skip("sqlite3's cursors are made with their row factory")

    def body(connection: Connection) -> None:
        cursor: Any = connection.connection.cursor()
        cursor.execute("SELECT 1 AS one")
        cursor.row_factory = dict_row
        cursor.execute("SELECT 1 AS one")
        assert cursor.fetchone() == {"one": 1}

    on_sync.connected(body)


def test_dispose_in_mid_flight_keeps_the_budget(arena: Arena) -> None:
    engine = arena.make(pool_size=1, pool_timeout=0.05)
    gate: Gate = engine.pool.gate  # type: ignore[attr-defined]

    def body(session: Session) -> None:
        session.execute(insert(Item).values(id=4, name="four"))
        engine.dispose()
        assert engine.pool.gate is gate  # type: ignore[attr-defined]
        with Session(engine) as second, pytest.raises(Overloaded):
            second.scalars(select(Item)).all()
        session.commit()
        with Session(engine) as second:
            assert second.scalar(select(func.count()).select_from(Item)) == 4

    arena.play(body, engine)


def test_test_suite_style_sessions_bound_to_a_connection_roll_back_everything(on_postgresql: Arena) -> None:
    # (sqlite3 needs the begin recipe for savepoints, and then it does not lease.)
    arena = on_postgresql

    def body(connection: Connection) -> None:
        transaction = connection.begin()
        for number in (4, 5):
            with Session(connection, join_transaction_mode="create_savepoint") as session:
                session.add(Item(id=number, name="test"))
                session.commit()
                session.add(Item(id=number + 10, name="test"))
                session.rollback()
                assert session.scalar(select(func.count()).select_from(Item)) == number
        transaction.rollback()

    arena.connected(body)
    assert arena.names() == ["one", "two", "three"]


def test_a_session_moves_between_threads(on_sync: Arena) -> None:
    """FastAPI opens, uses and closes a sync session on three threads."""
    arena = on_sync
    engine = arena.make()
    sessions: list[Session] = []

    def write() -> None:
        sessions[0].scalars(select(Item)).all()
        sessions[0].add(Item(id=4, name="four"))
        sessions[0].flush()

    for step in (lambda: sessions.append(Session(engine)), write, lambda: sessions[0].commit()):
        thread = threading.Thread(target=step)
        thread.start()
        thread.join()
    sessions[0].close()
    assert arena.names()[-1] == "four"


# lease(engine) and gates


def test_lease_turns_an_existing_engine(arena: Arena) -> None:
    if arena.is_async:
        async_engine = headgate.lease(create_async_engine(arena.url, pool_size=1, max_overflow=1))
        engine = async_engine.sync_engine
    else:
        engine = headgate.lease(create_engine(arena.url, pool_size=1, max_overflow=1))

    def body(session: Session) -> None:
        session.scalars(select(Item)).all()
        assert held(session) == 0
        assert engine.pool.gate.connections == 2  # type: ignore[attr-defined]

    arena.play(body, engine)
    arena.run(engine.dispose)


def test_lease_comes_too_late_for_an_engine_in_use(on_sync: Arena) -> None:
    engine = create_engine(on_sync.url, poolclass=QueuePool)
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))
    with pytest.raises(headgate.ConfigError, match="too late"):
        headgate.lease(engine)
    engine.dispose()


def test_listeners_of_the_pool_and_the_engine_go_on(arena: Arena) -> None:
    engine = arena.make(pool_size=1)
    seen: list[str] = []
    event.listen(engine, "connect", lambda *_: seen.append("connect"))
    event.listen(engine, "checkout", lambda *_: seen.append("checkout"))
    event.listen(engine, "checkin", lambda *_: seen.append("checkin"))
    event.listen(engine, "before_cursor_execute", lambda *_: seen.append("execute"))
    event.listen(engine, "commit", lambda *_: seen.append("commit"))

    def body(session: Session) -> None:
        session.scalars(select(Item)).all()
        session.commit()

    arena.play(body, engine)
    assert seen.count("connect") == 1
    assert seen.count("checkout") == seen.count("checkin")
    assert seen[-2:] == ["commit", "checkin"]
    assert "execute" in seen


def test_pre_ping_asks_only_what_has_been_idle(arena: Arena) -> None:
    engine = arena.make(pool_size=1, pool_pre_ping=True)
    gate: Gate = engine.pool.gate  # type: ignore[attr-defined]
    pings: list[Any] = []
    do_ping = engine.dialect.do_ping
    engine.dialect.do_ping = lambda dbapi: pings.append(dbapi) or do_ping(dbapi)  # type: ignore[func-returns-value]

    def body(session: Session) -> None:
        for _ in range(3):
            session.scalars(select(Item)).all()
        assert pings == []
        gate.clock = lambda: time.monotonic_ns() + 2 * PING_AFTER_IDLE_NS
        session.scalars(select(Item)).all()
        assert len(pings) == 1

    arena.play(body, engine)


def test_reflection_and_ddl_work(arena: Arena) -> None:
    engine = arena.make()

    def body() -> None:
        assert inspect(engine).has_table("item")
        metadata = MetaData()
        metadata.reflect(engine)
        assert set(metadata.tables["item"].columns.keys()) == {"id", "name"}
        Base.metadata.drop_all(engine)
        Base.metadata.create_all(engine)

    arena.run(body)


def test_a_checkin_from_below_does_not_close_what_is_somebody_elses_by_then(on_sync: Arena) -> None:
    engine = on_sync.make(pool_size=2)
    fairies: list[Any] = []
    event.listen(engine, "checkout", lambda dbapi, entry, fairy: fairies.append(fairy))
    with engine.connect() as forgetful, engine.connect() as other:
        forgetful.execute(select(Item)).all()
        fairies[-1]._checkin()  # as SQLAlchemy's own test suite does with what a test has left behind
        other.execute(insert(Item).values(id=4, name="four"))
        forgetful.close()
        other.commit()
    assert on_sync.names()[-1] == "four"


def test_rows_of_a_written_transaction_keep_their_connection_too(on_sqlite: Arena) -> None:
    if on_sqlite.is_async:
        pytest.skip("aiosqlite has the rows in memory")
    engine = on_sqlite.make(pool_size=1, pool_timeout=0.2)
    raw: Any = engine.raw_connection()
    cursor = raw.cursor()
    cursor.execute("UPDATE item SET name = name")
    cursor.execute("SELECT id FROM item ORDER BY id")
    assert cursor.fetchone() == (1,)
    raw.commit()
    with pytest.raises(Overloaded), engine.connect() as other:
        other.execute(insert(Item).values(id=100, name="uncommitted"))
    assert cursor.fetchall() == [(2,), (3,)]
    cursor.close()
    raw.close()


def test_a_ping_cancelled_at_hand_over_leaks_nothing(on_postgresql: Arena) -> None:
    if not on_postgresql.is_async:
        pytest.skip("only tasks are cancelled")
    engine = on_postgresql.make(pool_size=1, pool_pre_ping=True)
    gate: Gate = engine.pool.gate  # type: ignore[attr-defined]
    do_ping = engine.dialect.do_ping

    def cancelled(dbapi: Any) -> bool:
        raise asyncio.CancelledError

    def inside() -> None:
        with engine.connect() as one, engine.connect() as other:
            one.execute(select(Item)).all()
            gate.clock = lambda: time.monotonic_ns() + 2 * PING_AFTER_IDLE_NS
            engine.dialect.do_ping = cancelled  # type: ignore[method-assign]
            with pytest.raises(asyncio.CancelledError):
                other.execute(select(Item)).all()
            engine.dialect.do_ping = do_ping  # type: ignore[method-assign]
        with engine.connect() as third:
            assert len(third.execute(select(Item)).all()) == 3

    on_postgresql.run(inside)


# what instrumentation and old code do with connections and cursors


def test_instrumentation_finds_the_drivers_account_of_the_connection(on_sync: Arena) -> None:
    engine = on_sync.make()
    accounts: list[Any] = []

    @event.listens_for(engine, "before_cursor_execute")
    @event.listens_for(engine, "after_cursor_execute")
    def look(conn: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        conn.info.setdefault("started", []).append(statement)
        info = getattr(cursor.connection, "info", None)  # sqlite3 has none
        accounts.append(info and (info.dbname, info.port))

    def body(connection: Connection) -> None:
        for _ in range(2):
            assert connection.scalar(COUNT) == 3
            assert held(connection) == 0

    on_sync.connected(body, engine)
    account = (on_sync.url.database, on_sync.url.port) if on_sync.is_postgresql else None
    assert accounts == [account] * 4


def test_the_process_that_is_named_before_a_statement_is_the_one_that_runs_it(on_postgresql: Arena) -> None:
    if on_postgresql.is_async:
        pytest.skip("psycopg's own")
    engine = on_postgresql.make()
    named: list[int] = []

    @event.listens_for(engine, "before_cursor_execute")
    def look(conn: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        named.append(cursor.connection.info.backend_pid)

    def body(connection: Connection) -> None:
        connection.scalar(COUNT)
        assert held(connection) == 1, "it stays, so that what was said is true"
        connection.rollback()
        assert held(connection) == 0
        assert connection.scalar(BACKEND) == named[-1]

    on_postgresql.connected(body, engine)


def test_the_connection_of_a_cursor_is_the_virtual_one(on_sync: Arena) -> None:
    def body(connection: Connection) -> None:
        cursor: Any = connection.connection.cursor()
        cursor.execute("INSERT INTO item (id, name) VALUES (4, 'four')")
        cursor.connection.commit()
        assert held(connection) == 0
        cursor.connection.mark = 1
        assert connection.connection.mark == 1  # type: ignore[attr-defined]
        assert getattr(cursor.connection, "dsn", None) is None
        assert held(connection) == 0

    on_sync.connected(body)
    assert on_sync.names()[-1] == "four"


def test_asking_for_what_the_driver_does_not_have_costs_no_connection(arena: Arena) -> None:
    engine = arena.make()

    def body(connection: Connection) -> None:
        raw: Any = connection.connection
        for _ in range(2):
            assert getattr(raw, "get_dsn_parameters", None) is None
            assert not hasattr(raw, "no_such_thing")
            connection.scalar(COUNT)
            assert held(connection) == 0
        assert hasattr(raw, "adapters" if "psycopg" in arena.driver else "isolation_level")
        assert held(connection) == 1

    for _ in range(2):
        arena.connected(body, engine)
        arena.run(engine.dispose)


def test_what_a_listener_has_set_on_a_connection_is_found(on_postgresql: Arena) -> None:
    if on_postgresql.is_async:
        pytest.skip("SQLAlchemy's adapters take no attributes")
    engine = on_postgresql.make()
    on_postgresql.connected(lambda connection: connection.scalar(COUNT), engine)

    @event.listens_for(engine, "checkout")
    def mark(dbapi: Any, record: Any, proxy: Any) -> None:
        dbapi.mark = "x"

    def body(connection: Connection) -> None:
        connection.scalar(COUNT)
        assert connection.connection.mark == "x"  # type: ignore[attr-defined]

    on_postgresql.connected(body, engine)


def test_what_is_set_on_a_raw_connection_stays_there(arena: Arena) -> None:
    engine = arena.make()

    def body() -> None:
        raw: Any = engine.raw_connection()
        raw.autocommit, raw.row_factory = True, len
        assert (raw.autocommit, raw.row_factory) == (True, len)
        cursor = raw.cursor()
        cursor.execute("INSERT INTO item (id, name) VALUES (4, 'four')")
        cursor.close()
        raw.rollback()
        raw.close()

    arena.run(body)
    assert arena.names() == ["one", "two", "three"], "as in SQLAlchemy, the driver has not heard of it"


@pytest.mark.parametrize("end", [Connection.commit, Connection.rollback, Connection.close])
def test_a_stream_that_ended_with_its_transaction_says_so(on_postgresql: Arena, end: Any) -> None:
    engine = on_postgresql.make()

    def inside() -> None:
        connection = engine.connect()
        streaming = connection.execution_options(stream_results=True, max_row_buffer=10)
        rows = streaming.execute(text("SELECT generate_series(1, 1000)"))
        assert rows.fetchone() == (1,)
        end(connection)
        assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]
        with pytest.raises(ProgrammingError, match="this stream ended with its transaction"):
            rows.fetchall()
        rows.close()
        connection.close()

    on_postgresql.run(inside)


def test_rows_that_were_fetched_ahead_are_there_after_a_commit(on_postgresql: Arena) -> None:
    if on_postgresql.driver != "asyncpg":
        pytest.skip("SQLAlchemy's adapter of asyncpg fetches fifty rows at once")
    engine = on_postgresql.make()

    def body(connection: Connection) -> None:
        rows = connection.execution_options(stream_results=True).execute(text("SELECT generate_series(1, 200)"))
        rows.fetchone()
        connection.commit()
        assert [rows.fetchone() for _ in range(14)] == [(number,) for number in range(2, 16)]
        with pytest.raises(ProgrammingError, match="this stream ended"):
            rows.fetchall()

    on_postgresql.connected(body, engine)


def test_a_stream_of_sqlite_goes_on_after_a_commit(on_sqlite: Arena) -> None:
    if not on_sqlite.is_async:
        pytest.skip("sqlite3 has no other cursors")

    def body(connection: Connection) -> None:
        streaming = connection.execution_options(stream_results=True, max_row_buffer=1)
        rows = streaming.execute(text("SELECT id FROM item ORDER BY id"))
        assert rows.fetchone() == (1,)
        connection.commit()
        assert held(connection) == 1
        assert rows.fetchall() == [(2,), (3,)]
        assert held(connection) == 0
        rows = streaming.execute(text("SELECT id FROM item ORDER BY id"))
        connection.execute(insert(Item).values(id=4, name="four"))
        rows.close()
        assert held(connection) == 1, "the transaction goes on"
        connection.commit()
        assert held(connection) == 0

    on_sqlite.connected(body)


def test_what_a_connect_listener_has_noted_is_in_the_connections_info(arena: Arena) -> None:
    engine = arena.make()
    event.listen(engine, "connect", lambda dbapi, record: record.info.update(region="north"))

    def body(connection: Connection) -> None:
        connection.scalar(COUNT)
        assert connection.info == {"region": "north"}
        connection.info["region"] = "south"
        connection.scalar(COUNT)
        assert connection.info == {"region": "south"}

    arena.connected(body, engine)


def test_the_info_follows_the_connection(on_postgresql: Arena) -> None:
    engine = on_postgresql.make(pool_size=2)
    numbers = itertools.count()
    event.listen(engine, "connect", lambda dbapi, record: record.info.update(number=next(numbers)))

    def inside() -> None:
        with engine.connect() as one, engine.connect() as two, engine.connect() as three:
            one.info["mine"] = "kept"
            one.scalar(COUNT)
            assert one.info == {"mine": "kept", "number": 0}
            two.execute(insert(Item).values(id=4, name="four"))
            three.execute(insert(Item).values(id=5, name="five"))  # has revoked what was left with one
            two.rollback()
            one.scalar(COUNT)
            assert one.info == {"mine": "kept", "number": 1}

    on_postgresql.run(inside)


@pytest.mark.parametrize("moment", ["before the first statement", "between two"])
def test_a_soft_invalidation_is_not_forgotten_where_nothing_is_held(arena: Arena, moment: str) -> None:
    engine = arena.make(pool_size=1)
    seen: list[str] = []
    arena.connected(lambda connection: connection.scalar(COUNT), engine)
    event.listen(engine, "connect", lambda *_: seen.append("connect"))
    event.listen(engine, "soft_invalidate", lambda *_: seen.append("soft_invalidate"))

    def body(connection: Connection) -> None:
        if moment == "between two":
            connection.scalar(COUNT)
        connection.connection.invalidate(soft=True)
        connection.scalar(COUNT)
        assert held(connection) == 0
        assert seen == ["soft_invalidate"]

    arena.connected(body, engine)
    arena.connected(lambda connection: connection.scalar(COUNT), engine)
    assert seen == ["soft_invalidate", "connect"]


def test_a_cursor_answers_from_memory_after_a_read(on_postgresql: Arena) -> None:
    if on_postgresql.is_async:
        pytest.skip("psycopg's own")

    def body(connection: Connection) -> None:
        cursor: Any = connection.connection.cursor()
        cursor.execute("SELECT id FROM item ORDER BY id")
        assert cursor.fetchall() == [(1,), (2,), (3,)]
        cursor.scroll(1, "absolute")
        assert cursor.fetchone() == (2,)
        assert cursor.nextset() is None
        assert cursor.closed is False
        cursor.close()
        assert cursor.closed is True
        assert held(connection) == 0

    on_postgresql.connected(body)
