"""Who may hold a connection, who waits, who is turned away; threads and tasks in one queue.

Everything is decided under one lock and waited for outside it. A released permit goes straight to a waiter:
nobody can overtake, and a waiter that was cancelled at that very moment passes it on. A *warm* lease, left with its
holder between two statements, belongs to the gate: whoever waits gets it, and its holder finds out later.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final, NamedTuple

from headgate.config import Clock, GateOptions
from headgate.errors import LeaseError, Overloaded
from headgate.queueing import OTHER, Kind, WaitingLine, retry_after_s, smooth
from headgate.waiters import PERMIT, Grant, TaskWaiter, ThreadWaiter, running_loop

SWITCH_INTERVAL_NS: Final = 20_000_000
"""While both kinds wait, a connection of one is replaced by one of the other that often at most."""


@dataclass(frozen=True, slots=True)
class GateStatistics:
    """A snapshot of the gate; times in nanoseconds, counters since the start.

    Of the ``connections`` of the budget ``in_use`` run a statement or are pinned, ``warm`` are left with their
    holders between two statements, ``idle`` are open and nobody's.
    """

    connections: int
    in_use: int
    warm: int
    idle: int
    pending: int
    oldest_wait_ns: int
    acquired: int
    waited: int
    wait_time_ns: int
    mean_use_ns: int
    revoked: int
    shed: dict[str, int]
    dropped: dict[str, int]


class _ReturnedPermit(NamedTuple):
    kind: Kind
    use_ns: int


class _Abandoned(NamedTuple):
    waiter: ThreadWaiter | TaskWaiter


class _GateLock:
    """The gate's lock; leaving it passes on what a finalizer gave back in the meantime.

    A finalizer can run anywhere, also in a thread that holds this very lock, so it must not wait for it.
    """

    __slots__ = ("_pass_on", "_returned", "raw")

    def __init__(self, returned: Collection[object], pass_on: Callable[[], None]) -> None:
        self.raw = threading.Lock()
        self._returned = returned
        self._pass_on = pass_on

    def __enter__(self) -> None:
        self.raw.acquire()

    def __exit__(self, *exc: object) -> None:
        self.raw.release()
        if self._returned:
            self.drain()

    def drain(self) -> None:
        # Whoever fails to get the lock here can rely on its owner to come by after releasing it.
        while self._returned and self.raw.acquire(blocking=False):
            try:
                self._pass_on()
            finally:
                self.raw.release()


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
        self._options = options
        self._acquired = 0
        self._waited = 0
        self._wait_time_ns = 0
        self._mean_use_ns = 0.0
        self._revoked = 0
        self._shed: Counter[str] = Counter()
        self._dropped: Counter[str] = Counter()
        self.start_anew()

    def start_anew(self) -> None:
        """Forget who holds and who waits: in a forked child those are the parent's."""
        self._line: WaitingLine[ThreadWaiter | TaskWaiter] = WaitingLine(
            max_pending=self._options.max_pending, max_wait_ns=round(self._options.max_wait * 1e9)
        )
        # What has been given back and not dealt with yet: a permit, a waiter's turn, or None for a place.
        self._returned: deque[_ReturnedPermit | _Abandoned | None] = deque()
        self._lock = _GateLock(self._returned, self._pass_on_returned)
        # Changed without the lock too, by single steps of the interpreter: whoever pops a lease has it.
        self._warm: dict[Kind, OrderedDict[Grant, None]] = {"sync": OrderedDict(), "async": OrderedDict()}
        self._permits = 0
        self._places = 0
        self._switched_ns = -SWITCH_INTERVAL_NS

    # permits

    def acquire_nowait(self, kind: Kind = "sync") -> Grant | None:
        """Take a permit if one is free, or a warm lease if there is one; None if neither is. Never waits."""
        with self._lock.raw:  # past the lock's own Python: this is done once a session
            grant = self._take(kind)
        if self._returned:
            self._lock.drain()
        return grant

    def acquire(self) -> Grant:
        """Take a permit, waiting in this thread if need be.

        :returns: ``PERMIT``, or a warm lease that was revoked: the caller now owns it and the permit in it.
        :raises Overloaded: no permit within ``max_wait``, or too many are waiting already.
        :raises LeaseError: it would have to wait on a thread that runs an event loop.
        """
        grant = self.acquire_nowait("sync")
        if grant is not None:
            return grant
        if running_loop() is not None:
            raise LeaseError(self._message_blocked_loop())
        waiter = ThreadWaiter()
        try:
            deadline_ns = self._join(waiter)
            waiter.wait(max(0.0, (deadline_ns - self.clock()) / 1e9))
        except BaseException:
            self._abandon(waiter)
            raise
        return self._settle(waiter)

    async def acquire_async(self) -> Grant:
        """Take a permit, waiting in this task if need be; returns as ``acquire`` does.

        :raises Overloaded: no permit within ``max_wait``, or too many are waiting already.
        """
        grant = self.acquire_nowait("async")
        if grant is not None:
            return grant
        waiter = TaskWaiter()
        try:
            deadline_ns = self._join(waiter)
            timer = waiter.loop.call_later(max(0.0, (deadline_ns - self.clock()) / 1e9), waiter.resolve)
            try:
                await waiter.future
            finally:
                timer.cancel()
        except BaseException:
            self._abandon(waiter)
            raise
        return self._settle(waiter)

    def release(self, use_ns: int = 0, kind: Kind = "sync") -> None:
        """Give a permit back after ``use_ns`` of use; a waiter has it at once, one of this ``kind`` if possible.

        Safe from anywhere, a finalizer that interrupts the gate itself included: what cannot be passed on now
        is passed on by whoever holds the lock.
        """
        if self._returned or self._line or not self._release_at_once(use_ns):
            self._returned.append(_ReturnedPermit(kind, use_ns))
        if self._returned:
            self._lock.drain()

    def _release_at_once(self, use_ns: int) -> bool:
        """Where nobody waits, which is the rule: one step instead of a queue for one."""
        if not self._lock.raw.acquire(blocking=False):
            return False
        try:
            if self._line:
                return False
            self._permits -= 1
            if use_ns:
                self._mean_use_ns = smooth(self._mean_use_ns, use_ns)
            return True
        finally:
            self._lock.raw.release()

    def _take(self, kind: Kind) -> Grant | None:
        if self._returned:
            self._pass_on_returned()
        if self._line:
            self._pass_on_warm()
            if self._line:  # whoever comes now waits behind them, whatever is left warm this very moment
                return None
        if self._permits < self.connections:
            self._permits += 1
            self._acquired += 1
            return PERMIT
        lease = self._revoke(kind) or self._revoke(OTHER[kind])
        self._acquired += lease is not None
        return lease

    def _join(self, waiter: ThreadWaiter | TaskWaiter) -> int:
        """Put a waiter in the line and return its deadline.

        :raises Overloaded: the line is full.
        """
        with self._lock:
            deadline_ns = self._line.join(waiter, waiter.kind, self.clock())
            if deadline_ns is None:
                self._shed["full"] += 1
            else:
                # Looked at after joining: what came back before was not passed on to a waiter nobody knew of.
                self._pass_on_returned()
                self._pass_on_free()
                self._pass_on_warm()
        if deadline_ns is None:
            raise self._refusal("full", 0)
        return deadline_ns

    def _settle(self, waiter: ThreadWaiter | TaskWaiter) -> Grant:
        """The wait is over: the waiter either has a grant or is dropped."""
        with self._lock:
            self._pass_on_returned()
            if waiter.grant is not None:
                return waiter.grant
            self._line.leave(waiter)
            self._dropped["deadline"] += 1
        raise self._refusal("deadline", self._line.max_wait_ns)

    def _abandon(self, waiter: ThreadWaiter | TaskWaiter) -> None:
        """The waiter was interrupted; what it was granted in that very moment is passed on, not swallowed.

        A task that is collected while it waits ends here too, in a finalizer: so this takes no lock it might hold.
        """
        if waiter.close():
            self._returned.append(_Abandoned(waiter))
            self._lock.drain()
        elif waiter.grant is PERMIT:
            self.release(kind=waiter.kind)
        elif waiter.grant is not None:
            waiter.grant.give_back()

    # passing on: all of it under the lock

    def _pass_on_returned(self) -> None:
        while self._returned:
            returned = self._returned.popleft()
            if returned is None:
                self._places -= 1
            elif isinstance(returned, _Abandoned):
                self._line.leave(returned.waiter)
            else:
                if returned.use_ns:
                    self._mean_use_ns = smooth(self._mean_use_ns, returned.use_ns)
                self._pass_on_permit(returned.kind)

    def _pass_on_permit(self, kind: Kind) -> None:
        if not self._hand_over(PERMIT, kind):
            self._permits -= 1

    def _pass_on_free(self) -> None:
        while self._line and self._permits < self.connections:
            self._permits += 1
            if not self._hand_over(PERMIT, self._line.longest_waiting()):
                self._permits -= 1

    def _pass_on_warm(self) -> None:
        while self._line:
            kind = self._line.longest_waiting()
            lease = self._revoke(kind) or self._revoke(OTHER[kind])
            if lease is None:
                return
            if not self._hand_over(lease, lease.kind):
                self._warm[lease.kind][lease] = None

    def _hand_over(self, grant: Grant, kind: Kind) -> bool:
        """Give a permit, and the connection of ``kind`` behind it, to a waiter that can still be told."""
        if not self._line:
            return False
        now_ns = self.clock()
        while (chosen := self._line.next_kind(kind, now_ns, may_switch=self._may_switch(now_ns))) is not None:
            waiter, joined_ns = self._line.next(chosen, now_ns)
            if not waiter.wake():
                continue
            waiter.grant = grant  # before it is closed: a waiter that gives up then finds what it has to pass on
            if not waiter.close():
                continue
            if chosen != kind:
                self._switched_ns = now_ns
            self._acquired += 1
            self._waited += 1
            self._wait_time_ns += now_ns - joined_ns
            return True
        return False

    def _may_switch(self, now_ns: int) -> bool:
        return now_ns - self._switched_ns >= SWITCH_INTERVAL_NS

    @property
    def is_half_used(self) -> bool:
        """True if half of the budget or more is taken, warm leases included."""
        return self._permits * 2 >= self.connections

    # warm leases

    def rest(self, lease: Grant, kind: Kind, use_ns: int = 0) -> None:
        """Leave a lease with its holder after ``use_ns`` of use; from now on it belongs to whoever waits."""
        self._warm[kind][lease] = None
        # In this order: a waiter joins first and then looks for warm leases, so one of the two sees the other.
        if self._line:
            with self._lock:
                self._mean_use_ns = smooth(self._mean_use_ns, use_ns)
                self._pass_on_warm()

    def resume(self, lease: Grant, kind: Kind) -> bool:
        """Take one's own warm lease back; False if it has been revoked. Safe from a finalizer."""
        return self._warm[kind].pop(lease, _GONE) is not _GONE

    def is_warm(self, lease: Grant, kind: Kind) -> bool:
        """True while a lease is left with its holder."""
        return lease in self._warm[kind]

    def _revoke(self, kind: Kind) -> Grant | None:
        try:
            lease, _ = self._warm[kind].popitem(last=False)
        except KeyError:
            return None
        self._revoked += 1
        return lease

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
            warm = min(self._permits, sum(map(len, self._warm.values())))
            return GateStatistics(
                connections=self.connections,
                in_use=self._permits - warm,
                warm=warm,
                idle=max(0, self._places - self._permits),
                pending=len(self._line),
                oldest_wait_ns=self._line.oldest_wait_ns(self.clock()),
                acquired=self._acquired,
                waited=self._waited,
                wait_time_ns=self._wait_time_ns,
                mean_use_ns=round(self._mean_use_ns),
                revoked=self._revoked,
                shed=dict(self._shed),
                dropped=dict(self._dropped),
            )

    def __repr__(self) -> str:
        return f"<Gate {self.name!r} {self._state(self.statistics())}>"

    def _state(self, now: GateStatistics) -> str:
        return (
            f"in use {now.in_use} of {now.connections}, warm {now.warm}, idle {now.idle}, pending {now.pending}, "
            f"oldest wait {now.oldest_wait_ns / 1e6:.0f} ms"
        )

    def _refusal(self, reason: str, waited_ns: int) -> Overloaded:
        now = self.statistics()
        facts = {
            "full": f"{now.pending} callers already wait for a connection (max_pending)",
            "deadline": f"no connection became free within {self._line.max_wait_ns / 1e9:.2f} s (max_wait)",
        }
        return Overloaded(
            f"database {self.name!r}: {facts[reason]}.\n"
            f"State: {self._state(now)}.\n"
            f"Held by: {self.describe_holders() or 'statements that are running now'}.\n"
            "Remedies: 1. end transactions sooner: commit before slow calls, so that the connection goes back. "
            "2. make the statements above faster. "
            "3. raise connections= if the server has room. "
            "4. raise max_wait= or max_pending= if callers can wait longer.",
            database=self.name,
            reason=reason,
            retry_after_s=retry_after_s(
                pending=now.pending,
                connections=self.connections,
                mean_use_ns=now.mean_use_ns,
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


_GONE = object()
