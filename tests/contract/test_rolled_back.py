"""``Database.rolled_back()``: one suite over sync and async, over every driver."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, TypeVar

import pytest
from sqlalchemy import URL, Connection, Engine, create_engine, event, func, insert, select, text
from sqlalchemy.exc import IntegrityError, InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.orm import Session

from headgate import ConfigError, Database, LeaseError

from .conftest import Arena, Item

ResultT = TypeVar("ResultT")
THREE = ["one", "two", "three"]


class Service:
    """A ``Database`` on an arena, with the sessions of the arena's kind."""

    def __init__(self, arena: Arena, source: Engine | AsyncEngine | None = None, **options: Any) -> None:
        self.arena = arena
        if arena.is_postgresql:
            arena.other("SELECT setval('item_id_seq', 3)")
        self.db = Database(source or plain(arena.url), **options)

    def play(self, body: Callable[[Session], ResultT], *, commit: bool = False) -> ResultT:
        """Run a body in a session of its own."""
        if not self.arena.is_async:
            with self.db.transaction() if commit else self.db.session() as session:
                return body(session)

        async def main() -> ResultT:
            async with self.db.async_transaction() if commit else self.db.async_session() as session:
                return await session.run_sync(body)

        return self.arena.runner.run(main())

    def play_together(self, body: Callable[[Session, Session], ResultT]) -> ResultT:
        """Run a body with two sessions."""
        if not self.arena.is_async:
            with self.db.session() as one, self.db.session() as other:
                return body(one, other)

        async def main() -> ResultT:
            async with self.db.async_session() as one, self.db.async_session() as other:
                return await one.run_sync(lambda session: body(session, other.sync_session))

        return self.arena.runner.run(main())

    def add(self, name: str) -> None:
        """Insert and commit a row."""
        self.play(lambda session: session.add(Item(name=name)), commit=True)

    def names(self) -> list[str]:
        """What a new session sees."""
        return self.play(names)

    def close(self) -> None:
        """Nothing may be leased any more."""
        statistics = self.db.gate.statistics()
        self.arena.runner.run(self.db.dispose_async())
        assert statistics.in_use == 0, "leases left behind"


def plain(url: URL) -> URL:
    return url.set(drivername=url.drivername.replace("psycopg_async", "psycopg"))


def names(session: Session) -> list[str]:
    return list(session.scalars(select(Item.name).order_by(Item.id)))


@pytest.fixture
def service(arena: Arena) -> Iterator[Service]:
    service = Service(arena, max_wait=0.2)
    yield service
    assert arena.names() == THREE, "something leaked out of the block"
    service.close()


def test_everything_is_seen_inside_and_nothing_outside(arena: Arena, service: Service) -> None:
    with service.db.rolled_back():
        service.add("four")
        assert service.names() == [*THREE, "four"]
        assert arena.names() == THREE
    assert service.names() == THREE


def test_a_block_is_one_lease(service: Service) -> None:
    with service.db.rolled_back():
        for number in range(5):
            service.add(str(number))
        assert service.db.gate.statistics().in_use == 1
    assert service.db.gate.statistics().in_use == 0


def test_async_with_serves_both_kinds_as_well(arena: Arena, service: Service) -> None:
    async def main() -> list[str]:
        async with service.db.rolled_back():
            if not arena.is_async:
                with service.db.transaction() as session:
                    session.add(Item(name="four"))
                with service.db.session() as session:
                    return names(session)
            async with service.db.async_transaction() as transaction:
                transaction.add(Item(name="four"))
            async with service.db.async_session() as reading:
                return await reading.run_sync(names)

    assert arena.runner.run(main()) == [*THREE, "four"]
    assert service.names() == THREE


def test_a_body_that_raises_is_undone_and_its_exception_goes_on(service: Service) -> None:
    def fail() -> None:
        with service.db.rolled_back():
            service.add("four")
            raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        fail()
    assert service.names() == THREE


