"""One budget under stress: engines disposed of in mid-flight, sync and async load together, seen from the server.

``HEADGATE_SOAK=1`` runs each load for longer; ``-s`` prints the counts.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL, event
from sqlalchemy.exc import DBAPIError

from headgate import Database

from .failing_world import INSERT, READ, Deed, world_of
from .interrupting import Points
from .witness import PostgresWitness, becomes

pytestmark = pytest.mark.usefixtures("collected")
SECONDS = 20.0 if os.environ.get("HEADGATE_SOAK") == "1" else 0.5
CONNECTIONS = 4
_numbers = itertools.count()


class Sampler(threading.Thread):
    """Asks the server all the time how many connections there are, over a connection of its own."""

    def __init__(self, url: URL, application: str) -> None:
        super().__init__()
        self._witness = PostgresWitness(url, application)
        self._done = threading.Event()
        self.seen: Counter[int] = Counter()

    def run(self) -> None:
        """Sample until told to stop."""
        while not self._done.is_set():
            self.seen[self._witness.states().total()] += 1
        self._witness.close()

    def __enter__(self) -> Sampler:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._done.set()
        self.join()


@dataclass(slots=True)
class Load:
    """Threads and tasks over one ``Database``, and what became of their writes."""

    db: Database
    prefix: str
    connects: int = 0
    acknowledged: list[str] = field(default_factory=list)
    failed: Counter[str] = field(default_factory=Counter)
    done: threading.Event = field(default_factory=threading.Event)
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        for engine in (self.db.engine, self.db.async_engine.sync_engine):
            event.listen(engine, "connect", self._count)

    def _count(self, dbapi: Any, record: Any) -> None:
        self.connects += 1

    def write(self) -> None:
        """One sync session."""
        name = f"{self.prefix}{next(self.numbers)}"
        try:
            with self.db.session() as session:
                session.execute(READ, {"id": name})
                session.execute(INSERT, {"id": name, "note": ""})
                session.commit()
                self.acknowledged.append(name)
                session.execute(READ, {"id": name})
        except DBAPIError as error:
            self.failed[f"{type(error).__name__}: {str(error).splitlines()[0][:80]}"] += 1

    async def write_async(self) -> None:
        """One async session."""
        name = f"{self.prefix}{next(self.numbers)}"
        try:
            async with self.db.async_session() as session:
                await session.execute(READ, {"id": name})
                await session.execute(INSERT, {"id": name, "note": ""})
                await session.commit()
                self.acknowledged.append(name)
                await session.execute(READ, {"id": name})
        except DBAPIError as error:
            self.failed[f"{type(error).__name__}: {str(error).splitlines()[0][:80]}"] += 1

    @contextmanager
    def threads(self, count: int, pause_s: float = 0.0) -> Iterator[None]:
        """Sync sessions in that many threads while the block runs."""

        def work() -> None:
            while not self.done.is_set():
                self.write()
                time.sleep(pause_s)

        threads = [threading.Thread(target=work) for _ in range(count)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self.done.set()
            for thread in threads:
                thread.join()

    async def tasks(self, count: int, seconds: float, pause_s: float = 0.0) -> None:
        """Async sessions in that many tasks."""
        until_s = time.monotonic() + seconds

        async def work() -> None:
            while time.monotonic() < until_s:
                await self.write_async()
                await asyncio.sleep(pause_s)

        await asyncio.gather(*(work() for _ in range(count)))

    def check(self, witness: PostgresWitness) -> None:
        """Everything acknowledged is there once, the budget is whole."""
        there = witness.all_deeds()
        assert [name for name in self.acknowledged if there[name] != 1] == []
        now = self.db.gate.statistics()
        assert (now.in_use, now.warm, now.pending) == (0, 0, 0)
        assert becomes(lambda: witness.states().total() == self.db.gate._places), (witness.states(), self.db.gate)


@pytest.fixture
def witness(postgres_url: URL) -> Iterator[PostgresWitness]:
    """A name of its own for each test's application."""
    witness = PostgresWitness(postgres_url, f"budget{next(_numbers)}")
    yield witness
    witness.close()


