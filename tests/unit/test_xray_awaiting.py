"""What a suspended task waits for, and what a thread does."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import anyio.to_thread
import pytest

from headgate.xray.awaiting import what_awaits, what_runs
from headgate.xray.observation import A_THREAD, NOWHERE, RUNS, THE_DATABASE, Site


async def look_at(work: Callable[[], Awaitable[Any]]) -> tuple[Site, str]:
    """What a task that does some work waits for once it does."""
    task = asyncio.ensure_future(work())
    for _ in range(5):
        await asyncio.sleep(0)
    found = what_awaits(task)  # type: ignore[arg-type]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return found


async def sleep() -> None:
    await asyncio.sleep(60)


async def sleep_deeper() -> None:
    await sleep()


async def gather() -> None:
    await asyncio.gather(sleep(), sleep())


async def wait_for_event() -> None:
    await asyncio.Event().wait()


async def numbers() -> AsyncIterator[int]:
    await asyncio.sleep(60)
    yield 1


async def iterate() -> None:
    async for _ in numbers():
        pass


@asynccontextmanager
async def managed() -> AsyncIterator[None]:
    await asyncio.sleep(60)
    yield


async def enter() -> None:
    async with managed():
        pass


async def await_a_task() -> None:
    await asyncio.ensure_future(sleep())


class Awaited:
    def __await__(self) -> Iterator[Any]:
        yield from asyncio.sleep(60).__await__()


async def await_an_object() -> None:
    await Awaited()


@pytest.mark.parametrize(
    ("work", "function", "what"),
    [
        (sleep, "sleep", "asyncio.sleep"),
        (sleep_deeper, "sleep", "asyncio.sleep"),
        (gather, "gather", "asyncio.gather"),
        (wait_for_event, "wait_for_event", "asyncio.Event.wait"),
        (iterate, "numbers", "asyncio.sleep"),
        (enter, "managed", "asyncio.sleep"),
        (await_a_task, "await_a_task", "a task: sleep"),
        (await_an_object, "Awaited.__await__", "asyncio.sleep"),
    ],
)
async def test_the_deepest_line_of_the_applications(
    work: Callable[[], Awaitable[Any]], function: str, what: str
) -> None:
    site, awaited = await look_at(work)
    assert (site.function, awaited) == (function, what)
    assert site.file == __file__


def library(module: str, source: str) -> dict[str, Any]:
    """Functions as if an installed package had them."""
    names: dict[str, Any] = {"__name__": module, "asyncio": asyncio}
    exec(compile(source, f"/usr/lib/site-packages/{module.replace('.', '/')}.py", "exec"), names)
    return names


DRIVER = library("asyncpg.cursor", "async def fetch():\n    await asyncio.sleep(60)\n")
FRAMEWORK = library(
    "uvicorn.server",
    "async def run_asgi():\n    await drain()\nasync def drain():\n    await asyncio.sleep(60)\n",
)


async def fetch_rows() -> None:
    await DRIVER["fetch"]()


async def test_a_driver_is_the_database() -> None:
    site, awaited = await look_at(fetch_rows)
    assert (site.function, awaited) == ("fetch_rows", THE_DATABASE)


async def test_without_a_line_of_the_applications_the_deepest_library_is_named() -> None:
    assert await look_at(FRAMEWORK["run_asgi"]) == (NOWHERE, "uvicorn.drain")


async def test_a_wait_for_a_thread_is_named_as_one() -> None:
    run = library(
        "starlette.concurrency",
        "import anyio.to_thread\nasync def run(event):\n    await anyio.to_thread.run_sync(event.wait)\n",
    )["run"]
    event = threading.Event()

    async def release(work: Callable[[], Awaitable[Any]]) -> tuple[Site, str]:
        task = asyncio.ensure_future(work())
        await asyncio.sleep(0.01)
        found = what_awaits(task)  # type: ignore[arg-type]
        event.set()
        await task
        return found

    assert await release(lambda: run(event)) == (NOWHERE, A_THREAD)


async def test_a_task_that_has_not_begun_runs() -> None:
    task = asyncio.create_task(sleep())
    site, awaited = what_awaits(task)
    assert (site.function, awaited) == ("sleep", RUNS)
    task.cancel()


def test_what_a_thread_runs() -> None:
    begun, done = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        done.wait(10)

    thread = threading.Thread(target=work)
    thread.start()
    begun.wait(10)
    try:
        site, called = what_runs(thread.ident or 0)
        for _ in range(1_000):
            if called != RUNS:
                break
            site, called = what_runs(thread.ident or 0)
    finally:
        done.set()
        thread.join()
    assert site.function.endswith("<locals>.work")
    assert called == "threading.Event.wait"
    assert what_runs(thread.ident or 0)[0] == NOWHERE


def test_anyio_still_calls_it_by_that_name() -> None:
    import anyio._backends._asyncio as backend

    assert "run_sync_in_worker_thread" in vars(backend.AsyncIOBackend)
    assert anyio.to_thread.run_sync
