"""The process: forks, threads that end, loops that close, an interpreter that shuts down, sessions nobody closed."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL, Engine, create_engine, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from headgate import AsyncLeasePool, LeasePool
from headgate.gate import Gate

from .failing_world import INSERT, READ, Deed, World, world_of
from .witness import PostgresWitness, becomes

pytestmark = pytest.mark.usefixtures("collected")
SOAK = os.environ.get("HEADGATE_SOAK") == "1"
DRIVERS = ("asyncpg", "psycopg_async")
PRELUDE = """
import asyncio, gc, multiprocessing, os, sys, threading, time
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import AsyncAdaptedQueuePool, QueuePool
from headgate import AsyncLeasePool, LeasePool

OURS = os.environ["POOL"] == "ours"
URL = os.environ["URL"]
INSERT = text("INSERT INTO deed (id, note) VALUES (:id, '')")
READ = text("SELECT count(*) FROM deed WHERE id = :id")
LIMITS = dict(pool_size=3, max_overflow=0, pool_timeout=5)

def sync_engine():
    return create_engine(URL.replace("postgresql:", "postgresql+psycopg:"),
        poolclass=LeasePool if OURS else QueuePool, **LIMITS)

def async_engine(driver="asyncpg"):
    return create_async_engine(URL.replace("postgresql:", f"postgresql+{driver}:"),
        poolclass=AsyncLeasePool if OURS else AsyncAdaptedQueuePool, **LIMITS)
"""


@pytest.fixture
def witness(postgres_url: URL) -> Iterator[PostgresWitness]:
    """An empty table ``deed``."""
    witness = PostgresWitness(postgres_url, "process")
    witness.ask("TRUNCATE deed")
    yield witness
    witness.kill()  # whatever a test has left, the next one does not find it
    witness.close()


def run(script: str, url: URL, *, pool: str = "ours", **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a script in an interpreter of its own."""
    environ = {"URL": url.render_as_string(hide_password=False), "POOL": pool, "PGAPPNAME": "process", **environ}
    return subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", PRELUDE + script],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


FORK = """
def fork(case, disposes, leave):
    engine = sync_engine()
    warm, pinned = Session(engine), Session(engine)
    warm.execute(READ, {"id": "x"})
    pinned.execute(INSERT, {"id": f"{case}: pinned in the parent"})
    with engine.connect() as idle:
        idle.execute(INSERT, {"id": f"{case}: idle"}); idle.commit()
    child = os.fork()
    if not child:
        try:
            if disposes:
                engine.dispose(close=False)
            now = engine.pool.gate.statistics()
            assert (now.in_use, now.warm, now.idle) == (0, 0, 0), repr(engine.pool.gate)
            sessions = [Session(engine) for _ in range(3)]
            for number, session in enumerate(sessions):
                session.execute(INSERT, {"id": f"{case}: child {number}"})
            for session in sessions:
                session.commit()
            del warm, pinned, session, sessions
            gc.collect()
        except BaseException as error:
            print("child:", repr(error), file=sys.stderr)
        finally:
            sys.stderr.flush()
            leave(0)
    os.waitpid(child, 0)
    warm.execute(READ, {"id": "x"})
    pinned.execute(INSERT, {"id": f"{case}: pinned in the parent, after"})
    pinned.commit()
    warm.close(); pinned.close()
    with engine.connect() as idle:
        idle.execute(INSERT, {"id": f"{case}: idle, after"}); idle.commit()
    now = engine.pool.gate.statistics()
    assert (now.in_use, now.warm) == (0, 0), repr(engine.pool.gate)
    engine.dispose()

fork("disposes", True, os._exit)
fork("does nothing", False, os._exit)
fork("leaves by sys.exit", False, sys.exit)
"""
FORK_CASES = ("disposes", "does nothing", "leaves by sys.exit")


