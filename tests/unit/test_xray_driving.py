"""A coroutine that is driven cannot tell: what is sent, thrown in and closed passes through as by ``await``."""

from __future__ import annotations

import asyncio
import sys
import traceback
import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.xray.driving import Drive, drive

Make = Callable[[], Coroutine[Any, Any, Any]]


class Looker:
    """Stands in for a Drive, whose looks are another test's."""

    def __init__(self) -> None:
        self.seen: list[object] = []

    def suspended(self) -> None:
        self.seen.append("suspended")

    def resumed(self, future: object) -> None:
        self.seen.append(future)


async def awaited(make: Make) -> Any:
    return await make()


async def driven(make: Make) -> Any:
    return await drive(make(), cast("Drive", Looker()))


@types.coroutine
def switch(value: object) -> Generator[object, object, object]:
    return (yield value)


class OddError(Exception):
    pass


MOODS = ("propagate", "swallow", "replace", "return", "swallow all")
STEPS = ("send", "throw", "cancel", "exit", "close")


async def moody(moods: list[str], log: list[object]) -> object:
    for number, mood in enumerate(moods):
        try:
            log.append(await switch(number))
        except Exception as error:
            log.append((type(error), type(error.__context__)))
            if mood == "propagate":
                raise
            if mood == "replace":
                raise OddError(number) from error
            if mood == "return":
                return number
        except BaseException as error:
            log.append((type(error), type(error.__context__)))
            if mood != "swallow all":
                raise
            if isinstance(error, GeneratorExit):
                return "closed"
        finally:
            log.append(("finally", sys.exc_info()[0]))
    return "end"


def step(coroutine: Coroutine[Any, Any, Any], kind: str, number: int) -> object:
    if kind == "send":
        return coroutine.send(None if number == 0 else number)
    if kind == "close":
        return coroutine.close()
    error = {"throw": ValueError, "cancel": asyncio.CancelledError, "exit": GeneratorExit}[kind]
    return coroutine.throw(error(number))


def course(run: Callable[[Make], Coroutine[Any, Any, Any]], moods: list[str], steps: list[str]) -> list[object]:
    log: list[object] = []
    coroutine = run(lambda: moody(moods, log))
    for number, kind in enumerate(("send", *steps)):
        try:
            log.append(step(coroutine, kind, number))
        except StopIteration as stop:
            log.append(("returned", stop.value))
        except BaseException as error:
            log.append((type(error), str(error), type(error.__cause__), type(error.__context__)))
    log.append(coroutine.cr_frame is None)
    coroutine.close()
    return log


@given(st.lists(st.sampled_from(MOODS), max_size=4), st.lists(st.sampled_from(STEPS), max_size=6))
def test_no_coroutine_can_tell_the_difference(moods: list[str], steps: list[str]) -> None:
    assert course(driven, moods, steps) == course(awaited, moods, steps)


@pytest.mark.parametrize("run", [awaited, driven])
def test_what_ignores_its_being_closed_says_so(run: Callable[[Make], Coroutine[Any, Any, Any]]) -> None:
    async def ignore() -> None:
        try:
            await switch(1)
        except GeneratorExit:
            await switch(2)

    coroutine = run(ignore)
    coroutine.send(None)
    with pytest.raises(RuntimeError, match="ignored GeneratorExit"):
        coroutine.close()


def frames_of(run: Callable[[Make], Coroutine[Any, Any, Any]]) -> list[str]:
    async def fail() -> None:
        await switch(1)

    coroutine = run(fail)
    coroutine.send(None)
    with pytest.raises(OddError) as found:
        coroutine.throw(OddError())
    return [entry.name for entry in traceback.extract_tb(found.value.__traceback__)[1:]]


def test_a_traceback_has_one_entry_more_which_pytest_hides() -> None:
    assert frames_of(driven) == ["driven", "drive", "fail", "switch"]
    assert frames_of(awaited) == ["awaited", "fail", "switch"]


def test_each_suspension_is_told_with_what_was_waited_for() -> None:
    looker = Looker()

    async def work() -> str:
        await switch("first")
        await switch("second")
        return "done"

    async def main() -> str:
        return await drive(work(), cast("Drive", looker))

    coroutine = main()
    assert [coroutine.send(None), coroutine.send(None)] == ["first", "second"]
    with pytest.raises(StopIteration, match="done"):
        coroutine.send(None)
    assert looker.seen == ["suspended", "first", "suspended", "second"]


async def test_a_cancelled_task_ends_cancelled_and_its_cleaning_up_is_awaited() -> None:
    cleaned: list[str] = []

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)
            cleaned.append("yes")

    task = asyncio.create_task(driven(work))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()
    assert cleaned == ["yes"]


async def test_a_time_limit_inside_and_outside() -> None:
    async def work() -> str:
        try:
            async with asyncio.timeout(0):
                await asyncio.sleep(60)
        except TimeoutError:
            return "in time"
        return "never"

    assert await driven(work) == "in time"
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await driven(lambda: asyncio.sleep(60))


async def test_context_variables_set_inside_stay_set_as_with_await() -> None:
    import contextvars

    variable = contextvars.ContextVar("variable", default=0)

    async def work() -> None:
        variable.set(1)

    await driven(work)
    assert variable.get() == 1


async def test_async_generators_inside_are_thrown_into_and_closed() -> None:
    log: list[str] = []

    async def numbers() -> Any:
        try:
            while True:
                await asyncio.sleep(0)
                yield 1
        except ValueError:
            log.append("thrown")
            yield 2
        finally:
            await asyncio.sleep(0)
            log.append("closed")

    async def work() -> tuple[int, int]:
        generator = numbers()
        first = await anext(generator)
        second = await generator.athrow(ValueError())
        await generator.aclose()
        return first, second

    assert await driven(work) == (1, 2)
    assert log == ["thrown", "closed"]
