"""Hooks and listeners of the application that raise or are interrupted: the error arrives, nothing leaks."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anyio
import psycopg
import pytest
from sqlalchemy import URL, Engine, create_engine, event
from sqlalchemy.orm import Session

from headgate import LeasePool
from headgate.config import LeaseOptions

from .failing_world import INSERT, READ, Deed, World, world_of
from .witness import BUSY, PostgresWitness, becomes

ON_ENGINE = ("begin", "commit", "rollback", "before_cursor_execute", "after_cursor_execute", "handle_error")
ON_POOL = ("connect", "checkout", "checkin", "reset", "close")
ON_SESSION = ("do_orm_execute", "after_begin", "before_commit", "after_commit", "after_rollback")
IN_OPTIONS = ("on_acquire", "on_release")
HOOKS = (*ON_ENGINE, *ON_POOL, *ON_SESSION, *IN_OPTIONS)
WAITING = ("connect", "checkout", "checkin", "before_cursor_execute", "after_begin", *IN_OPTIONS)
"""The hooks that are likely to await."""
SOAK = os.environ.get("HEADGATE_SOAK") == "1"
_numbers = itertools.count()


class HookError(Exception):
    """What a hook of the application raises."""


class Hook:
    """Counts its calls and raises at one of them."""

    def __init__(self, error: type[BaseException]) -> None:
        self.calls = 0
        self.raises_at = 0
        self._error = error

    def __call__(self, *_: Any, **__: Any) -> None:
        """Take any hook's arguments."""
        self.calls += 1
        if self.calls == self.raises_at:
            raise self._error("the hook")

    def set(self, raises_at: int) -> None:
        """Start counting anew; 0 never raises."""
        self.calls, self.raises_at = 0, raises_at


def listen(engine: Engine, name: str, hook: Hook) -> None:
    """Put a hook on an engine, or on its pool."""
    if name in ON_ENGINE:
        event.listen(engine, name, lambda *args: hook())
    elif name in ON_POOL:
        event.listen(engine.pool, name, lambda *args: hook())


def options(name: str, hook: Hook) -> dict[str, Any]:
    """The engine's arguments for a hook."""
    return {"lease_options": LeaseOptions(**{name: hook})} if name in IN_OPTIONS else {}


def work(session: Session, name: str, hooked: str, hook: Hook) -> None:
    """Everything that hooks are called for."""
    if hooked in ON_SESSION:
        event.listen(session, hooked, lambda *args: hook())
    session.execute(READ, {"id": name})
    session.execute(READ, {"id": name})
    session.execute(INSERT, {"id": "never", "note": ""})
    session.rollback()
    session.execute(READ, {"id": name})
    session.execute(INSERT, {"id": name, "note": ""})
    session.commit()
    session.execute(READ, {"id": name})
    if hooked == "handle_error":
        session.connection().exec_driver_sql("SELECT 1/0")


@pytest.fixture
def witness(postgres_url: URL) -> Iterator[PostgresWitness]:
    """A name of its own for each test's application."""
    witness = PostgresWitness(postgres_url, f"hooks{next(_numbers)}")
    yield witness
    witness.close()


def sync_engine(url: URL, witness: PostgresWitness, **more: Any) -> Engine:
    """A budget of two."""
    return create_engine(
        url.set(drivername="postgresql+psycopg"),
        poolclass=LeasePool,
        pool_size=2,
        max_overflow=0,
        connect_args={"application_name": witness.application},
        **more,
    )


def faults(engine: Engine, witness: PostgresWitness) -> list[str]:
    """What is wrong with an engine that nobody uses now."""
    gate = engine.pool.gate  # type: ignore[attr-defined]
    now = gate.statistics()
    found = [f"{name} = {getattr(now, name)}" for name in ("in_use", "warm", "pending") if getattr(now, name)]

    def agree() -> bool:
        states = witness.states()
        return states.total() == gate._places and not any(states[state] for state in BUSY)

    if not becomes(agree, 2):
        found.append(f"{gate._places} places, but the server has {dict(witness.states())}")
    connections = [engine.connect() for _ in range(2)]
    for connection in connections:
        connection.connection.dbapi_connection  # noqa: B018
    for connection in connections:
        connection.close()
    return found + ["a write that was rolled back is there"] * witness.count("never")