def test_a_fork_leaves_the_parents_connections_alone(witness: PostgresWitness, postgres_url: URL) -> None:
    done = run(FORK, postgres_url)
    assert (done.returncode, done.stderr) == (0, "")
    by_child, by_parent = [f"child {n}" for n in range(3)], ["idle", "pinned in the parent"]
    names = [*by_child, *by_parent, *(f"{name}, after" for name in by_parent)]
    assert dict(witness.all_deeds()) == {f"{case}: {name}": 1 for case in FORK_CASES for name in names}
    assert becomes(lambda: not witness.states())


FORK_ASYNC = """
async def act(engine, name, last=False):
    async with AsyncSession(engine) as session:
        await session.execute(READ, {"id": "x"})
        await session.execute(INSERT, {"id": name})
        await session.commit()
    if last:
        await engine.dispose()

def in_child(engine, driver):
    try:
        asyncio.run(act(engine, f"{driver}: child", last=True))
    except BaseException as error:
        print("child:", repr(error), file=sys.stderr)
    finally:
        sys.stderr.flush()
        os._exit(0)

async def main(driver):
    engine = async_engine(driver)
    warm, pinned = AsyncSession(engine), AsyncSession(engine)
    await warm.execute(READ, {"id": "x"})
    await pinned.execute(INSERT, {"id": f"{driver}: pinned in the parent"})
    child = os.fork()
    if not child:
        # The child's thread still runs the parent's loop: a new one needs a thread of its own.
        thread = threading.Thread(target=in_child, args=(engine, driver)); thread.start(); thread.join(); os._exit(1)
    await asyncio.get_running_loop().run_in_executor(None, os.waitpid, child, 0)
    await warm.execute(READ, {"id": "x"})
    await pinned.commit()
    await warm.close(); await pinned.close()
    await act(engine, f"{driver}: parent")
    now = engine.pool.gate.statistics()
    assert (now.in_use, now.warm) == (0, 0), repr(engine.pool.gate)
    await engine.dispose()
asyncio.run(main("asyncpg"))
asyncio.run(main("psycopg_async"))
"""


def test_a_fork_leaves_the_parents_async_connections_alone(witness: PostgresWitness, postgres_url: URL) -> None:
    done = run(FORK_ASYNC, postgres_url)
    assert (done.returncode, done.stderr) == (0, "")
    names = ("child", "pinned in the parent", "parent")
    assert dict(witness.all_deeds()) == {f"{driver}: {name}": 1 for driver in DRIVERS for name in names}
    assert becomes(lambda: not witness.states())


PRELOAD = """
engine = sync_engine()
with engine.begin() as connection:
    connection.execute(INSERT, {"id": "preload"})

def work(number):
    with Session(engine) as session:
        session.execute(READ, {"id": "x"})
        session.execute(INSERT, {"id": f"worker {number}"})
        session.commit()

with multiprocessing.get_context("fork").Pool(4) as workers:
    workers.map(work, range(40))
with engine.begin() as connection:
    connection.execute(INSERT, {"id": "parent"})
engine.dispose()
"""


def test_workers_of_a_preloaded_app_do_not_share_connections(witness: PostgresWitness, postgres_url: URL) -> None:
    done = run(PRELOAD, postgres_url)
    assert (done.returncode, done.stderr) == (0, "")
    assert dict(witness.all_deeds()) == {"preload": 1, "parent": 1, **{f"worker {n}": 1 for n in range(40)}}
    assert becomes(lambda: not witness.states())


