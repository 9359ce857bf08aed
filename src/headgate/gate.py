"""Who may hold a connection, who waits, who is turned away; threads and tasks in one queue.

Everything is decided under one lock and waited for outside it. A released permit goes straight to the waiter
that has waited longest: nobody can overtake, and a waiter that was cancelled at that very moment passes it on.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from headgate.config import Clock, GateOptions
from headgate.errors import LeaseError, Overloaded
from headgate.queueing import WaitingLine, retry_after_s, smooth


@dataclass(frozen=True, slots=True)
class GateStatistics:
    """A snapshot of the gate; times in nanoseconds, counters since the start."""

    connections: int
    in_use: int
    idle: int
    pending: int
    oldest_wait_ns: int
    acquired: int
    waited: int
    wait_time_ns: int
    mean_use_ns: int
    shed: dict[str, int]
    dropped: dict[str, int]


class _Waiter(Protocol):
    """Somebody in the line; ``wake`` tells it that it holds a permit, False if it can no longer be told."""

    granted: bool

    def wake(self) -> bool: ...


class _ThreadWaiter:
    __slots__ = ("event", "granted")

    def __init__(self) -> None:
        self.event = threading.Event()
        self.granted = False

    def wake(self) -> bool:
        self.event.set()
        return True


class _TaskWaiter:
    __slots__ = ("future", "granted", "loop", "thread")

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[None] = self.loop.create_future()
        self.thread = threading.get_ident()
        self.granted = False

    def wake(self) -> bool:
        try:
            if self.thread == threading.get_ident():
                self._resolve()
            else:
                self.loop.call_soon_threadsafe(self._resolve)
        except RuntimeError:  # the waiter's loop has been closed: nobody is left to take the permit
            return False
        return True

    def _resolve(self) -> None:
        if not self.future.done():
            self.future.set_result(None)


class _GateLock:
    """The gate's lock; leaving it passes on what a finalizer gave back in the meantime.

    A finalizer can run anywhere, also in a thread that holds this very lock, so it must not wait for it.
    """

    __slots__ = ("_lock", "_pass_on", "_returned")

    def __init__(self, returned: deque[int | None], pass_on: Callable[[], None]) -> None:
        self._lock = threading.Lock()
        self._returned = returned
        self._pass_on = pass_on

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *exc: object) -> None:
        self._lock.release()
        self.drain()

    def drain(self) -> None:
        # Whoever fails to get the lock here can rely on its owner to come by after releasing it.
        while self._returned and self._lock.acquire(blocking=False):
            try:
                self._pass_on()
            finally:
                self._lock.release()


class Gate:
    """The budget of one database in one process.

    A *permit* is the right to hold one connection; a *place* is one connection that is really open. Both are
    bounded by ``connections``. Permits come and go with leases, places with connects and closes.
    """

    def __init__(
        self,
        options: GateOptions,
        *,
        name: str = "default",
        clock: Clock = time.monotonic_ns,
        jitter: Callable[[], float] = random.random,
        describe_holders: Callable[[], str] = str,
    ) -> None:
        self.name = name
        self.connections = options.connections
        self.clock = clock
        self.describe_holders = describe_holders
        self._jitter = jitter
        self._line: WaitingLine[_Waiter] = WaitingLine(
            max_pending=options.max_pending, max_wait_ns=round(options.max_wait * 1e9)
        )
        # What has been given back and not dealt with yet: the use time of a permit, None for a place.
        self._returned: deque[int | None] = deque()
        self._lock = _GateLock(self._returned, self._pass_on_returned)
        self._in_use = 0
        self._places = 0
        self._acquired = 0
        self._waited = 0
        self._wait_time_ns = 0
        self._mean_use_ns = 0.0
        self._shed: Counter[str] = Counter()
        self._dropped: Counter[str] = Counter()

    # permits

    def acquire_nowait(self) -> bool:
        """Take a permit if one is free and nobody waits for it; never waits."""
        with self._lock:
            return self._take_free()

    def acquire(self) -> None:
        """Take a permit, waiting in this thread if need be.

        :raises Overloaded: no permit within ``max_wait``, or too many are waiting already.
        :raises LeaseError: it would have to wait on a thread that runs an event loop.
        """
        if self.acquire_nowait():
            return
        if _runs_event_loop():
            raise LeaseError(self._message_blocked_loop())
        waiter = _ThreadWaiter()
        deadline_ns = self._join(waiter)
        if deadline_ns is None:
            return
        try:
            waiter.event.wait(max(0.0, (deadline_ns - self.clock()) / 1e9))
        except BaseException:
            self._abandon(waiter)
            raise
        self._settle(waiter)

    async def acquire_async(self) -> None:
        """Take a permit, waiting in this task if need be.

        :raises Overloaded: no permit within ``max_wait``, or too many are waiting already.
        """
        if self.acquire_nowait():
            return
        waiter = _TaskWaiter()
        deadline_ns = self._join(waiter)
        if deadline_ns is None:
            return
        timer = waiter.loop.call_later(max(0.0, (deadline_ns - self.clock()) / 1e9), waiter._resolve)
        try:
            await waiter.future
        except BaseException:
            self._abandon(waiter)
            raise
        finally:
            timer.cancel()
        self._settle(waiter)

    def release(self, use_ns: int = 0) -> None:
        """Give a permit back after ``use_ns`` of use; it goes to whoever has waited longest.

        Safe from anywhere, a finalizer that interrupts the gate itself included: what cannot be passed on now
        is passed on by whoever holds the lock.
        """
        self._returned.append(use_ns)
        self._lock.drain()

    def _take_free(self) -> bool:
        self._pass_on_returned()
        if self._in_use >= self.connections:
            return False
        self._in_use += 1
        self._acquired += 1
        return True

    def _join(self, waiter: _Waiter) -> int | None:
        """Put a waiter in the line and return its deadline; None if it was granted a permit after all."""
        with self._lock:
            if self._take_free():
                return None
            deadline_ns = self._line.join(waiter, self.clock())
            if deadline_ns is None:
                self._shed["full"] += 1
                raise self._refusal("full", 0)
        return deadline_ns

    def _settle(self, waiter: _Waiter) -> None:
        """The wait is over: the waiter either holds a permit or is dropped."""
        with self._lock:
            self._pass_on_returned()
            if waiter.granted:
                return
            self._line.leave(waiter)
            self._dropped["deadline"] += 1
            refusal = self._refusal("deadline", self._line.max_wait_ns)
        raise refusal

    def _abandon(self, waiter: _Waiter) -> None:
        """The waiter was interrupted; a permit handed over in that very moment is passed on, not swallowed."""
        with self._lock:
            self._line.leave(waiter)
            granted = waiter.granted
        if granted:
            self.release()

    def _pass_on_returned(self) -> None:
        while self._returned:
            use_ns = self._returned.popleft()
            if use_ns is None:
                self._places -= 1
                continue
            if use_ns:
                self._mean_use_ns = smooth(self._mean_use_ns, use_ns)
            if not self._hand_over():
                self._in_use -= 1

    def _hand_over(self) -> bool:
        """Give the permit to the first in line that can still be told; False if there is none."""
        while (first := self._line.next()) is not None:
            waiter, joined_ns = first
            if not waiter.wake():
                continue
            waiter.granted = True
            self._acquired += 1
            self._waited += 1
            self._wait_time_ns += self.clock() - joined_ns
            return True
        return False

    # places

    def take_place_nowait(self) -> bool:
        """Count one more open connection, if the budget allows it."""
        with self._lock:
            self._pass_on_returned()
            if self._places >= self.connections:
                return False
            self._places += 1
            return True

    def give_place(self) -> None:
        """Count one open connection less; safe from anywhere, as ``release`` is."""
        self._returned.append(None)
        self._lock.drain()

    # what people see

    def statistics(self) -> GateStatistics:
        """A frozen snapshot."""
        with self._lock:
            return self._statistics()

    def _statistics(self) -> GateStatistics:
        return GateStatistics(
            connections=self.connections,
            in_use=self._in_use,
            idle=max(0, self._places - self._in_use),
            pending=len(self._line),
            oldest_wait_ns=self._line.oldest_wait_ns(self.clock()),
            acquired=self._acquired,
            waited=self._waited,
            wait_time_ns=self._wait_time_ns,
            mean_use_ns=round(self._mean_use_ns),
            shed=dict(self._shed),
            dropped=dict(self._dropped),
        )

    def __repr__(self) -> str:
        return f"<Gate {self.name!r} {self._state(self.statistics())}>"

    def _state(self, now: GateStatistics) -> str:
        return (
            f"in use {now.in_use} of {now.connections}, idle {now.idle}, pending {now.pending}, "
            f"oldest wait {now.oldest_wait_ns / 1e6:.0f} ms"
        )

    def _refusal(self, reason: str, waited_ns: int) -> Overloaded:
        facts = {
            "full": f"{len(self._line)} callers already wait for a connection (max_pending)",
            "deadline": f"no connection became free within {self._line.max_wait_ns / 1e9:.2f} s (max_wait)",
        }
        return Overloaded(
            f"database {self.name!r}: {facts[reason]}.\n"
            f"State: {self._state(self._statistics())}.\n"
            f"Held by: {self.describe_holders() or 'statements that are running now'}.\n"
            "Remedies: 1. end transactions sooner: commit before slow calls, so that the connection goes back. "
            "2. make the statements above faster. "
            "3. raise connections= if the server has room. "
            "4. raise max_wait= or max_pending= if callers can wait longer.",
            database=self.name,
            reason=reason,
            retry_after_s=retry_after_s(
                pending=len(self._line),
                connections=self.connections,
                mean_use_ns=self._mean_use_ns,
                jitter=self._jitter(),
            ),
            waited_ns=waited_ns,
        )

    def _message_blocked_loop(self) -> str:
        return (
            f"database {self.name!r}: a sync session would have to wait for a connection on a thread that runs "
            f"an event loop, and stop every other request there.\n"
            f"State: {self._state(self.statistics())}.\n"
            f"Held by: {self.describe_holders() or 'statements that are running now'}.\n"
            "Remedies: 1. use the async session in `async def` code. "
            "2. make the endpoint a plain `def`, so that it runs in a worker thread. "
            "3. call the sync code through `await run_in_threadpool(...)`."
        )


def _runs_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