def test_a_rollback_undoes_only_its_own_sessions_work(service: Service) -> None:
    def add_twice(session: Session) -> None:
        session.add(Item(name="kept"))
        session.commit()
        session.add(Item(name="dropped"))
        session.flush()
        session.rollback()

    with service.db.rolled_back():
        service.add("four")
        service.play(add_twice)
        assert service.names() == [*THREE, "four", "kept"]


def test_a_session_that_does_not_commit_leaves_nothing(service: Service) -> None:
    def add(session: Session) -> None:
        session.add(Item(name="four"))
        session.flush()

    with service.db.rolled_back():
        service.play(add)
        assert service.names() == THREE


def test_an_integrity_error_is_the_apps_to_handle(service: Service) -> None:
    def add_again(session: Session) -> None:
        session.add(Item(id=1, name="one again"))
        with pytest.raises(IntegrityError):
            session.flush()
        session.rollback()
        session.add(Item(name="five"))
        session.commit()

    with service.db.rolled_back():
        service.add("four")
        service.play(add_again)
        with pytest.raises(IntegrityError):
            service.play(lambda session: session.add(Item(id=1, name="again")), commit=True)
        assert service.names() == [*THREE, "four", "five"]


def test_a_failed_read_spoils_nothing(service: Service) -> None:
    def misspell(session: Session) -> list[str]:
        with pytest.raises(Exception, match="nam_"):
            session.execute(text("SELECT nam_ FROM item"))
        return names(session)

    with service.db.rolled_back():
        service.add("four")
        assert service.play(misspell) == [*THREE, "four"]


def test_a_session_may_have_savepoints_of_its_own(service: Service) -> None:
    def nest(session: Session) -> None:
        session.add(Item(name="four"))
        with pytest.raises(IntegrityError), session.begin_nested():
            session.execute(insert(Item).values(id=1, name="again"))
        with session.begin_nested():
            session.add(Item(name="five"))
        session.commit()

    with service.db.rolled_back():
        service.play(nest)
        assert service.names() == [*THREE, "four", "five"]


def test_a_reading_session_and_a_writing_one_do_not_disturb_each_other(service: Service) -> None:
    def body(reading: Session, writing: Session) -> list[str]:
        assert names(reading) == THREE
        writing.add(Item(name="four"))
        writing.commit()
        assert names(reading) == [*THREE, "four"]
        reading.rollback()
        return names(writing)

    with service.db.rolled_back():
        assert service.play_together(body) == [*THREE, "four"]


def test_a_second_writer_gets_an_error_that_names_the_first(service: Service) -> None:
    def body(one: Session, other: Session) -> None:
        one.add(Item(name="four"))
        one.flush()
        other.add(Item(name="five"))
        with pytest.raises(
            LeaseError, match=r"uncommitted changes(?s:.*)test_rolled_back.py:\d+(?s:.*)commit or close"
        ):
            other.flush()
        other.rollback()
        one.commit()
        other.add(Item(name="six"))
        other.commit()

    with service.db.rolled_back():
        service.play_together(body)
        assert service.names() == [*THREE, "four", "six"]


def test_a_session_that_failed_keeps_others_out_until_it_is_rolled_back(service: Service) -> None:
    def body(one: Session, other: Session) -> None:
        with pytest.raises(IntegrityError):
            one.execute(insert(Item).values(id=1, name="again"))
        if service.arena.is_postgresql:
            with pytest.raises(LeaseError, match="has failed and was not rolled back"):
                names(other)
        one.rollback()
        assert names(other) == THREE

    with service.db.rolled_back():
        service.play_together(body)


def test_a_forgotten_session_is_undone_when_the_next_one_writes(service: Service) -> None:
    async def forget_async() -> None:
        session = service.db.async_session()
        await session.execute(insert(Item).values(name="forgotten"))
        del session

    def forget() -> None:
        service.db.session().execute(insert(Item).values(name="forgotten"))

    with service.db.rolled_back():
        if service.arena.is_async:
            service.arena.runner.run(forget_async())
        else:
            forget()
        gc.collect()
        service.add("four")
        assert service.names() == [*THREE, "four"]


