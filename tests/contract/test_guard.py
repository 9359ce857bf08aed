"""The belt: the server itself refuses what a proved read would write, and nobody else notices."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import URL, Connection, Engine, create_engine, event, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session
from sqlalchemy.util import await_only

from headgate import LeasePool
from headgate.config import LeaseOptions

from .conftest import Arena

SNEAKY = """
CREATE OR REPLACE FUNCTION sneak() RETURNS integer LANGUAGE sql VOLATILE AS
  $$ INSERT INTO item (id, name) VALUES (100, 'sneaked') RETURNING id $$;
CREATE OR REPLACE VIEW innocent AS SELECT sneak() AS id;
"""
INSERT = text("INSERT INTO item (id, name) VALUES (4, 'four')")
READ_ONLY = "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"


@pytest.fixture
def sneaky(on_postgresql: Arena) -> Arena:
    """A view whose SELECT writes."""
    with on_postgresql.observer.begin() as connection:
        connection.exec_driver_sql("DROP VIEW IF EXISTS innocent")
        connection.exec_driver_sql(SNEAKY)
    return on_postgresql


def lease_of(connection: Connection) -> Any:
    virtual: Any = connection.connection
    return virtual._lease


def write(connection: Connection) -> None:
    connection.execute(INSERT)
    connection.commit()


def find_it_read_only(connection: Connection) -> None:
    with pytest.raises(DBAPIError, match="read-only transaction"):
        connection.execute(INSERT)


def read_guarded(connection: Connection) -> None:
    connection.execute(text("SELECT count(*) FROM item"))
    assert lease_of(connection).guarded


def read_unguarded(connection: Connection) -> None:
    connection.execute(text("SELECT count(*) FROM item"))
    assert not lease_of(connection).guarded


def asked_for(driver: str, value: str) -> dict[str, Any]:
    """Arguments with which an application sets the default as it connects."""
    if driver == "asyncpg":
        return {"server_settings": {"default_transaction_read_only": value}}
    return {"options": f"-c default_transaction_read_only={value}"}


def set_through_the_driver(dbapi: Any, statement: str) -> None:
    cursor = dbapi.cursor()
    cursor.execute(statement)
    cursor.close()
    dbapi.commit()


def set_at_connect(engine: Engine, statement: str) -> None:
    """As an application's own listener does."""
    event.listen(engine, "connect", lambda dbapi, _: set_through_the_driver(dbapi, statement))


def test_a_read_that_writes_is_run_again_in_a_transaction(sneaky: Arena) -> None:
    def body(session: Session) -> None:
        assert session.scalar(text("SELECT id FROM innocent")) == 100
        assert sneaky.names() == ["one", "two", "three"], "it has written inside of the transaction"
        session.rollback()
        assert session.scalar(text("SELECT count(*) FROM item")) == 3

    sneaky.play(body)


def test_a_proof_that_was_wrong_once_is_forgotten(sneaky: Arena) -> None:
    engine = sneaky.make()
    refused: list[object] = []

    def body(session: Session) -> None:
        for _ in range(3):
            assert session.scalar(text("SELECT id FROM innocent")) == 100
            session.rollback()

    pool: Any = engine.pool
    forget = pool.lender.proof.forget

    class Watched:
        def __getattr__(self, name: str) -> Any:
            return getattr(proof, name)

        def forget(self, sql: str) -> None:
            refused.append(sql)
            forget(sql)

    proof, pool.lender.proof = pool.lender.proof, Watched()
    sneaky.play(body, engine)
    assert refused == ["SELECT id FROM innocent"]


def test_without_the_guard_the_write_is_not_seen(sneaky: Arena) -> None:
    engine = sneaky.make(lease_options=LeaseOptions(guard=False))

    def body(session: Session) -> None:
        session.scalar(text("SELECT id FROM innocent"))
        session.rollback()

    sneaky.play(body, engine)
    assert "sneaked" in sneaky.names(), "which is what the guard is for"


