"""A deadline ends what runs, on every driver: the statement is cancelled, its connection and its session go on."""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from headgate import Overloaded, cancelling, lane
from headgate.admission import Admission, current_admission
from headgate.drivers import asyncpg, psycopg
from headgate.lab.postgres import EmbeddedPostgres

from .conftest import Arena, Item

FOR_EVER = {
    True: "SELECT count(*) FROM generate_series(1, 100000000000) AS number",
    False: "WITH RECURSIVE number(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < 10000000000) "
    "SELECT count(*) FROM number",
}
"""A read, on PostgreSQL and on SQLite."""

SLOW_COMMIT = (
    "CREATE OR REPLACE FUNCTION nap() RETURNS trigger LANGUAGE plpgsql "
    "AS 'BEGIN PERFORM pg_sleep(0.4); RETURN NULL; END'",
    "CREATE CONSTRAINT TRIGGER slowly AFTER INSERT ON item DEFERRABLE INITIALLY DEFERRED "
    "FOR EACH ROW EXECUTE FUNCTION nap()",
)


@contextmanager
def ended_after(seconds: float) -> Iterator[float]:
    """A block that is ended after that time, and must be left soon after; gives when it began."""
    began_s = time.monotonic()
    with pytest.raises(Overloaded) as caught, lane(deadline=seconds):
        yield began_s
    assert caught.value.reason == "deadline"
    assert not caught.value.nothing_executed
    assert seconds * 0.9 <= time.monotonic() - began_s < seconds + 2


@contextmanager
def given_up() -> Iterator[Admission]:
    """A block whose request can be ended by hand."""
    admission = Admission(time.monotonic_ns())
    token = current_admission.set(admission)
    try:
        yield admission
    finally:
        current_admission.reset(token)


def end_within_savepoint(session: Session, admission: Admission) -> None:
    with session.begin_nested():
        session.execute(text("UPDATE item SET name = 'changed' WHERE id = 2"))
        admission.end("deadline")
        session.execute(text("SELECT 1"))


def pid_of(session: Session) -> Any:
    return session.scalar(text("SELECT pg_backend_pid()"))


def test_a_read_is_cancelled_and_its_session_goes_on(arena: Arena) -> None:
    def body(session: Session) -> None:
        session.scalar(text("SELECT 1"))
        with ended_after(0.2):
            session.scalar(text(FOR_EVER[arena.is_postgresql]))
        assert session.scalar(text("SELECT count(*) FROM item")) == 3
        session.add(Item(id=4, name="four"))
        session.commit()

    arena.play(body)
    assert len(arena.names()) == 4


def test_a_cancelled_read_keeps_its_physical_connection(on_postgresql: Arena) -> None:
    engine = on_postgresql.make(pool_size=1)

    def body(session: Session) -> None:
        pid = pid_of(session)
        session.rollback()
        with ended_after(0.1):
            session.scalar(text(FOR_EVER[True]))
        session.rollback()
        assert pid_of(session) == pid

    on_postgresql.play(body, engine)


def test_a_write_is_cancelled_and_nothing_of_it_stays(arena: Arena) -> None:
    def body(session: Session) -> None:
        with ended_after(0.2):
            session.execute(text("INSERT INTO item (id, name) VALUES (4, 'four')"))
            name = f"CAST(({FOR_EVER[arena.is_postgresql]}) AS varchar(20))"
            session.execute(text(f"UPDATE item SET name = {name} WHERE id = 1"))
        session.rollback()
        assert session.scalar(text("SELECT count(*) FROM item")) == 3
        session.add(Item(id=5, name="five"))
        session.commit()

    arena.play(body)
    assert arena.names() == ["one", "two", "three", "five"]


def test_what_is_fetched_is_cancelled(arena: Arena) -> None:
    rows = FOR_EVER[arena.is_postgresql].replace("SELECT count(*) FROM number", "SELECT n FROM number")
    rows = rows.replace("count(*)", "number")

    def body(connection: Connection) -> None:
        with ended_after(0.2):
            for _ in connection.execution_options(yield_per=100).execute(text(rows)):
                pass
        connection.rollback()
        assert connection.scalar(text("SELECT count(*) FROM item")) == 3

    arena.connected(body)


def test_many_statements_at_once_are_cancelled(arena: Arena) -> None:
    name = f"CAST(({FOR_EVER[arena.is_postgresql]}) AS varchar(20))"

    def body(connection: Connection) -> None:
        with ended_after(0.2):
            connection.execute(text(f"UPDATE item SET name = {name} WHERE id = :id"), [{"id": 1}, {"id": 2}])
        connection.rollback()
        assert connection.scalar(text("SELECT count(*) FROM item WHERE name = 'one'")) == 1

    arena.connected(body)