def test_a_session_left_open_says_so_after_the_block(service: Service) -> None:
    if service.arena.is_async:

        async def leave_open() -> None:
            async with service.db.async_session() as session:
                async with service.db.rolled_back():
                    await session.execute(insert(Item).values(name="four"))
                with pytest.raises(LeaseError, match="block that has ended"):
                    await session.commit()
                await session.rollback()
                assert await session.run_sync(names) == THREE

        service.arena.runner.run(leave_open())
        return
    with service.db.session() as session:
        with service.db.rolled_back():
            session.execute(insert(Item).values(name="four"))
        with pytest.raises(LeaseError, match="block that has ended"):
            session.commit()
        session.rollback()
        assert names(session) == THREE


def test_blocks_nest(service: Service) -> None:
    with service.db.rolled_back():
        service.add("seed")
        for _ in range(2):
            with service.db.rolled_back():
                service.add("inner")
                assert service.names() == [*THREE, "seed", "inner"]
            assert service.names() == [*THREE, "seed"]
    assert service.names() == THREE


def test_an_inner_block_may_be_the_first_to_connect(service: Service) -> None:
    with service.db.rolled_back():
        with service.db.rolled_back():
            service.add("inner")
        assert service.names() == THREE


def test_blocks_end_from_the_inside_out(service: Service) -> None:
    outer, inner = service.db.rolled_back(), service.db.rolled_back()
    with outer:
        inner.__enter__()
        with pytest.raises(LeaseError, match="before a block inside it"):
            outer.__exit__(None, None, None)
        inner.__exit__(None, None, None)
    with pytest.raises(LeaseError, match="ends twice"):
        outer.__exit__(None, None, None)


def test_core_connections_join_too(service: Service) -> None:
    db = service.db

    async def core_async() -> None:
        async with db.async_engine.begin() as connection:
            await connection.execute(insert(Item).values(name="core"))

    with db.rolled_back():
        if service.arena.is_async:
            service.arena.runner.run(core_async())
        else:
            with db.engine.begin() as connection:
                connection.execute(insert(Item).values(name="core"))
        assert service.names() == [*THREE, "core"]


def test_ddl_is_undone(service: Service) -> None:
    def create(session: Session) -> None:
        session.execute(text("CREATE TABLE other (n int)"))
        session.execute(text("INSERT INTO other VALUES (1)"))

    with service.db.rolled_back():
        service.play(create, commit=True)
        assert service.play(lambda session: session.scalar(text("SELECT n FROM other"))) == 1
    with pytest.raises(Exception, match="other"):
        service.play(lambda session: session.scalar(text("SELECT n FROM other")))


def test_dispose_inside_does_not_end_the_block(service: Service) -> None:
    with service.db.rolled_back():
        service.add("four")
        service.arena.runner.run(service.db.dispose_async())
        assert service.names() == [*THREE, "four"]
        service.arena.runner.run(service.db.check())


def test_a_transaction_in_plain_text_stays_inside(service: Service) -> None:
    def body(session: Session) -> None:
        session.execute(text("BEGIN"))
        session.execute(insert(Item).values(name="four"))
        session.execute(text("COMMIT"))
        session.execute(insert(Item).values(name="five"))
        session.execute(text("ROLLBACK"))
        assert names(session) == [*THREE, "four"]

    with service.db.rolled_back():
        service.play(body)
        assert service.names() == [*THREE, "four"]


def test_a_commit_past_us_is_reported(arena: Arena) -> None:
    service = Service(arena)

    def commit_past_us(session: Session) -> None:
        session.execute(insert(Item).values(name="leaked"))
        session.execute(text("/* unseen */ COMMIT"))

    with pytest.raises(LeaseError, match="may be committed for good"), service.db.rolled_back():
        service.play(commit_past_us)
    assert arena.names() == [*THREE, "leaked"]
    assert service.names() == [*THREE, "leaked"]
    service.close()


