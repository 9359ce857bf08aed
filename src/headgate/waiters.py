"""How threads and tasks wait: two kinds of waiter that the gate treats alike."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from typing import ClassVar, Final, Protocol

from sqlalchemy.util import await_only

from headgate.queueing import Kind


class Grant(Protocol):
    """What a waiter waits for: the bare permit, or a warm lease with the permit in it."""

    @property
    def kind(self) -> Kind:
        """Who can use its connection."""
        ...

    def give_back(self) -> None:
        """Give connection and permit back, because whoever was granted them is gone."""
        ...


class _Permit:
    kind: Kind = "sync"

    def give_back(self) -> None:
        raise NotImplementedError  # the gate knows whose it was


PERMIT: Final = _Permit()
"""The right to hold a connection, without one."""


class _Waiter:
    """What threads and tasks have in common.

    :ivar grant: what it was granted; None while it waits.
    """

    __slots__ = ("_open", "grant")

    def __init__(self) -> None:
        self.grant: Grant | None = None
        self._open = [True]

    def close(self) -> bool:
        """True for whoever comes first: the gate with its grant, or the waiter that gives up."""
        try:
            return self._open.pop()  # a single step of the interpreter: no lock, because a finalizer may be here
        except IndexError:
            return False


class ThreadWaiter(_Waiter):
    """A thread that waits for a permit."""

    __slots__ = ("_asleep",)
    kind: ClassVar[Kind] = "sync"

    def __init__(self) -> None:
        super().__init__()
        # Not an Event, whose own lock a finalizer that wakes this very thread would wait for.
        self._asleep = threading.Lock()
        self._asleep.acquire()

    def wake(self) -> bool:
        """Tell it that it has a grant; False if it can no longer be told."""
        self._asleep.release()
        return True

    def wait(self, seconds: float) -> None:
        """Wait until woken, but no longer."""
        self._asleep.acquire(timeout=min(seconds, threading.TIMEOUT_MAX))


class TaskWaiter(_Waiter):
    """A task that waits for a permit."""

    __slots__ = ("future", "loop")
    kind: ClassVar[Kind] = "async"

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[None] = self.loop.create_future()

    def wake(self) -> bool:
        """Tell it that it has a grant; False if it can no longer be told."""
        try:
            if running_loop() is self.loop:
                self.resolve()
            else:
                self.loop.call_soon_threadsafe(self.resolve)
        except RuntimeError:  # the waiter's loop has been closed: nobody is left to take the permit
            return False
        return True

    def resolve(self) -> None:
        """End the wait."""
        if not self.future.done():
            self.future.set_result(None)


class TaskLock:
    """Mutual exclusion of tasks under SQLAlchemy's greenlets, without a switch when nobody else is in."""

    __slots__ = ("_held", "_waiting")

    def __init__(self) -> None:
        self._held = False
        self._waiting: deque[asyncio.Future[None]] | None = None

    def __enter__(self) -> None:
        if not self._held:
            self._held = True
            return
        if self._waiting is None:
            self._waiting = deque()
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await_only(turn)
        except BaseException:
            if turn.done() and not turn.cancelled():
                self.__exit__()
            raise

    def __exit__(self, *exc: object) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._held = False


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The event loop that runs in this thread, which waiting here would stop."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
