"""What a suspended task waits for: the application's line, and the function it awaits there.

A task's coroutines hang together by what each awaits, and while it is suspended that chain can be walked from
outside at the price of a few microseconds; nothing is patched, and nothing runs in the task.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Iterator
from types import AsyncGeneratorType, CodeType, CoroutineType, FrameType, GeneratorType
from typing import Any, Final

from headgate.xray.app_code import is_app_code, site_of
from headgate.xray.observation import NOWHERE, Site

RUNS: Final = "its own code"
"""What is «awaited» by a holder that runs."""

MOST_LINKS: Final = 200
_BRIDGES: Final = ("async_generator_asend", "async_generator_athrow", "coroutine_wrapper", "anext_awaitable")
"""Objects of the interpreter that show only to the garbage collector what they await."""

DATABASE_PACKAGES: Final = ("sqlalchemy", "asyncpg", "psycopg", "aiosqlite", "headgate")


def what_awaits(task: asyncio.Task[Any]) -> tuple[Site, str]:
    """The deepest line of the application's that a suspended task is at, and what it awaits there.

    ``NOWHERE`` if none of its coroutines is the application's.
    """
    site, what = NOWHERE, ""
    for frame, name in _chain(task.get_coro()):
        if frame is not None and is_app_code(frame.f_code):
            site, what = site_of(frame), ""
        else:
            what = what or name
    return site, what or RUNS


def what_runs(thread: int) -> tuple[Site, str]:
    """The line of the application's that a thread is at, and the function it has called there."""
    frame = sys._current_frames().get(thread)
    below: FrameType | None = None
    for _ in range(MOST_LINKS):
        if frame is None:
            return NOWHERE, ""
        if is_app_code(frame.f_code):
            return site_of(frame), RUNS if below is None else _name(below.f_code, below)
        below, frame = frame, frame.f_back
    return NOWHERE, ""


def _chain(link: Any) -> Iterator[tuple[FrameType | None, str]]:
    """Each suspended frame from the task's outermost coroutine inwards, and last what has none, by their names."""
    for _ in range(MOST_LINKS):
        if type(link).__name__ in _BRIDGES:
            link = _behind(link)
        frame, awaited = _frame_and_awaited(link)
        if frame is None:
            if link is not None:
                yield None, _future_name(link)
            return
        yield frame, _name(frame.f_code, frame)
        link = awaited


def _future_name(link: Any) -> str:
    if isinstance(link, asyncio.Task):
        return f"a task: {getattr(link.get_coro(), '__qualname__', link.get_name())}"
    kind = type(link).__name__
    return {"_GatheringFuture": "asyncio.gather", "FutureIter": "a future", "Future": "a future"}.get(kind, kind)


def _frame_and_awaited(link: Any) -> tuple[FrameType | None, Any]:
    if isinstance(link, CoroutineType):
        return link.cr_frame, link.cr_await
    if isinstance(link, AsyncGeneratorType):
        return link.ag_frame, link.ag_await
    if isinstance(link, GeneratorType):
        return link.gi_frame, link.gi_yieldfrom
    return None, None


def _behind(link: Any) -> Any:
    kinds = (CoroutineType, AsyncGeneratorType, GeneratorType)
    return next((found for found in gc.get_referents(link) if isinstance(found, kinds)), None)


def _name(code: CodeType, frame: FrameType) -> str:
    """``asyncio.sleep``, ``httpx.AsyncClient.get``: the package, then the function."""
    package = frame.f_globals.get("__name__", "").partition(".")[0]
    function = code.co_qualname.replace(".<locals>", "")
    return f"{package}.{function}" if package else function