@pytest.mark.parametrize("level", ["AUTOCOMMIT", "SERIALIZABLE"])
def test_an_isolation_level_of_a_session_does_not_end_the_block(service: Service, level: str) -> None:
    def body(session: Session) -> None:
        session.connection(execution_options={"isolation_level": level})
        session.execute(insert(Item).values(name="four"))
        if level != "AUTOCOMMIT":
            session.commit()

    with service.db.rolled_back():
        service.play(body)
        assert service.names() == [*THREE, "four"]


@pytest.mark.parametrize("level", ["AUTOCOMMIT", "SERIALIZABLE"])
def test_an_engine_of_another_isolation_level(arena: Arena, level: str) -> None:
    options: dict[str, Any] = {"isolation_level": level, "pool_size": 2, "max_overflow": 0}
    url = plain(arena.url)
    service = Service(arena, create_async_engine(url, **options) if arena.is_async else create_engine(url, **options))
    with service.db.rolled_back():
        service.add("four")
        assert service.names() == [*THREE, "four"]
        service.play(lambda session: session.execute(insert(Item).values(name="uncommitted")))
        uncommitted = ["uncommitted"] if level == "AUTOCOMMIT" else []
        assert service.names() == [*THREE, "four", *uncommitted]
    assert arena.names() == THREE
    service.close()


def test_headgate_off(arena: Arena) -> None:
    service = Service(arena, enabled=False)
    with service.db.rolled_back():
        service.add("four")
        assert service.names() == [*THREE, "four"]
    assert arena.names() == THREE
    assert service.names() == THREE
    service.close()


def test_streams_and_many(service: Service) -> None:
    def body(session: Session) -> list[str]:
        session.execute(insert(Item), [{"name": f"n{number}"} for number in range(20)])
        session.commit()
        query = select(Item.name).order_by(Item.id).execution_options(yield_per=5)
        return list(session.scalars(query))

    with service.db.rolled_back():
        assert len(service.play(body)) == 23


def test_the_other_kind_is_told_that_it_cannot_see_what_was_written(arena: Arena, service: Service) -> None:
    def count_sync() -> int:
        with service.db.session() as session:
            return len(names(session))

    def count_async() -> int:
        return arena.runner.run(count_in(service.db))

    count_other = count_sync if arena.is_async else count_async
    with service.db.rolled_back():
        assert count_other() == len(service.names()) == 3
        service.add("four")
        with pytest.raises(LeaseError, match="cannot see what"):
            count_other()


def test_a_listener_added_inside_stays(service: Service) -> None:
    seen = []
    engine = service.db.async_engine.sync_engine if service.arena.is_async else service.db.engine
    with service.db.rolled_back():
        event.listen(engine, "checkout", lambda *args: seen.append(args))
    service.names()
    assert seen


def test_tasks_take_turns(arena: Arena, service: Service) -> None:
    if not arena.is_async:
        pytest.skip("threads are below")

    async def write(name: str) -> None:
        async with service.db.async_transaction() as session:
            await session.scalars(select(Item))
            session.add(Item(name=name))
            await session.flush()
            await asyncio.sleep(0.001)
            await session.scalars(select(Item))

    async def main() -> None:
        async with service.db.rolled_back():
            await asyncio.gather(*(write(f"n{number}") for number in range(20)))
            async with service.db.async_session() as session:
                assert await session.scalar(select(func.count()).select_from(Item)) == 23

    arena.runner.run(main())