SHUTDOWNS = {
    "warm": "session = Session(sync_engine()); session.execute(READ, {'id': 'x'})",
    "pinned": "session = Session(sync_engine()); session.execute(INSERT, {'id': 'never'})",
    "streaming": """
engine = sync_engine()
connection = engine.connect().execution_options(stream_results=True, max_row_buffer=1)
rows = connection.execute(text("SELECT generate_series(1, 100000)"))
next(rows)
""",
    "in a cycle": """
session = Session(sync_engine()); session.execute(INSERT, {'id': 'never'})
session.info["itself"] = session; del session
""",
    "daemon threads": """
engine = sync_engine()
def forever():
    while True:
        with Session(engine) as session:
            session.execute(READ, {"id": "x"})
for _ in range(6):
    threading.Thread(target=forever, daemon=True).start()
time.sleep(0.3)
""",
    "a thread that goes on": """
engine = sync_engine()
def go_on():
    time.sleep(0.3)
    with Session(engine) as session:
        session.execute(READ, {"id": "x"})
threading.Thread(target=go_on).start()
""",
    "a closed loop": """
async def main():
    sessions = [AsyncSession(async_engine()) for _ in range(2)]
    await sessions[0].execute(READ, {"id": "x"})
    await sessions[1].execute(INSERT, {"id": "never"})
    return sessions
kept = asyncio.run(main())
""",
    "a cancelled loop": """
async def hold(engine):
    async with AsyncSession(engine) as session:
        await session.execute(READ, {"id": "x"})
        await asyncio.sleep(60)
async def main():
    engine = async_engine()
    tasks = [asyncio.create_task(hold(engine)) for _ in range(8)]
    await asyncio.sleep(0.3)
asyncio.run(main())
""",
}


@pytest.mark.parametrize(
    "name", SHUTDOWNS if SOAK else ("pinned", "daemon threads", "a closed loop", "a cancelled loop")
)
def test_an_interpreter_shuts_down_as_quietly_as_with_stock(
    witness: PostgresWitness, postgres_url: URL, name: str
) -> None:
    done = run(SHUTDOWNS[name], postgres_url)
    assert done.returncode == 0, done.stderr
    if done.stderr:
        stock = run(SHUTDOWNS[name], postgres_url, pool="stock")
        assert _complaints(done.stderr) <= _complaints(stock.stderr), done.stderr
    assert witness.count("never") == 0
    assert becomes(lambda: not witness.states())


def _complaints(stderr: str) -> set[str]:
    """The sentences of a standard error, without what differs from run to run."""
    return {line.partition(" <")[0] for line in stderr.splitlines() if line and not line.startswith(" ")}


# sessions nobody closed


@pytest.fixture
def engine(postgres_url: URL, witness: PostgresWitness) -> Iterator[Engine]:
    """A budget of two; whole at the end."""
    engine = create_engine(
        postgres_url.set(drivername="postgresql+psycopg"),
        poolclass=LeasePool,
        pool_size=2,
        max_overflow=0,
        connect_args={"application_name": "process"},
    )
    yield engine
    gate = engine.pool.gate  # type: ignore[attr-defined]
    assert becomes(lambda: _is_whole(gate)), repr(gate)
    assert not [state for state in witness.states() if state.startswith("idle in")]
    connections = [engine.connect() for _ in range(2)]
    for connection in connections:
        connection.connection.dbapi_connection  # noqa: B018
    assert gate.statistics().in_use == 2
    for connection in connections:
        connection.close()
    engine.dispose()
    assert becomes(lambda: not witness.states())
    assert gate._places == 0


def _is_whole(gate: Gate) -> bool:
    gc.collect()
    now = gate.statistics()
    return (now.in_use, now.warm, now.pending) == (0, 0, 0)


def read(session: Session) -> Any:
    """Leaves the connection warm."""
    session.execute(READ, {"id": "x"})


def write(session: Session) -> Any:
    """Leaves the connection pinned."""
    session.execute(INSERT, {"id": "forgotten", "note": ""})


def stream(session: Session) -> Any:
    """Leaves a server-side cursor open in the middle of its rows."""
    rows = session.execute(text("SELECT generate_series(1, 10000)").execution_options(stream_results=True))
    next(rows)
    return rows


def escape(session: Session) -> Any:
    """Leaves the connection tainted, and itself at large."""
    return session.connection().connection.dbapi_connection is not None


DEEDS = (read, write, stream, escape)