@pytest.mark.parametrize("error", [HookError, KeyboardInterrupt])
@pytest.mark.parametrize("name", HOOKS)
def test_a_hook_that_raises_leaks_nothing(
    postgres_url: URL, witness: PostgresWitness, name: str, error: type[BaseException]
) -> None:
    hook = Hook(error)
    engine = sync_engine(postgres_url, witness, **options(name, hook))
    listen(engine, name, hook)
    outcomes = set()
    for raises_at in range(1, 4):
        if name in ("connect", "close"):
            engine.dispose()
        hook.set(raises_at)
        try:
            with Session(engine) as session:
                work(session, f"{witness.application} {raises_at}", name, hook)
        except BaseException:  # the hook's own error, or one that SQLAlchemy has made of it
            outcomes.add("raised")
        hook.set(0)
        assert faults(engine, witness) == [], (name, raises_at)
        assert witness.count(f"{witness.application} {raises_at}") <= 1
    # What listeners of `close` and `reset` raise, and on_release short of an interrupt, is logged.
    assert outcomes or name in ("close", "reset", "on_release"), "the hook was never called"
    engine.dispose()
    assert engine.pool.gate._places == 0  # type: ignore[attr-defined]
    assert becomes(lambda: not witness.states())


@pytest.fixture(params=["asyncpg", "psycopg_async"])
async def driver(request: pytest.FixtureRequest) -> str:
    """The async driver under test."""
    return str(request.param)


@pytest.mark.parametrize("name", [name for name in HOOKS if SOAK or name in WAITING])
async def test_a_hook_that_is_cancelled_leaks_nothing(
    driver: str, name: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    hook = Hook(asyncio.CancelledError)
    application = f"hooks{next(_numbers)}"
    async with world_of(driver, request, tmp_path, application, **options(name, hook)) as world:
        for raises_at in (1, 2):
            if name in ("connect", "close"):
                await world.engine.dispose()
            listen(world.engine.sync_engine, name, hook)
            hook.set(raises_at)
            deed = Deed(f"{application} {raises_at}")

            async def act(deed: Deed = deed) -> None:
                async with world.session() as session:
                    await session.run_sync(work, deed.name, name, hook)

            await asyncio.gather(asyncio.create_task(act()), return_exceptions=True)
            hook.set(0)
            assert await world.faults(deed) == [], (name, raises_at)
        assert world.witness.count("never") == 0


CALLS = ("execute", "fetchall", "commit", "rollback", "close")


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("after", [False, True])
def test_an_interrupt_in_the_sync_driver_leaks_nothing(
    postgres_url: URL,
    witness: PostgresWitness,
    monkeypatch: pytest.MonkeyPatch,
    call: str,
    error: type[BaseException],
    after: bool,
) -> None:
    """Before the driver has done anything, or when all is done and nobody hears of it."""
    hook = Hook(error)
    owner: Any = psycopg.Cursor if call in ("execute", "fetchall") else psycopg.Connection
    stock = getattr(owner, call)

    def interrupted(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not after:
            hook()
        result = stock(self, *args, **kwargs)
        if after:
            hook()
        return result

    engine = sync_engine(postgres_url, witness)
    assert faults(engine, witness) == []
    monkeypatch.setattr(owner, call, interrupted)
    for raises_at in range(1, 7):
        hook.set(raises_at)
        name = f"{witness.application} {raises_at}"
        try:
            with Session(engine) as session:
                work(session, name, "", hook)
        except error:
            pass
        hook.set(0)
        assert faults(engine, witness) == [], raises_at
        assert witness.count(name) <= 1
    engine.dispose()
    assert becomes(lambda: not witness.states())


@pytest.fixture
async def world(driver: str, request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    """A budget of two."""
    async with world_of(driver, request, tmp_path, f"hooks{next(_numbers)}") as world:
        yield world


@pytest.mark.parametrize("scope", ["asyncio", "anyio"])
async def test_a_timeout_around_a_request_leaks_nothing(world: World, scope: str) -> None:
    witness = world.witness
    for number in range(0, 40, 2):
        deed = Deed(f"{witness.application} {scope} {number}")
        seconds = number / 4_000
        timeout: Any = asyncio.timeout(seconds) if scope == "asyncio" else None
        try:
            if timeout is not None:
                async with timeout:
                    await _request(world, deed)
            else:
                with anyio.move_on_after(seconds):
                    await _request(world, deed)
        except TimeoutError:
            pass
        assert await world.faults(deed) == [], number


async def _request(world: World, deed: Deed) -> None:
    async with world.session() as session:
        await session.execute(READ, {"id": deed.name})
        await session.execute(INSERT, {"id": deed.name, "note": ""})
        await session.commit()
        deed.is_committed = True
        await session.execute(READ, {"id": deed.name})