def test_threads_take_turns(on_sync: Arena, service: Service) -> None:
    def write(number: int) -> None:
        with service.db.transaction() as session:
            names(session)
            session.add(Item(name=f"n{number}"))
            session.flush()
            names(session)

    with service.db.rolled_back():
        threads = [threading.Thread(target=write, args=(number,)) for number in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(service.names()) == 23


def test_a_cancelled_writer_leaves_nothing(arena: Arena, service: Service) -> None:
    if not arena.is_async:
        pytest.skip("only tasks are cancelled")
    slow = (
        "SELECT pg_sleep(5)"
        if arena.is_postgresql
        else ("WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 1000000) SELECT max(n) FROM c")
    )

    async def write_slowly() -> None:
        async with asyncio.timeout(0.05), service.db.async_session() as session:
            session.add(Item(name="interrupted"))
            await session.flush()
            await session.execute(text(slow))

    async def main() -> None:
        async with service.db.rolled_back():
            with pytest.raises(TimeoutError):
                await write_slowly()
            async with service.db.async_transaction() as session:
                session.add(Item(name="four"))
            async with service.db.async_session() as session:
                assert await session.run_sync(names) == [*THREE, "four"]

    arena.runner.run(main())


@pytest.mark.filterwarnings("ignore:.*unclosed database:ResourceWarning")  # aiosqlite's, if cancelled in its connect
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_interrupted_tasks_lose_no_acknowledged_commit(arena: Arena, service: Service) -> None:
    if not arena.is_async:
        pytest.skip("only tasks are cancelled")
    acknowledged = set()

    async def write(number: int) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(number / 200):
                async with service.db.async_transaction() as session:
                    await session.scalars(select(Item))
                    session.add(Item(name=f"n{number}"))
                    await session.flush()
                    await session.scalars(select(Item))
                acknowledged.add(f"n{number}")

    async def main() -> set[str]:
        async with service.db.rolled_back():
            await asyncio.gather(*(write(number) for number in range(40)))
            for number in range(40):
                await write(number % 10)
            async with service.db.async_session() as session:
                return set(await session.run_sync(names))

    seen = arena.runner.run(main())
    assert acknowledged
    assert acknowledged <= seen


def test_with_inside_a_running_loop_names_async_with(service: Service) -> None:
    async def main() -> None:
        with pytest.raises(LeaseError, match=r"async with db\.rolled_back"), service.db.rolled_back():
            pass

    service.arena.runner.run(main())


def test_a_loop_that_ends_takes_its_connection_along(arena: Arena, service: Service) -> None:
    if not arena.is_async:
        pytest.skip("a sync connection has no loop")

    async def add() -> None:
        async with service.db.async_transaction() as session:
            session.add(Item(name="four"))

    with service.db.rolled_back():
        asyncio.run(service.db.check())
        asyncio.run(add())
        if arena.driver == "asyncpg":
            with pytest.raises(LeaseError, match=r"event loop that wrote(?s:.*)with TestClient"):
                asyncio.run(add())
        else:
            asyncio.run(add())
            assert asyncio.run(count_in(service.db)) == 5
    assert service.names() == THREE


async def count_in(db: Database) -> int:
    async with db.async_session() as session:
        return await session.scalar(select(func.count()).select_from(Item)) or 0


def test_another_loop_at_the_same_time(arena: Arena, service: Service) -> None:
    if not arena.is_async:
        pytest.skip("a sync connection has no loop")

    with service.db.rolled_back():
        service.add("four")
        if arena.driver == "asyncpg":
            with pytest.raises(LeaseError, match=r"belongs to the event loop(?s:.*)ASGITransport"):
                asyncio.run(count_in(service.db))
        else:
            assert asyncio.run(count_in(service.db)) == 4


def test_deferred_constraints_are_checked_at_commit(on_postgresql: Arena, service: Service) -> None:
    on_postgresql.other("DROP TABLE IF EXISTS child")
    on_postgresql.other(
        "CREATE TABLE child (id int PRIMARY KEY, item int REFERENCES item DEFERRABLE INITIALLY DEFERRED)"
    )

    def add_child(session: Session) -> None:
        session.execute(text("INSERT INTO child VALUES (1, 99)"))

    def add_both(session: Session) -> None:
        session.execute(text("INSERT INTO child VALUES (1, 99)"))
        session.add(Item(id=99, name="late"))

    with service.db.rolled_back():
        with pytest.raises(IntegrityError, match="child_item_fkey"):
            service.play(add_child, commit=True)
        service.play(add_both, commit=True)
        assert service.names()[-1] == "late"
    on_postgresql.other("DROP TABLE child")


def test_in_memory_sqlite() -> None:
    db = Database("sqlite://")
    with db.transaction() as session:
        session.execute(text("CREATE TABLE t (n int)"))
    with db.rolled_back():
        with db.transaction() as session:
            session.execute(text("INSERT INTO t VALUES (1)"))
        with db.session() as session:
            assert session.scalar(text("SELECT count(*) FROM t")) == 1
    with db.session() as session:
        assert session.scalar(text("SELECT count(*) FROM t")) == 0
    with pytest.raises(ConfigError, match="two databases"):
        _ = db.async_engine
    with db.session() as session:
        session.execute(text("INSERT INTO t VALUES (1)"))
        with pytest.raises(LeaseError, match="uncommitted changes"), db.rolled_back(), db.session() as other:
            other.execute(text("SELECT 1"))
    db.dispose()


async def test_in_memory_sqlite_async() -> None:
    db = Database("sqlite+aiosqlite://")
    async with db.async_transaction() as session:
        await session.execute(text("CREATE TABLE t (n int)"))
    async with db.rolled_back(), db.async_transaction() as session:
        await session.execute(text("INSERT INTO t VALUES (1)"))
    async with db.async_session() as session:
        assert await session.scalar(text("SELECT count(*) FROM t")) == 0
    await db.dispose_async()


def test_sqlite_with_the_documented_begin_recipe(on_sqlite: Arena, service: Service) -> None:
    engine = service.db.async_engine.sync_engine if on_sqlite.is_async else service.db.engine

    @event.listens_for(engine, "connect")
    def connect(dbapi: Any, record: Any) -> None:
        dbapi.isolation_level = None

    @event.listens_for(engine, "begin")
    def begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN")

    def add_twice(session: Session) -> None:
        session.add(Item(name="kept"))
        session.commit()
        session.add(Item(name="dropped"))
        session.flush()
        session.rollback()

    with service.db.rolled_back():
        service.play(add_twice)
        assert service.names() == [*THREE, "kept"]


def test_executescript_is_refused_because_it_commits(on_sqlite: Arena, service: Service) -> None:
    if on_sqlite.is_async:
        pytest.skip("the async adapter has none")
    with service.db.rolled_back(), service.db.session() as session:
        raw: Any = session.connection().connection.dbapi_connection
        with pytest.raises(LeaseError, match="executescript"):
            raw.cursor().executescript("DELETE FROM item")


def test_a_snapshot_session_joins(service: Service) -> None:
    async def names_async() -> list[str]:
        async with service.db.async_session(snapshot=True) as session:
            return await session.run_sync(names)

    def names_sync() -> list[str]:
        with service.db.session(snapshot=True) as session:
            return names(session)

    with service.db.rolled_back():
        service.add("four")
        seen = service.arena.runner.run(names_async()) if service.arena.is_async else names_sync()
        assert seen == [*THREE, "four"]
        service.add("five")


def test_a_block_is_not_what_on_pin_reports(arena: Arena) -> None:
    service = Service(arena, on_pin="error")
    with service.db.rolled_back():
        service.add("four")
        assert service.names() == [*THREE, "four"]
    assert arena.names() == THREE
    service.close()


def test_two_phase_transactions_are_refused(on_postgresql: Arena, service: Service) -> None:
    if on_postgresql.is_async:
        pytest.skip("SQLAlchemy has them for the sync driver only")

    def prepare(connection: Connection) -> None:
        transaction = connection.begin_twophase()
        connection.execute(insert(Item).values(name="prepared"))
        transaction.prepare()

    with service.db.rolled_back(), service.db.engine.connect() as connection:
        with pytest.raises(LeaseError, match="two-phase"):
            prepare(connection)
        connection.invalidate()


def test_a_closed_session_says_so(service: Service) -> None:
    def body(session: Session) -> None:
        connection = session.connection()
        session.close()
        with pytest.raises(InvalidRequestError):
            session.execute(text("SELECT 1"))
        assert connection.closed

    with service.db.rolled_back():
        service.play(body)