def test_transactions_write_as_ever(on_postgresql: Arena) -> None:
    def body(connection: Connection) -> None:
        read_guarded(connection)
        connection.execute(INSERT)
        connection.execute(text("CREATE TEMPORARY TABLE own AS SELECT 1 AS a"))
        with connection.begin_nested():
            connection.execute(text("UPDATE item SET name = 'FOUR' WHERE id = 4"))
        assert connection.scalar(text("SHOW transaction_isolation")) == "read committed"
        connection.commit()

    on_postgresql.connected(body)
    assert on_postgresql.names()[-1] == "FOUR"


def test_whoever_reaches_for_the_driver_may_write_in_autocommit(on_postgresql: Arena) -> None:
    engine = on_postgresql.make(pool_size=1)

    def body(connection: Connection) -> None:
        connection.execution_options(isolation_level="AUTOCOMMIT")
        connection.execute(INSERT)

    def after(connection: Connection) -> None:
        connection.execute(text("SELECT count(*) FROM item"))
        lease = lease_of(connection)
        assert lease.guarded, "the guard is up again for the next one"
        cursor = lease.dbapi.cursor()
        cursor.execute("SHOW default_transaction_read_only")
        assert cursor.fetchone()[0] == "on"
        cursor.close()
        lease.dbapi.rollback()

    on_postgresql.connected(body, engine)
    assert on_postgresql.names()[-1] == "four"
    on_postgresql.connected(after, engine)


def test_an_escape_in_mid_transaction_lowers_the_guard_when_that_has_ended(on_postgresql: Arena) -> None:
    def body(connection: Connection) -> None:
        connection.execute(INSERT)
        dbapi: Any = connection.connection.dbapi_connection
        connection.rollback()
        cursor = dbapi.cursor()
        cursor.execute("SHOW default_transaction_read_only")
        assert cursor.fetchone()[0] == "off"
        cursor.close()

    on_postgresql.connected(body)


def test_an_engine_in_autocommit_writes(on_postgresql: Arena) -> None:
    engine = on_postgresql.make(isolation_level="AUTOCOMMIT")

    def body(connection: Connection) -> None:
        connection.execute(INSERT)

    on_postgresql.connected(body, engine)
    assert on_postgresql.names()[-1] == "four"


def test_a_role_that_only_reads_by_default_goes_on_only_reading(on_postgresql: Arena) -> None:
    on_postgresql.other("DROP ROLE IF EXISTS clerk")
    on_postgresql.other("CREATE ROLE clerk LOGIN PASSWORD 'clerk' IN ROLE pg_read_all_data, pg_write_all_data")
    on_postgresql.other("ALTER ROLE clerk SET default_transaction_read_only = on")
    on_postgresql.url = on_postgresql.url.set(username="clerk", password="clerk")
    engine = on_postgresql.make()

    def body(connection: Connection) -> None:
        assert connection.scalar(text("SELECT count(*) FROM item")) == 3
        find_it_read_only(connection)

    try:
        on_postgresql.connected(body, engine)
    finally:
        on_postgresql.run(engine.dispose)
        on_postgresql.other("DROP ROLE clerk")


def test_options_of_the_applications_own_keep_the_guard_off(
    on_postgresql: Arena, caplog: pytest.LogCaptureFixture
) -> None:
    engine = on_postgresql.make(connect_args=asked_for(on_postgresql.driver, "off"))

    def body(connection: Connection) -> None:
        read_unguarded(connection)
        connection.execute(INSERT)
        connection.rollback()

    with caplog.at_level(logging.INFO, "headgate.pool"):
        on_postgresql.connected(body, engine)
        on_postgresql.connected(body, engine)
    assert sum("guard" in record.getMessage() for record in caplog.records) == 1


