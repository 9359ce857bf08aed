"""Interrupt a coroutine at each point where it waits, in turn.

A point is one suspension of the task: whatever the coroutine awaits, down to the driver, gives a future to the event
loop there. *Early* cancels while the future is open; *late* when it is done, but before the task has gone on, so that
what was awaited has happened and nobody hears of it; *insistent* at this point and every one after it, as anyio's
cancel scopes do until the task has left them.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Coroutine, Generator
from dataclasses import dataclass, field
from typing import Any, Literal

Manner = Literal["early", "late", "insistent"]
MANNERS: tuple[Manner, ...] = ("early", "late", "insistent")


@dataclass(slots=True)
class Points:
    """Awaits a coroutine and counts the points; cancels the task at number ``at``.

    :ivar places: for each point the innermost function that waited there.
    """

    coroutine: Coroutine[Any, Any, Any]
    at: int | None = None
    manner: Manner = "early"
    places: list[str] = field(default_factory=list)

    def __await__(self) -> Generator[Any, Any, Any]:
        """Step the coroutine by hand."""
        step = self.coroutine.send
        value: Any = None
        while True:
            try:
                future = step(value)
            except StopIteration as end:
                return end.value
            self._passed(future)
            try:
                value = yield future
                step = self.coroutine.send
            except BaseException as error:
                value = error
                step = self.coroutine.throw

    def _passed(self, future: Any) -> None:
        self.places.append(_innermost(self.coroutine))
        number = len(self.places)
        if self.at is None or not (number == self.at or (self.manner == "insistent" and number > self.at)):
            return
        task = asyncio.current_task()
        assert task is not None
        if self.manner == "late" and future is not None:
            future.add_done_callback(lambda _: task.cancel())
        else:
            task.cancel()


def _innermost(coroutine: Any) -> str:
    name = "?"
    while coroutine is not None:
        code = getattr(coroutine, "cr_code", None) or getattr(coroutine, "gi_code", None)
        if code is not None:
            name = code.co_qualname
        coroutine = getattr(coroutine, "cr_await", None) or (
            coroutine.gi_yieldfrom if isinstance(coroutine, types.GeneratorType) else None
        )
    return name


async def settle(seconds: float = 3.0) -> list[str]:
    """Wait until every other task of the loop has ended, shielded closes among them; gives those that have not."""
    own = asyncio.current_task()
    deadline_s = asyncio.get_running_loop().time() + seconds
    while others := [task for task in asyncio.all_tasks() if task is not own]:
        if asyncio.get_running_loop().time() > deadline_s:
            for task in others:
                task.cancel()
            return [_innermost(task.get_coro()) for task in others]
        await asyncio.sleep(0)
    return []
