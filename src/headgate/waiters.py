"""How threads and tasks wait: two kinds of waiter that the gate treats alike."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from contextlib import suppress
from typing import ClassVar, Final, Protocol

from sqlalchemy.util import await_only

from headgate.queueing import Kind, Reason


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

RESERVED: Final = _Permit()
"""The same from the reserve: it is no one's but the high lane's, and never left warm."""


class _GaveUp:
    """The outcome of a waiter that was interrupted."""


GAVE_UP: Final = _GaveUp()

Outcome = Grant | Reason | _GaveUp
"""What became of a waiter: what it was granted, why it was turned away, or that it gave up by itself."""


class _Waiter:
    """What threads and tasks have in common."""

    __slots__ = ("_decided",)

    def __init__(self) -> None:
        self._decided: dict[int, tuple[Outcome]] = {}

    def decide(self, outcome: Outcome) -> bool:
        """True for whoever comes first: the gate with its grant, a refusal, or the waiter that gives up."""
        mine = (outcome,)
        return self._decided.setdefault(0, mine) is mine  # one step of the interpreter: a finalizer may be here

    @property
    def outcome(self) -> Outcome | None:
        """What became of it; None while it waits."""
        decided = self._decided.get(0)
        return None if decided is None else decided[0]

    def refuse(self, reason: Reason) -> bool:
        """Turn it away; False if something else has become of it."""
        if not self.decide(reason):
            return False
        self.wake()
        return True

    def wake(self) -> bool:
        """Tell it that something has become of it; False if it can no longer be told."""
        raise NotImplementedError


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
        """Tell it that something has become of it, which a thread always can be."""
        with suppress(RuntimeError):  # it has been told already
            self._asleep.release()
        return True

    def wait(self, seconds: float) -> None:
        """Wait until woken, but no longer."""
        self._asleep.acquire(timeout=min(seconds, threading.TIMEOUT_MAX))

    def rearm(self) -> None:
        """Make ready to wait once more."""


class TaskWaiter(_Waiter):
    """A task that waits for a permit."""

    __slots__ = ("future", "loop")
    kind: ClassVar[Kind] = "async"

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[None] = self.loop.create_future()

    def wake(self) -> bool:
        """Tell it that something has become of it; False if it can no longer be told."""
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

    async def wait(self, seconds: float) -> None:
        """Wait until woken, but no longer."""
        timer = self.loop.call_later(seconds, self.resolve)
        try:
            await self.future
        finally:
            timer.cancel()

    def rearm(self) -> None:
        """Make ready to wait once more."""
        self.future = self.loop.create_future()


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
            if not turn.done():  # nobody will wait for it, so nobody may be handed the lock with it
                self._waiting.remove(turn)
            elif not turn.cancelled():
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