@pytest.mark.usefixtures("as_quiet_as_stock")
@pytest.mark.parametrize(
    ("deed", "cycle"), [(read, False), (read, True), (write, True), (stream, False), (escape, True)]
)
def test_a_forgotten_session_gives_back(
    engine: Engine, witness: PostgresWitness, deed: Callable[[Session], Any], cycle: bool
) -> None:
    for _ in range(5):  # more than the budget
        session: Any = Session(engine)
        kept = deed(session)
        if cycle:
            session.info["itself"] = [session, kept]
        del session, kept
        gc.collect()
    assert witness.count("forgotten") == 0


@pytest.mark.usefixtures("as_quiet_as_stock")
@pytest.mark.parametrize("deed", DEEDS)
def test_a_session_collected_in_another_thread_gives_back(
    engine: Engine, witness: PostgresWitness, deed: Callable[[Session], Any]
) -> None:
    gc.disable()
    try:
        for _ in range(4):
            session: Any = Session(engine)
            session.info["itself"] = [session, deed(session)]
            del session
            collector = threading.Thread(target=gc.collect)
            collector.start()
            collector.join()
    finally:
        gc.enable()
    assert witness.count("forgotten") == 0


@pytest.mark.usefixtures("as_quiet_as_stock")
@pytest.mark.parametrize("deed", DEEDS)
def test_a_thread_that_ends_with_a_lease_gives_back(
    engine: Engine, witness: PostgresWitness, deed: Callable[[Session], Any]
) -> None:
    for _ in range(4):
        thread = threading.Thread(target=lambda: deed(Session(engine)))
        thread.start()
        thread.join()
        gc.collect()
    assert witness.count("forgotten") == 0


@pytest.fixture(params=DRIVERS)
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    """A budget of two."""
    async with world_of(request.param, request, tmp_path, "process") as world:
        yield world


@pytest.mark.usefixtures("as_quiet_as_stock")
@pytest.mark.parametrize(("deed", "cycle"), [(read, True), (write, False), (stream, True), (escape, False)])
async def test_a_forgotten_async_session_gives_back(world: World, deed: Callable[[Session], Any], cycle: bool) -> None:
    for _ in range(5):
        await _forget(world, deed, cycle)
        gc.collect()
        await asyncio.sleep(0)
    assert await world.faults(Deed("forgotten", may_commit=False)) == []


async def _forget(world: World, deed: Callable[[Session], Any], cycle: bool) -> None:
    session = world.session()
    kept = await session.run_sync(deed)
    if cycle:
        session.sync_session.info["itself"] = [session, kept]


@pytest.mark.usefixtures("as_quiet_as_stock")
@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("deed", [read, write])
def test_a_loop_that_was_closed_costs_no_place(
    witness: PostgresWitness, postgres_url: URL, driver: str, deed: Callable[[Session], Any]
) -> None:
    key = {"connect_args": {"server_settings": {"application_name": "process"}}}
    if driver == "psycopg_async":
        key = {"connect_args": {"application_name": "process"}}  # type: ignore[dict-item]
    engine = create_async_engine(
        postgres_url.set(drivername=f"postgresql+{driver}"),
        poolclass=AsyncLeasePool,
        pool_size=2,
        max_overflow=0,
        **key,
    )
    for _ in range(3):
        asyncio.run(_leave(engine, deed))
        gc.collect()
    assert asyncio.run(_count_after(engine)) == 0
    gate = engine.sync_engine.pool.gate  # type: ignore[attr-defined]
    assert _is_whole(gate), repr(gate)
    asyncio.run(engine.dispose())
    gc.collect()
    assert becomes(lambda: not witness.states())


async def _leave(engine: AsyncEngine, deed: Callable[[Session], Any]) -> None:
    await engine.dispose()  # as SQLAlchemy asks of an engine that is used from several loops
    await AsyncSession(engine).run_sync(deed)


async def _count_after(engine: AsyncEngine) -> int:
    await engine.dispose()
    async with AsyncSession(engine) as session:
        found = (await session.execute(READ, {"id": "forgotten"})).scalar_one()
    await engine.dispose()
    return int(found)
