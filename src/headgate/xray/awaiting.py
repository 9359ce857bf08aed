"""What a suspended task waits for: the application's line, and the function it awaits there.

A task's coroutines hang together by what each awaits, and while it is suspended that chain can be walked from
outside at the price of a few microseconds; nothing is patched, and nothing runs in the task.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Iterator
from types import AsyncGeneratorType, CoroutineType, FrameType, GeneratorType
from typing import Any, Final, NamedTuple

from headgate.xray.app_code import is_app_code, site_of
from headgate.xray.observation import A_THREAD, NOWHERE, RUNS, THE_DATABASE, Site

MOST_LINKS: Final = 200
_BRIDGES: Final = ("async_generator_asend", "async_generator_athrow", "coroutine_wrapper", "anext_awaitable")
"""Objects of the interpreter that show only to the garbage collector what they await."""

DRIVERS: Final = frozenset(
    {"asyncpg", "psycopg", "psycopg2", "aiosqlite", "aiomysql", "asyncmy", "pymysql", "oracledb"}
)
_CLOSING: Final = ("sqlalchemy.AsyncSession.__aexit__", "sqlalchemy.AsyncConnection.__aexit__")
"""They roll back in a task of their own, and wait for it."""

_KINDS: Final = (CoroutineType, AsyncGeneratorType, GeneratorType)
_FUTURES: Final = {"_GatheringFuture": "asyncio.gather", "FutureIter": "a future", "Future": "a future"}


class _Link(NamedTuple):
    """One of a chain: a frame, or what has none, by its name; ``package`` is that of its code."""

    frame: FrameType | None
    package: str
    name: str


def what_awaits(task: asyncio.Task[Any]) -> tuple[Site, str]:
    """The deepest line of the application's that a suspended task is at, and what it awaits there.

    ``NOWHERE`` if none of its coroutines is the application's.
    """
    below: list[_Link] = []
    site = NOWHERE
    for link in _chain(task.get_coro()):
        if link.frame is not None and is_app_code(link.frame.f_code):
            site, below = site_of(link.frame), []
        else:
            below.append(link)
    return site, _what_is_awaited(below, is_first=site is not NOWHERE)


def _what_is_awaited(below: list[_Link], *, is_first: bool) -> str:
    """What the links below the application's line wait for: the first by name, or the last that says something."""
    telling = [link for link in below if link.frame is not None and link.package != "asyncio"]
    if telling and (telling[-1].package in DRIVERS or telling[-1].name in _CLOSING):
        return THE_DATABASE
    if is_first:
        return below[0].name if below else RUNS
    if any(link.name.endswith("run_sync_in_worker_thread") for link in below):
        return A_THREAD
    return telling[-1].name if telling else RUNS


def what_runs(thread: int) -> tuple[Site, str]:
    """The line of the application's that a thread is at, and the function it has called there."""
    frame = deepest = sys._current_frames().get(thread)
    below: FrameType | None = None
    for _ in range(MOST_LINKS):
        if frame is None or deepest is None:
            break
        if is_app_code(frame.f_code):
            if below is None:
                return site_of(frame), RUNS
            return site_of(frame), THE_DATABASE if package_of(deepest) in DRIVERS else name_of(below)
        below, frame = frame, frame.f_back
    return NOWHERE, "" if deepest is None else name_of(deepest)


def _chain(link: Any) -> Iterator[_Link]:
    """Each suspended frame from the task's outermost coroutine inwards, and last what has none, by their names."""
    for _ in range(MOST_LINKS):
        if type(link).__name__ in _BRIDGES:
            link = _behind(link, *_KINDS)
        frame, awaited = _frame_and_awaited(link)
        if frame is None:
            if link is not None:
                yield _Link(None, "", _future_name(_behind(link, asyncio.Future) or link))
            return
        yield _Link(frame, package_of(frame), name_of(frame))
        link = awaited


def _future_name(link: Any) -> str:
    if isinstance(link, asyncio.Task):
        return f"a task: {getattr(link.get_coro(), '__qualname__', link.get_name())}"
    kind = type(link).__name__
    return _FUTURES.get(kind, kind)


def _frame_and_awaited(link: Any) -> tuple[FrameType | None, Any]:
    if isinstance(link, CoroutineType):
        return link.cr_frame, link.cr_await
    if isinstance(link, AsyncGeneratorType):
        return link.ag_frame, link.ag_await
    if isinstance(link, GeneratorType):
        return link.gi_frame, link.gi_yieldfrom
    return None, None


def _behind(link: Any, *kinds: type[Any]) -> Any:
    """What an object of the interpreter refers to that is of one of some kinds; None if it is itself."""
    if isinstance(link, kinds):
        return None
    return next((found for found in gc.get_referents(link) if isinstance(found, kinds)), None)


def package_of(frame: FrameType) -> str:
    """The package that a frame's code is of."""
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


def name_of(frame: FrameType) -> str:
    """``asyncio.sleep``, ``httpx.AsyncClient.get``: the package, then the function."""
    package, function = package_of(frame), frame.f_code.co_qualname.replace(".<locals>", "")
    return f"{package}.{function}" if package else function