@pytest.fixture(params=["asyncpg", "psycopg"])
def load(request: pytest.FixtureRequest, postgres_url: URL, witness: PostgresWitness) -> Load:
    """Load on a budget of four."""
    driver = "postgresql+asyncpg" if request.param == "asyncpg" else "postgresql+psycopg"
    url = postgres_url.set(drivername=driver, query={"application_name": witness.application})
    db = Database(url if driver.endswith("psycopg") else url.set(query={}), connections=CONNECTIONS, max_wait=20)
    if request.param == "asyncpg":
        db = _with_asyncpg(url, witness)
    return Load(db, f"{witness.application}-")


def _with_asyncpg(url: URL, witness: PostgresWitness) -> Database:
    from sqlalchemy import create_engine
    from sqlalchemy.ext.asyncio import create_async_engine

    limits = {"pool_size": CONNECTIONS, "max_overflow": 0, "pool_timeout": 20}
    return Database(
        create_async_engine(
            url.set(query={}), connect_args={"server_settings": {"application_name": witness.application}}, **limits
        ),
        sync=create_engine(url.set(drivername="postgresql+psycopg"), **limits),
        max_wait=20,
    )


Run = Callable[[Load], Awaitable[None]]


async def saturate(load: Load) -> None:
    """More threads and more tasks than connections."""
    with load.threads(8):
        await load.tasks(8, SECONDS)


async def alternate(load: Load) -> None:
    """Now a thread, now a task, as in an app with few requests of both kinds."""
    until_s = time.monotonic() + SECONDS
    while time.monotonic() < until_s:
        await asyncio.to_thread(load.write)
        await load.write_async()


async def lightly(load: Load) -> None:
    """Two threads and two tasks with pauses: together they fit into the budget."""
    with load.threads(2, 0.005):
        await load.tasks(2, SECONDS, 0.005)


@pytest.mark.parametrize(("kind", "bound"), [(saturate, 60.0), (alternate, 4.0), (lightly, 4.0)])
async def test_the_server_never_sees_more_than_the_budget(
    load: Load, witness: PostgresWitness, postgres_url: URL, kind: Run, bound: float
) -> None:
    began_s = time.monotonic()
    with Sampler(postgres_url, witness.application) as sampler:
        await kind(load)
    seconds = time.monotonic() - began_s
    print(
        f"\n{load.db.async_engine.driver}, {kind.__name__}: {len(load.acknowledged) / seconds:.0f} sessions/s, "
        f"{load.connects / seconds:.1f} connects/s ({load.connects}), seen by {sampler.seen.total()} samples: "
        f"{dict(sorted(sampler.seen.items()))}"
    )
    assert not load.failed
    assert max(sampler.seen) <= CONNECTIONS
    assert load.connects <= CONNECTIONS * 2 + bound * seconds, "the kinds take each other's connections all the time"
    load.check(witness)
    await load.db.dispose_async()
    assert becomes(lambda: not witness.states())


async def test_engines_disposed_of_under_load_lose_nothing(
    load: Load, witness: PostgresWitness, postgres_url: URL
) -> None:
    disposals = 0

    async def dispose() -> None:
        nonlocal disposals
        while True:
            await asyncio.sleep(0.05)
            await load.db.async_engine.dispose()
            await asyncio.to_thread(load.db.engine.dispose)
            disposals += 1

    with Sampler(postgres_url, witness.application) as sampler:
        disposing = asyncio.create_task(dispose())
        with load.threads(6):
            await load.tasks(6, 2 * SECONDS)
        disposing.cancel()
        await asyncio.gather(disposing, return_exceptions=True)
    print(f"\n{disposals} disposals, {len(load.acknowledged)} sessions, seen {dict(sorted(sampler.seen.items()))}")
    assert disposals > 3
    assert not load.failed
    assert max(sampler.seen) <= CONNECTIONS
    load.check(witness)
    await load.db.dispose_async()
    assert becomes(lambda: not witness.states())
    assert load.db.gate._places == 0


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg_async", "aiosqlite"])
async def test_a_cancelled_dispose_leaves_nothing_behind(
    driver: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    async with world_of(driver, request, tmp_path, f"disposed_{driver}", connections=3) as world:
        for at, manner in itertools.product(range(1, 9), ("early", "late")):
            await world.fill()
            held = world.session()
            await held.execute(READ, {"id": "x"})
            points = Points(world.engine.dispose(), at, manner)  # type: ignore[arg-type]

            async def dispose(points: Points = points) -> None:
                await points

            await asyncio.gather(asyncio.create_task(dispose()), return_exceptions=True)
            await held.execute(READ, {"id": "x"})
            await held.close()
            assert await world.faults(Deed("nobody")) == [], (at, manner, points.places)