def test_after_the_end_nothing_is_sent(arena: Arena) -> None:
    def body(session: Session) -> None:
        with given_up() as admission:
            session.execute(text("UPDATE item SET name = 'changed' WHERE id = 1"))
            admission.end("deadline")
            for refused in (lambda: session.execute(text("SELECT 1")), session.commit):
                with pytest.raises(Overloaded, match="deadline has passed") as caught:
                    refused()
                assert caught.value.reason == "deadline"
                assert not caught.value.nothing_executed
            session.rollback()
            with pytest.raises(Overloaded, match="deadline"):
                session.execute(text("SELECT 1"))
        assert session.scalar(text("SELECT name FROM item WHERE id = 1")) == "one"

    arena.play(body)


def test_after_the_end_no_text_commits_either(arena: Arena) -> None:
    def body(connection: Connection) -> None:
        with given_up() as admission:
            connection.execute(text("UPDATE item SET name = 'changed' WHERE id = 1"))
            admission.end("deadline")
            for statement in ("COMMIT", "/* app='x' */ commit", "END"):
                with pytest.raises(Overloaded, match="was not committed"):
                    connection.exec_driver_sql(statement)
            connection.rollback()
        assert connection.scalar(text("SELECT name FROM item WHERE id = 1")) == "one"

    arena.connected(body)


def test_what_was_never_begun_is_safe_to_retry(arena: Arena) -> None:
    engine = arena.make()

    def body(session: Session) -> None:
        with given_up() as admission:
            admission.end("gone")
            with pytest.raises(Overloaded) as caught:
                session.execute(text("SELECT 1"))
        assert (caught.value.reason, caught.value.nothing_executed) == ("gone", True)

    arena.play(lambda session: session.execute(text("SELECT 1")), engine)
    arena.play(body, engine)


def test_after_the_answer_nothing_ends_what_goes_on(arena: Arena) -> None:
    def body(session: Session) -> None:
        with given_up() as admission:
            session.execute(text("UPDATE item SET name = 'changed' WHERE id = 1"))
            admission.end("deadline")
            admission.answer()
            session.commit()

    arena.play(body)
    assert "changed" in arena.names()


def test_a_savepoint_can_be_left_after_the_end(arena: Arena) -> None:
    def body(session: Session) -> None:
        with given_up() as admission:
            session.execute(text("UPDATE item SET name = 'changed' WHERE id = 1"))
            with pytest.raises(Overloaded):
                end_within_savepoint(session, admission)
            session.rollback()
        assert session.scalar(text("SELECT count(*) FROM item WHERE name = 'changed'")) == 0

    arena.play(body)


@pytest.mark.parametrize("by_text", [False, True])
def test_a_commit_in_flight_is_never_cancelled(on_postgresql: Arena, by_text: bool) -> None:
    for statement in SLOW_COMMIT:
        on_postgresql.other(statement)

    def body(connection: Connection) -> None:
        with given_up() as admission:
            connection.execute(text("INSERT INTO item (id, name) VALUES (4, 'four')"))
            contextvars.Context().run(threading.Timer(0.15, admission.end, ("deadline",)).start)
            began_s = time.monotonic()
            if by_text:
                connection.execute(text("COMMIT"))
            else:
                connection.commit()
            assert time.monotonic() - began_s > 0.35
            assert admission.ended == "deadline"

    on_postgresql.connected(body)
    assert "four" in on_postgresql.names()


def test_a_frozen_server_loses_the_connection_and_is_told_later(
    on_postgresql: Arena, postgres: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cancelling, "CUT_AFTER_S", 0.3)
    monkeypatch.setattr(cancelling, "PAUSES_ALONE_S", (0.2,) * 20)
    for driver in (asyncpg, psycopg):
        monkeypatch.setattr(driver, "CANCEL_TIMEOUT_S", 0.2)
    engine = on_postgresql.make(pool_size=1)
    freezer = ExitStack()

    def body(session: Session) -> None:
        session.scalar(text("SELECT 1"))
        session.rollback()
        threading.Timer(0.2, freezer.enter_context, (postgres.frozen(),)).start()
        with lane(deadline=0.5), pytest.raises(DBAPIError) as caught:
            session.scalar(text(FOR_EVER[True]))
        assert caught.value.connection_invalidated

    with freezer:
        on_postgresql.play(body, engine)
    assert becomes_idle(on_postgresql)
    on_postgresql.play(lambda session: session.scalar(text("SELECT 1")), engine)


def becomes_idle(arena: Arena) -> bool:
    until_s = time.monotonic() + 5
    while arena.states().get("active"):
        if time.monotonic() > until_s:
            return False
        time.sleep(0.02)
    return True