def test_a_pooler_that_refuses_the_parameter_gets_connections_without_it(
    on_postgresql: Arena, caplog: pytest.LogCaptureFixture
) -> None:
    engine = on_postgresql.make()
    attempts: list[bool] = []

    @event.listens_for(engine, "do_connect")
    def refuse(dialect: Any, record: Any, arguments: Any, options: dict[str, Any]) -> None:
        asked = "read_only" in f"{options.get('options')}{options.get('server_settings')}".lower()
        attempts.append(asked)
        if asked:
            raise RuntimeError("unsupported startup parameter: default_transaction_read_only")

    with caplog.at_level(logging.INFO, "headgate.pool"):
        on_postgresql.connected(read_unguarded, engine)
    assert attempts == [True, False]
    assert "guard" in caplog.text


def test_a_guarded_connection_tells_a_standby_apart(postgres_url: URL) -> None:
    """``target_session_attrs`` would take a guarded connection for a standby's, so it turns the guard off."""
    url = postgres_url.set(drivername="postgresql+psycopg")
    engine = create_engine(url, poolclass=LeasePool, connect_args={"target_session_attrs": "read-write"})
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))
        assert not lease_of(connection).guarded
    engine.dispose()


def test_enums_of_the_applications_own_are_known(on_postgresql: Arena) -> None:
    on_postgresql.other("DROP TYPE IF EXISTS mood")
    on_postgresql.other("CREATE TYPE mood AS ENUM ('sad', 'happy')")
    engine = on_postgresql.make()

    def body(connection: Connection) -> None:
        assert connection.scalar(text("SELECT CAST('happy' AS mood)")) == "happy"
        virtual: Any = connection.connection
        assert "reading" in repr(virtual)

    on_postgresql.connected(body, engine)


def test_a_domain_is_not_an_enum(on_postgresql: Arena) -> None:
    on_postgresql.other("DROP DOMAIN IF EXISTS checked")
    on_postgresql.other("CREATE DOMAIN checked AS text CHECK (value <> '')")
    engine = on_postgresql.make()

    def body(connection: Connection) -> None:
        connection.execute(text("SELECT CAST('happy' AS checked)"))
        virtual: Any = connection.connection
        assert "tainted" in repr(virtual)

    on_postgresql.connected(body, engine)


def test_an_engine_that_the_application_made_read_only_stays_so(on_postgresql: Arena) -> None:
    engine = on_postgresql.make(connect_args=asked_for(on_postgresql.driver, "on"))

    def body(connection: Connection) -> None:
        with pytest.raises(DBAPIError, match="read-only transaction"):
            connection.execute(text("CREATE TABLE never (a integer)"))

    # The arena's listener sets application_name in a transaction, which a read-only one allows.
    on_postgresql.connected(body, engine)


@pytest.mark.parametrize(
    "statement",
    ["SET default_transaction_read_only = on", "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"],
)
def test_what_a_connect_listener_or_the_application_sets_counts(on_postgresql: Arena, statement: str) -> None:
    engine = on_postgresql.make()
    set_at_connect(engine, statement)
    on_postgresql.connected(find_it_read_only, engine)

    def later(connection: Connection) -> None:
        connection.execute(text(statement))
        connection.commit()
        find_it_read_only(connection)

    on_postgresql.connected(later, on_postgresql.make())


def test_the_environments_options_are_kept(on_postgresql: Arena, monkeypatch: pytest.MonkeyPatch) -> None:
    if on_postgresql.driver == "asyncpg":
        pytest.skip("asyncpg does not read PGOPTIONS")
    monkeypatch.setenv("PGOPTIONS", "-c statement_timeout=4242")

    def body(connection: Connection) -> None:
        assert connection.scalar(text("SHOW statement_timeout")) == "4242ms"
        assert lease_of(connection).guarded

    on_postgresql.connected(body, on_postgresql.make())


