"""Runs a coroutine as ``await`` does, and looks at each of its suspensions while it holds a connection.

Whether a connection is held across a foreign await is a matter of structure: the holding task gives up the event loop,
no statement runs on its connection until it goes on, and what it waits for is not the database's. No clock is asked.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from types import coroutine as awaitable
from typing import Any, Final, TypeVar

from headgate.ledger import current_ledger
from headgate.xray.foreign import Foreign, foreign_await
from headgate.xray.live import LiveHold, LiveRequest

log = logging.getLogger("headgate.xray")

Value = TypeVar("Value")

LEASES: Final = frozenset({"LeasePool", "AsyncLeasePool"})
"""Pools whose statements are not noted in the hold."""


class Drive:
    """One coroutine that is driven: a test's, or a request's below its app's middleware.

    :param report: told of every hold across a foreign await.
    :ivar holds: the connections it or its children have acquired and not given back, by the pool's entry.
    :ivar is_request: it is a request's.
    """

    def __init__(
        self,
        coroutine: Coroutine[Any, Any, Any],
        report: Callable[[Drive, LiveHold, Foreign], None],
        name: Callable[[], str] | None = None,
    ) -> None:
        self.coroutine = coroutine
        self.holds: dict[int, LiveHold] = {}
        self.task = asyncio.current_task()
        self.is_request = name is not None
        self._name = name
        self._report = report
        self._inner_begun = 0
        self._inner_running = 0
        self._before: tuple[list[tuple[LiveHold, int]], int, int] | None = None

    @property
    def name(self) -> str:
        """The request, as ``GET /items/{id}``; '' for a test's own code."""
        return "" if self._name is None else self._name()

    @contextmanager
    def within(self, outer: Drive | None) -> Iterator[None]:
        """Be the current one; what the outer one holds meanwhile, such as a test while the app answers, is its own."""
        token = current_drive.set(self)
        if outer is not None:
            outer.begin_inner()
        try:
            yield
        finally:
            if outer is not None:
                outer.end_inner()
            with suppress(ValueError):  # it is closed from outside of its task, by the garbage collector
                current_drive.reset(token)

    def begin_inner(self) -> None:
        """Something that answers for itself begins."""
        self._inner_begun += 1
        self._inner_running += 1

    def end_inner(self) -> None:
        """It has ended."""
        self._inner_running -= 1

    def suspended(self) -> None:
        """It has given up the loop."""
        if not self.holds:
            self._before = None
            return
        idle = [(hold, hold.busy_ns) for hold in list(self.holds.values()) if self._is_idle(hold)]
        self._before = (idle, self._inner_begun, _count_statements()) if idle else None

    def resumed(self, future: object) -> None:
        """It is about to go on, having waited for a future."""
        if self._before is None:
            return
        try:
            self._judge(*self._before, future)
        except Exception:
            log.exception("a suspension could not be judged")

    def _is_idle(self, hold: LiveHold) -> bool:
        # What another task has acquired and is still about is that one's.
        is_own = hold.task is None or hold.task is self.task or hold.task.done()
        return is_own and not hold.busy_since_ns

    def _judge(self, idle: list[tuple[LiveHold, int]], inner_begun: int, statements: int, future: object) -> None:
        if self._inner_running or self._inner_begun != inner_begun:
            return
        has_sent = _count_statements() != statements
        stayed_idle = [hold for hold, busy_ns in idle if _stayed_idle(hold, busy_ns, has_sent=has_sent)]
        found = foreign_await(self.coroutine, future) if stayed_idle else None
        if found is not None:
            for hold in stayed_idle:
                self._report(self, hold, found)


def _stayed_idle(hold: LiveHold, busy_ns: int, *, has_sent: bool) -> bool:
    """Whether it is held still, and nobody has used it meanwhile: ``wait_for`` may run what it is given in a task."""
    if hold.pool.kind in LEASES and has_sent:
        return False
    return not hold.ended_ns and not hold.busy_since_ns and hold.busy_ns == busy_ns


def _count_statements() -> int:
    ledger = current_ledger.get()
    return len(ledger.statements) if isinstance(ledger, LiveRequest) else 0


current_drive: Final[ContextVar[Drive | None]] = ContextVar("headgate_drive", default=None)
"""The innermost; child tasks and worker threads have their parent's."""


@awaitable
def drive(coroutine: Coroutine[Any, Any, Value], one: Drive) -> Generator[Any, Any, Value]:
    """Await a coroutine, and tell of its suspensions.

    Whatever is sent, thrown in or closed passes through as by ``yield from`` (PEP 380).
    """
    __tracebackhide__ = True
    step: Callable[[Any], Any] = coroutine.send
    argument: Any = None
    try:
        while True:
            try:
                future = step(argument)
            except StopIteration as stop:
                return stop.value  # type: ignore[no-any-return]
            one.suspended()
            try:
                step, argument = coroutine.send, (yield future)
            except GeneratorExit as error:  # left at once, that what is raised by closing has nothing before it
                step, argument = functools.partial(_close, coroutine), error
                continue
            except BaseException as error:
                step, argument = coroutine.throw, _as_it_came(error)
            one.resumed(future)
    finally:
        argument = None  # an error that was thrown in keeps this frame, which would keep the error


def _close(coroutine: Coroutine[Any, Any, Any], error: GeneratorExit) -> None:
    coroutine.close()
    raise error


def _as_it_came(error: BaseException) -> BaseException:
    """An error without the entry that its way through the driving frame has left in its traceback."""
    traceback = error.__traceback__
    return error.with_traceback(None if traceback is None else traceback.tb_next)
