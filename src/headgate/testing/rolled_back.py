"""A block in which everything that goes through a ``Database`` is undone at the end: ``with db.rolled_back():``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack

from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncEngine

from headgate.errors import LeaseError
from headgate.testing import errors
from headgate.testing.joined import JoinedPool
from headgate.testing.shared_connection import SharedConnection


class RolledBack:
    """What ``Database.rolled_back()`` returns; see there. Works as ``with`` and as ``async with``.

    :param database: name of the database, for errors.
    :param engines: the engines made so far; those made later come in by ``join``.
    :param blocks: the open blocks of that database, the outermost first.
    """

    def __init__(
        self,
        *,
        database: str,
        engines: Callable[[], Iterator[Engine | AsyncEngine]],
        blocks: list[RolledBack],
        max_wait: float,
        read_functions: frozenset[str],
    ) -> None:
        self._database = database
        self._engines = engines
        self._blocks = blocks
        self._max_wait_ns = round(max_wait * 1e9)
        self._read_functions = read_functions
        self._joined: list[tuple[Engine, JoinedPool]] = []
        self._wrote: SharedConnection | None = None

    @property
    def is_connected(self) -> bool:
        """True while it holds a connection."""
        return any(pool.shared.is_open for _, pool in self._joined)

    def join(self, engine: Engine | AsyncEngine) -> None:
        """From here to the end of the block, whatever this engine does happens on one connection."""
        sync_engine = engine.sync_engine if isinstance(engine, AsyncEngine) else engine
        origin = sync_engine.pool
        shared = SharedConnection(
            origin,
            outer=origin.shared if isinstance(origin, JoinedPool) else None,
            database=self._database,
            max_wait_ns=self._max_wait_ns,
            read_functions=self._read_functions,
            admit=self._admit,
        )
        pool = JoinedPool(origin, shared)
        sync_engine.pool = pool
        self._joined.append((sync_engine, pool))

    def _admit(self, shared: SharedConnection, writes: bool) -> None:
        if self._wrote is not None and self._wrote is not shared:
            raise errors.other_kind(self._database, is_async=shared.is_async)
        if writes:
            self._wrote = shared

    # with

    def __enter__(self) -> None:
        if _running_loop() is not None:
            raise errors.with_in_a_loop(self._database)
        self._begin()

    def __exit__(self, *exc: object) -> None:
        ending = self._ending()
        with ExitStack() as stack:
            stack.callback(self._leave)
            for shared in ending:
                stack.callback(_end, shared)

    # async with

    async def __aenter__(self) -> None:
        self._begin()

    async def __aexit__(self, *exc: object) -> None:
        ending = self._ending()
        async with AsyncExitStack() as stack:
            stack.callback(self._leave)
            for shared in ending:
                stack.push_async_callback(_end_async, shared)

    def _begin(self) -> None:
        if self in self._blocks:
            raise LeaseError("this rolled_back() block is open already: call db.rolled_back() once for each block")
        self._wrote = None
        for engine in self._engines():
            self.join(engine)
        self._blocks.append(self)

    def _ending(self) -> list[SharedConnection]:
        if not self._blocks or self._blocks[-1] is not self:
            raise errors.wrong_order(self._database)
        return [pool.shared for _, pool in self._joined]

    def _leave(self) -> None:
        self._blocks.remove(self)
        for engine, pool in self._joined:
            engine.pool = pool.origin
        self._joined.clear()


def _end(shared: SharedConnection) -> None:
    """End a connection from outside its event loop."""
    if not shared.is_async or not shared.is_open:
        shared.end()
    elif shared.loop is None:
        _run_in_thread(lambda: asyncio.run(shared.end_async()))
    elif shared.loop.is_closed() or shared.loop is _running_loop():
        shared.abandon()
    elif shared.loop.is_running():
        asyncio.run_coroutine_threadsafe(shared.end_async(), shared.loop).result()
    else:
        loop = shared.loop
        _run_in_thread(lambda: loop.run_until_complete(shared.end_async()))


async def _end_async(shared: SharedConnection) -> None:
    if shared.is_async and shared.loop in (None, _running_loop()):
        await shared.end_async()
    else:
        _end(shared)


def _run_in_thread(work: Callable[[], object]) -> None:
    # An event loop runs in any thread, but not in one where another is running.
    with ThreadPoolExecutor(1, "headgate-rolled-back") as executor:
        executor.submit(work).result()


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