def test_the_environments_search_for_a_writer_keeps_the_guard_off(
    on_postgresql: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGTARGETSESSIONATTRS", "read-write")
    on_postgresql.connected(read_unguarded, on_postgresql.make())


@pytest.mark.parametrize("statement", ["RESET ALL", "DISCARD ALL"])
@pytest.mark.parametrize("is_whole_engine", [True, False])
def test_autocommit_goes_on_writing_after_a_reset(on_postgresql: Arena, statement: str, is_whole_engine: bool) -> None:
    if on_postgresql.driver == "asyncpg" and statement == "DISCARD ALL":
        pytest.skip("asyncpg goes on with statements it had prepared before")
    engine = on_postgresql.make(**({"isolation_level": "AUTOCOMMIT"} if is_whole_engine else {}))

    def body(connection: Connection) -> None:
        if not is_whole_engine:
            connection.execution_options(isolation_level="AUTOCOMMIT")
        connection.execute(text(statement))
        connection.execute(INSERT)

    on_postgresql.connected(body, engine)
    assert on_postgresql.names()[-1] == "four"


def test_a_commit_as_text_leaves_what_follows_writing(on_postgresql: Arena) -> None:
    def body(connection: Connection) -> None:
        connection.exec_driver_sql("COMMIT")
        connection.exec_driver_sql("INSERT INTO item (id, name) VALUES (4, 'four')")
        connection.commit()

    on_postgresql.connected(body)
    assert on_postgresql.names()[-1] == "four"


def test_an_escape_in_a_transaction_writes_in_autocommit_after_its_own_commit(on_postgresql: Arena) -> None:
    if on_postgresql.is_async:
        pytest.skip("the async adapters' autocommit is set through SQLAlchemy")

    def body(connection: Connection) -> None:
        connection.execute(INSERT)
        dbapi: Any = connection.connection.dbapi_connection
        dbapi.commit()
        dbapi.autocommit = True
        dbapi.execute("INSERT INTO item (id, name) VALUES (5, 'five')")
        dbapi.autocommit = False

    on_postgresql.connected(body)
    assert on_postgresql.names()[-2:] == ["four", "five"]


@pytest.mark.parametrize(
    ("end", "statements"),
    [
        ("commit", ["SHOW default_transaction_read_only"]),
        ("commit", ["SET default_transaction_read_only = off"]),
        ("close", ["SET default_transaction_read_only = on"]),
        ("rollback", ["SET default_transaction_read_only = on"]),
        ("commit", ["SET LOCAL default_transaction_read_only = on"]),
        ("commit", ["SET default_transaction_read_only = on", "RESET default_transaction_read_only"]),
        ("commit", ["SET default_transaction_read_only = on", "SET default_transaction_read_only TO DEFAULT"]),
        ("commit", ["SET default_transaction_read_only = on", "/* now */ RESET ALL"]),
        ("commit", ["SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL READ COMMITTED"]),
        ("commit", ["CREATE TEMPORARY TABLE product_characteristics (id integer)"]),
    ],
)
def test_what_only_touches_the_default_leaves_connections_writing(
    on_postgresql: Arena, statements: list[str], end: str
) -> None:
    engine = on_postgresql.make(pool_size=1)

    def touch(connection: Connection) -> None:
        for statement in statements:
            connection.exec_driver_sql(statement)
        getattr(connection, end)()

    def later(connection: Connection) -> None:
        read_guarded(connection)
        write(connection)

    on_postgresql.connected(touch, engine)
    on_postgresql.connected(later, engine)
    assert on_postgresql.names()[-1] == "four"


def set_search_path(connection: Connection) -> None:
    connection.exec_driver_sql("SET search_path = public")


def commit_a_set(connection: Connection) -> None:
    connection.exec_driver_sql("SET search_path = public")
    connection.commit()


def reach_for_the_driver(connection: Connection) -> None:
    assert connection.connection.dbapi_connection


def set_before_reaching_for_the_driver(connection: Connection) -> None:
    connection.exec_driver_sql(READ_ONLY)
    assert connection.connection.dbapi_connection


@pytest.mark.parametrize(
    "before", [set_search_path, commit_a_set, reach_for_the_driver, set_before_reaching_for_the_driver]
)
@pytest.mark.parametrize("is_bound", [False, True])
def test_a_read_only_default_counts_whatever_was_before_it(on_postgresql: Arena, before: Any, is_bound: bool) -> None:
    engine = on_postgresql.make(pool_size=1)

    def body(connection: Connection) -> None:
        before(connection)
        if is_bound:
            set_it = text("SELECT set_config(:name, :value, false)")
            connection.execute(set_it, {"name": "Default_Transaction_Read_Only", "value": "on"})
        else:
            connection.exec_driver_sql(READ_ONLY)
        connection.commit()
        find_it_read_only(connection)

    def later(connection: Connection) -> None:
        find_it_read_only(connection)
        connection.rollback()
        connection.exec_driver_sql("RESET default_transaction_read_only")
        connection.commit()
        write(connection)

    on_postgresql.connected(body, engine)
    on_postgresql.connected(later, engine)
    assert on_postgresql.names()[-1] == "four"


def test_a_read_only_default_set_through_the_driver_counts(on_postgresql: Arena) -> None:
    engine = on_postgresql.make(pool_size=1)

    def body(connection: Connection) -> None:
        set_through_the_driver(connection.connection.dbapi_connection, READ_ONLY)
        find_it_read_only(connection)

    on_postgresql.connected(body, engine)
    on_postgresql.connected(find_it_read_only, engine)


@pytest.mark.parametrize(
    "question",
    [
        "SELECT current_setting('transaction_read_only')",
        "SELECT current_setting(:name)",
        "SELECT setting FROM pg_settings WHERE name = :name",
    ],
)
def test_a_primary_does_not_look_like_a_standby(on_postgresql: Arena, question: str) -> None:
    def body(connection: Connection) -> None:
        values = {"name": "transaction_read_only"} if ":name" in question else {}
        assert connection.scalar(text(question), values) == "off"
        connection.commit()
        assert "reading" in repr(connection.connection), "it keeps nothing beyond its transaction"

    on_postgresql.connected(body)


def test_a_setting_that_is_no_transactions_is_read(on_postgresql: Arena) -> None:
    def body(connection: Connection) -> None:
        connection.scalar(text("SELECT current_setting('search_path')"))
        assert "warm" in repr(connection.connection)

    on_postgresql.connected(body)


def test_the_driver_left_without_a_mode_writes_for_the_next_one(on_postgresql: Arena) -> None:
    if on_postgresql.driver != "psycopg":
        pytest.skip("only psycopg's sync connection has an attribute for it")
    engine = on_postgresql.make(pool_size=1)

    def escape(connection: Connection) -> None:
        dbapi: Any = connection.connection.dbapi_connection
        dbapi.read_only = None

    on_postgresql.connected(escape, engine)
    on_postgresql.connected(write, engine)
    assert on_postgresql.names()[-1] == "four"


def test_statements_in_autocommit_write_after_an_escapees_own_rollback(on_postgresql: Arena) -> None:
    if on_postgresql.is_async:
        pytest.skip("the async adapters' autocommit is set through SQLAlchemy")

    def body(connection: Connection) -> None:
        connection.execute(INSERT)
        dbapi: Any = connection.connection.dbapi_connection
        dbapi.rollback()
        dbapi.autocommit = True
        connection.execute(INSERT)
        dbapi.autocommit = False

    on_postgresql.connected(body)
    assert on_postgresql.names()[-1] == "four"


def test_a_connection_class_of_a_later_listener_writes(on_postgresql: Arena) -> None:
    if on_postgresql.driver != "asyncpg":
        pytest.skip("only asyncpg has classes of connections")
    from asyncpg import Connection as AsyncpgConnection  # type: ignore[import-untyped]

    engine = on_postgresql.make()

    @event.listens_for(engine, "do_connect")
    def choose_class(dialect: Any, record: Any, arguments: Any, options: dict[str, Any]) -> None:
        options["connection_class"] = type("Own", (AsyncpgConnection,), {})

    def body(connection: Connection) -> None:
        connection.execute(INSERT)
        assert not lease_of(connection).guarded
        connection.commit()

    on_postgresql.connected(body, engine)
    assert on_postgresql.names()[-1] == "four"


@pytest.mark.parametrize("is_standby", [False, True])
def test_a_server_that_takes_the_parameter_and_is_not_guarded_writes(
    on_postgresql: Arena, is_standby: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those before 14, which do not report it, and a standby that is promoted later."""
    engine = on_postgresql.make()
    pool: Any = engine.pool
    driver = type(pool.driver)
    learn = driver.learn

    def learn_otherwise(driver: Any, dbapi: Any) -> Any:
        facts = learn(driver, dbapi)
        return facts._replace(default=facts.default._replace(is_standby=is_standby))

    monkeypatch.setattr(driver, "raise_guard", lambda driver, dbapi: False)
    monkeypatch.setattr(driver, "learn", learn_otherwise)

    on_postgresql.connected(write, engine)
    assert on_postgresql.names()[-1] == "four"


@pytest.fixture
def clerk(on_postgresql: Arena) -> Iterator[Arena]:
    """The arena for a role that may read and write, but is nobody."""
    on_postgresql.other("DROP ROLE IF EXISTS clerk")
    on_postgresql.other("CREATE ROLE clerk LOGIN PASSWORD 'clerk'")
    on_postgresql.other("GRANT ALL ON item TO clerk")
    on_postgresql.url = on_postgresql.url.set(username="clerk", password="clerk")
    yield on_postgresql
    on_postgresql.other("DROP OWNED BY clerk")
    on_postgresql.other("DROP ROLE clerk")


@pytest.mark.parametrize("catalog", ["pg_db_role_setting", "pg_settings"])
def test_catalogs_that_may_not_be_read_turn_the_guard_off(
    clerk: Arena, catalog: str, caplog: pytest.LogCaptureFixture
) -> None:
    clerk.other(f"REVOKE ALL ON pg_catalog.{catalog} FROM PUBLIC")
    engine = clerk.make()

    def body(connection: Connection) -> None:
        connection.execute(text("SELECT count(*) FROM item"))
        assert "warm" in repr(connection.connection)
        assert not lease_of(connection).guarded
        write(connection)

    try:
        with caplog.at_level(logging.INFO, "headgate.pool"):
            clerk.connected(body, engine)
    finally:
        clerk.run(engine.dispose)
        clerk.other(f"GRANT SELECT ON pg_catalog.{catalog} TO PUBLIC")
    assert clerk.names()[-1] == "four"
    assert "catalogs that may not be read" in caplog.text


def ask_for_isolation(connection: Connection) -> None:
    connection.get_isolation_level()
    connection.rollback()


def ask_for_autocommit(connection: Connection) -> None:
    connection.execution_options(isolation_level="AUTOCOMMIT")


def ask_for_serializable(connection: Connection) -> None:
    connection.execution_options(isolation_level="SERIALIZABLE")


@pytest.mark.parametrize("escape", [reach_for_the_driver, ask_for_isolation, ask_for_autocommit, ask_for_serializable])
@pytest.mark.parametrize("by", ["role", "listener"])
def test_no_escape_makes_a_reader_write(clerk: Arena, escape: Any, by: str) -> None:
    engine = clerk.make()
    if by == "role":
        clerk.other("ALTER ROLE clerk SET default_transaction_read_only = on")
    else:
        set_at_connect(engine, READ_ONLY)

    def body(connection: Connection) -> None:
        escape(connection)
        find_it_read_only(connection)

    try:
        clerk.connected(body, engine)
        clerk.connected(body, engine)
    finally:
        clerk.run(engine.dispose)
    assert len(clerk.names()) == 3


def test_a_listener_that_allows_writes_leaves_the_guard_up(sneaky: Arena) -> None:
    engine = sneaky.make()
    set_at_connect(engine, "SET default_transaction_read_only = off")

    def body(connection: Connection) -> None:
        assert connection.scalar(text("SELECT id FROM innocent")) == 100
        connection.rollback()
        write(connection)

    sneaky.connected(body, engine)
    assert sneaky.names() == ["one", "two", "three", "four"]


@pytest.mark.parametrize(
    "statement",
    [
        "/* app=x */ RESET ALL",
        "-- all of it\nRESET ALL",
        "RESET default_transaction_read_only",
        "SET default_transaction_read_only TO DEFAULT",
        "SELECT set_config('default_transaction_read_only', null, false)",
    ],
)
def test_autocommit_goes_on_writing_however_it_is_reset(on_postgresql: Arena, statement: str) -> None:
    def body(connection: Connection) -> None:
        connection.execution_options(isolation_level="AUTOCOMMIT")
        connection.execute(text(statement))
        connection.execute(INSERT)

    on_postgresql.connected(body)
    assert on_postgresql.names()[-1] == "four"


def test_asyncpgs_own_reset_leaves_the_driver_writing(on_postgresql: Arena) -> None:
    if on_postgresql.driver != "asyncpg":
        pytest.skip("the others have none")
    engine = on_postgresql.make(pool_size=1)

    def body(connection: Connection) -> None:
        driver: Any = connection.connection.driver_connection
        await_only(driver.reset())
        await_only(driver.execute("INSERT INTO item (id, name) VALUES (4, 'four')"))

    on_postgresql.connected(body, engine)
    on_postgresql.connected(read_guarded, engine)
    assert on_postgresql.names()[-1] == "four"


def take_the_guard_away(options: dict[str, Any]) -> bool:
    """What a pooler does to the parameter; True if it was there."""
    was_there = "read_only" in f"{options.get('options')}{options.get('server_settings')}".lower()
    options.pop("options", None)
    options.pop("server_settings", None)
    return was_there


def test_a_pooler_that_sets_the_parameter_later_is_asked_without_it(on_postgresql: Arena) -> None:
    engine = on_postgresql.make()
    asked: list[bool] = []

    @event.listens_for(engine, "do_connect")
    def pool(dialect: Any, record: Any, arguments: Any, options: dict[str, Any]) -> Any:
        asked.append(take_the_guard_away(options))
        dbapi = dialect.connect(*arguments, **options)
        if asked[-1]:
            set_through_the_driver(dbapi, "SET default_transaction_read_only = on")
        return dbapi

    def body(connection: Connection) -> None:
        connection.execute(INSERT)
        assert not lease_of(connection).guarded
        connection.commit()

    on_postgresql.connected(body, engine)
    assert on_postgresql.names()[-1] == "four"
    assert asked == [True, False]


def test_each_of_several_connects_that_are_refused_is_tried_without_the_parameter(on_postgresql: Arena) -> None:
    engine = on_postgresql.make()
    attempts: list[bool] = []

    @event.listens_for(engine, "do_connect")
    def refuse(dialect: Any, record: Any, arguments: Any, options: dict[str, Any]) -> None:
        attempts.append(take_the_guard_away(options))
        if not attempts[-1]:
            return
        if len(attempts) == 1:
            with engine.connect() as meanwhile:
                meanwhile.execute(text("SELECT 1"))
        raise RuntimeError("unsupported startup parameter: default_transaction_read_only")

    def body(connection: Connection) -> None:
        connection.execute(text("SELECT count(*) FROM item"))

    on_postgresql.connected(body, engine)
    assert attempts == [True, True, False, False]
