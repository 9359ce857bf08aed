"""Who may hold a connection, who waits, who is turned away; threads and tasks in one queue.

Everything is decided under one lock and waited for outside it. A released permit goes straight to a waiter:
nobody can overtake, and a waiter that was cancelled at that very moment passes it on. A *warm* lease, left with its
holder between two statements, belongs to the gate: whoever waits gets it, and its holder finds out later.
"""

from __future__ import annotations

import random
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple, cast

from headgate.admission import ORDINARY, Admission, Ask
from headgate.config import Clock, GateOptions
from headgate.draining import Abandoned, Draining, ReturnedPermit
from headgate.errors import Overloaded
from headgate.overload import retry_after_s, smooth
from headgate.queueing import NEWCOMERS, OTHER, Joined, Kind, Rank, Reason, WaitingLine
from headgate.refusals import refuse, refuse_to_block
from headgate.tallies import GateStatistics, Tally
from headgate.turns import Turn
from headgate.waiters import GAVE_UP, PERMIT, RESERVED, Grant, TaskWaiter, ThreadWaiter, running_loop

SWITCH_INTERVAL_NS: Final = 20_000_000
"""While both kinds wait, a connection of one is replaced by one of the other that often at most."""


class EarlyRefusal(NamedTuple):
    """A refusal without the message that nobody will read: ``refusal`` makes it."""

    reason: Reason
    retry_after_s: int


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
        self._ordinary = options.connections - options.reserve
        self._max_stall_ns = round(options.max_stall * 1e9)
        self._mean_use_ns = 0.0
        self._tally = Tally()
        self.start_anew()

    def start_anew(self) -> None:
        """Forget who holds and who waits: in a forked child those are the parent's."""
        options = self._options
        self._line: WaitingLine[ThreadWaiter | TaskWaiter] = WaitingLine(
            connections=options.connections,
            max_pending=options.max_pending,
            max_wait_ns=round(options.max_wait * 1e9),
        )
        # What has been given back and not dealt with yet: a permit, a waiter's turn, or None for a place.
        self._returned: deque[ReturnedPermit | Abandoned | None] = deque()
        self._lock = threading.Lock()
        self._draining = Draining(self._lock, self._returned, self._pass_on_returned)
        # Changed without the lock too, by single steps of the interpreter: whoever pops a lease has it.
        self._warm: dict[Kind, OrderedDict[Grant, None]] = {"sync": OrderedDict(), "async": OrderedDict()}
        self._permits = 0
        self._reserve = options.reserve
        self._places = 0
        # Changed without the lock too, by single steps of the interpreter.
        self._expected: dict[Admission, int] = {}
        self._switched_ns = -SWITCH_INTERVAL_NS
        self._moved_ns = self.clock()

    # permits

    def acquire_nowait(self, kind: Kind = "sync", rank: Rank = Rank.NORMAL) -> Grant | None:
        """Take a permit if one is free, or a warm lease if there is one; None if neither is. Never waits."""
        with self._lock:
            grant = self._take(kind, rank)
        if self._returned:
            self._draining.drain()
        return grant

    def acquire(self, ask: Ask = ORDINARY) -> Grant:
        """Take a permit, waiting in this thread if need be.

        :returns: ``PERMIT`` or ``RESERVED``, or a warm lease that was revoked: the caller now owns it and the permit
            in it.
        :raises Overloaded: it is turned away, at once or after having waited.
        :raises LeaseError: it would have to wait on a thread that runs an event loop.
        """
        grant = self.acquire_nowait("sync", ask.rank)
        if grant is not None:
            return grant
        if running_loop() is not None:
            raise refuse_to_block(database=self.name, state=self.statistics(), holders=self.describe_holders())
        with self._lent_thread(ask), Turn(self, ThreadWaiter(), ask) as turn:
            while (seconds := turn.seconds_left()) is not None:
                turn.waiter.wait(seconds)
        return turn.grant

    @contextmanager
    def _lent_thread(self, ask: Ask) -> Iterator[None]:
        """Whoever holds a connection must find a thread to go on, however many wait in threads."""
        threads = ask.threads
        if threads is None:
            yield
            return
        if not threads.lend(is_bounded=ask.rank in NEWCOMERS):
            with self._draining, self._lock:
                self._tally.shed["full"] += 1
            raise self.refusal("full", ask.admission)
        try:
            yield
        finally:
            threads.take_back()

    async def acquire_async(self, ask: Ask = ORDINARY) -> Grant:
        """Take a permit, waiting in this task if need be; returns as ``acquire`` does.

        :raises Overloaded: it is turned away, at once or after having waited.
        """
        grant = self.acquire_nowait("async", ask.rank)
        if grant is not None:
            return grant
        with Turn(self, TaskWaiter(), ask) as turn:
            while (seconds := turn.seconds_left()) is not None:
                await turn.waiter.wait(seconds)
        return turn.grant

    def release(self, use_ns: int = 0, kind: Kind = "sync", *, is_reserved: bool = False) -> None:
        """Give a permit back after ``use_ns`` of use; a waiter has it at once, one of this ``kind`` if possible.

        Safe from anywhere, a finalizer that interrupts the gate itself included: what cannot be passed on now
        is passed on by whoever holds the lock.
        """
        if is_reserved or self._returned or self._line or not self._release_at_once(use_ns):
            self._returned.append(ReturnedPermit(kind, use_ns, is_reserved))
        if self._returned:
            self._draining.drain()

    def _release_at_once(self, use_ns: int) -> bool:
        """Where nobody waits, which is the rule: one step instead of a queue for one."""
        if self._lock.locked():
            return False
        with self._lock:
            if self._line:
                return False
            self._permits -= 1
            if use_ns:
                self._mean_use_ns = smooth(self._mean_use_ns, use_ns)
        return True

    def _take(self, kind: Kind, rank: Rank) -> Grant | None:
        if self._returned:
            self._pass_on_returned()
        if self._line:
            self._pass_on_warm()
        grant = self._take_ordinary(kind) if not self._line else None  # whoever comes now waits behind them
        if grant is None and rank is Rank.HIGH and self._reserve:
            self._reserve -= 1
            grant = RESERVED
        self._tally.acquired += grant is not None
        return grant

    def _take_ordinary(self, kind: Kind) -> Grant | None:
        if self._permits < self._ordinary:
            self._permits += 1
            return PERMIT
        return self._revoke(kind) or self._revoke(OTHER[kind])

    # the line: used by turns

    def join(self, turn: Turn[Any], ask: Ask) -> int:
        """Put a waiter in the line; returns when it is to be looked at again.

        :raises Overloaded: it is turned away at once.
        """
        now_ns, waiter = turn.joined_ns, turn.waiter
        with self._draining, self._lock:
            joined = self._join(waiter, ask, now_ns)
            if isinstance(joined, str):
                self._tally.shed[joined] += 1
            else:
                if joined.evicted is not None:
                    joined.evicted.refuse("overload")
                # Looked at after joining: what came back before was not passed on to a waiter nobody knew of.
                self._pass_on_returned()
                self._pass_on_free()
                self._pass_on_warm()
                self._pass_on_reserve()
        if isinstance(joined, str):
            raise self.refusal(joined, ask.admission)
        stalls_ns = now_ns + self._max_stall_ns
        if joined.deadline_ns is None:
            return stalls_ns
        return min(stalls_ns, joined.deadline_ns) if ask.is_under_way else joined.deadline_ns

    def _join(
        self, waiter: ThreadWaiter | TaskWaiter, ask: Ask, now_ns: int
    ) -> Joined[ThreadWaiter | TaskWaiter] | Reason:
        if ask.admission is not None and ask.admission.ended is not None:
            return ask.admission.ended
        deadline_ns = ask.deadline_ns
        if deadline_ns is not None and not ask.is_under_way:
            # What comes too late to be used is not worth waiting for; one long use says little of the next.
            deadline_ns -= min(round(self._mean_use_ns), max(0, deadline_ns - now_ns) // 2)
        if not self._line:
            self._moved_ns = now_ns
        return self._line.join(
            waiter,
            waiter.kind,
            now_ns,
            rank=ask.rank,
            is_under_way=ask.is_under_way,
            deadline_ns=deadline_ns,
            use_ns=self._mean_use_ns,
        )

    def settle(self, turn: Turn[Any], ask: Ask) -> int | None:
        """Nanoseconds a waiter may go on waiting; None if it has a grant.

        :raises Overloaded: it is turned away.
        """
        waiter = turn.waiter
        with self._draining, self._lock:
            self._pass_on_returned()
            now_ns, outcome = self.clock(), waiter.outcome
            if outcome is None and turn.has_waited:
                now_ns = max(now_ns, turn.until_ns)  # it has waited as long as it was told, whatever the clock says
            if outcome is None and now_ns >= turn.until_ns:
                outcome = turn.look_again(now_ns, self._moved_ns, self._max_stall_ns)
                if outcome is not None:
                    waiter.decide(outcome)
            if outcome is None:
                return turn.until_ns - now_ns
            if not isinstance(outcome, str):
                return None
            reason = outcome
            if reason == "stalled":
                self._line.overload.count_stall()
            self._line.leave(waiter, now_ns)
            self._tally.dropped[reason] += 1
            if turn.is_newcomer and reason != "overload":
                self._line.overload.count_drop()
        raise self.refusal(cast(Reason, reason), ask.admission, waited_ns=now_ns - turn.joined_ns)

    def abandon(self, waiter: ThreadWaiter | TaskWaiter) -> None:
        """The waiter was interrupted; what it was granted in that very moment is passed on, not swallowed.

        A task that is collected while it waits ends here too, in a finalizer: so this takes no lock it might hold.
        """
        waiter.decide(GAVE_UP)
        outcome = waiter.outcome
        if outcome is PERMIT or outcome is RESERVED:
            self.release(kind=waiter.kind, is_reserved=outcome is RESERVED)
        elif outcome is GAVE_UP or isinstance(outcome, str):
            self._returned.append(Abandoned(waiter))
            self._draining.drain()
        else:
            cast(Grant, outcome).give_back()

    # early refusal

    @property
    def is_overloaded(self) -> bool:
        """True while only as many newcomers may wait as are served soon."""
        if not self._line.overload.has_begun:  # without the lock: every request asks
            return False
        with self._draining, self._lock:
            return self._line.overload.is_overloaded(self.clock())

    @property
    def is_pressed(self) -> bool:
        """True while a newcomer might be turned away: somebody waits, or hardly anybody may."""
        return bool(self._line) or self.is_overloaded

    def refuse_early(self) -> EarlyRefusal | None:
        """Turn somebody away who has not begun, if it would be turned away anyway; None if it may come."""
        with self._draining, self._lock:
            now_ns = self.clock()
            expected = self._count_expected(now_ns)
            reason = self._line.would_refuse(now_ns, expected=expected, use_ns=self._mean_use_ns)
            if reason is None:
                return None
            if now_ns - self._moved_ns > self._max_stall_ns:
                reason = "stalled"
                self._line.overload.count_stall()
            self._line.overload.count_newcomer(refused=True)
            self._tally.shed[reason] += 1
        return EarlyRefusal(reason, self._retry_after_s())

    def expect(self, admission: Admission) -> None:
        """Count somebody who was let in and has not asked yet."""
        with self._draining, self._lock:
            self._expected[admission] = self.clock()

    def arrive(self, admission: Admission) -> None:
        """It has asked now, or has ended without asking."""
        self._expected.pop(admission, None)

    def _count_expected(self, now_ns: int) -> int:
        """Whoever takes long to ask does something else first, and is not expected at any moment."""
        late_ns = now_ns - self._line.overload.target_ns
        for admission, since_ns in list(self._expected.items()):
            if since_ns > late_ns:
                break
            self._expected.pop(admission, None)
        return len(self._expected)

    # passing on: all of it under the lock

    def _pass_on_returned(self) -> None:
        while self._returned:
            returned = self._returned.popleft()
            if returned is None:
                self._places -= 1
            elif isinstance(returned, Abandoned):
                self._line.leave(returned.waiter, self.clock())
            else:
                if returned.use_ns:
                    self._mean_use_ns = smooth(self._mean_use_ns, returned.use_ns)
                self._pass_on_permit(returned)

    def _pass_on_permit(self, returned: ReturnedPermit) -> None:
        self._moved_ns = self.clock()
        if returned.is_reserved:
            self._reserve += 1
            self._pass_on_reserve()
        elif not self._hand_over(PERMIT, returned.kind):
            self._permits -= 1

    def _pass_on_reserve(self) -> None:
        while self._reserve and (found := self._line.next_high()) is not None:
            self._reserve -= self._grant(RESERVED, *found, self.clock())

    def _pass_on_free(self) -> None:
        while self._line and self._permits < self._ordinary:
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
            if not self._grant(grant, *self._line.next(chosen, now_ns), now_ns):
                continue
            if chosen != kind:
                self._switched_ns = now_ns
            return True
        return False

    def _grant(self, grant: Grant, waiter: ThreadWaiter | TaskWaiter, joined_ns: int, now_ns: int) -> bool:
        """False if the waiter can no longer be told, or something else has become of it."""
        if not waiter.wake() or not waiter.decide(grant):
            return False
        self._tally.count_grant(now_ns - joined_ns)
        self._moved_ns = now_ns
        return True

    def _may_switch(self, now_ns: int) -> bool:
        return now_ns - self._switched_ns >= SWITCH_INTERVAL_NS

    @property
    def is_half_used(self) -> bool:
        """True if half of the budget or more is taken, warm leases included."""
        return self._permits * 2 >= self._ordinary

    # warm leases

    def rest(self, lease: Grant, kind: Kind, use_ns: int = 0) -> None:
        """Leave a lease with its holder after ``use_ns`` of use; from now on it belongs to whoever waits."""
        self._warm[kind][lease] = None
        # In this order: a waiter joins first and then looks for warm leases, so one of the two sees the other.
        if self._line:
            with self._draining, self._lock:
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
        self._tally.revoked += 1
        return lease

    # places

    def take_place_nowait(self) -> bool:
        """Count one more open connection, if the budget allows it."""
        with self._draining, self._lock:
            self._pass_on_returned()
            if self._places >= self.connections:
                return False
            self._places += 1
            return True

    def give_place(self) -> None:
        """Count one open connection less; safe from anywhere, as ``release`` is."""
        self._returned.append(None)
        self._draining.drain()

    # what people see

    def statistics(self) -> GateStatistics:
        """A frozen snapshot."""
        with self._draining, self._lock:
            warm = min(self._permits, sum(map(len, self._warm.values())))
            held = self._permits + self._options.reserve - self._reserve
            now_ns = self.clock()
            tally = self._tally
            return GateStatistics(
                connections=self.connections,
                in_use=held - warm,
                warm=warm,
                idle=max(0, self._places - held),
                pending=len(self._line),
                oldest_wait_ns=self._line.oldest_wait_ns(now_ns),
                acquired=tally.acquired,
                waited=tally.waited,
                wait_time_ns=tally.wait_time_ns,
                waits=tally.waits(),
                mean_use_ns=round(self._mean_use_ns),
                revoked=tally.revoked,
                shed=dict(tally.shed),
                dropped=dict(tally.dropped),
                overloaded=self._line.overload.is_overloaded(now_ns),
            )

    def __repr__(self) -> str:
        return f"<Gate {self.name!r} {self.statistics()}>"

    def refusal(self, reason: Reason, admission: Admission | None, *, waited_ns: int = 0) -> Overloaded:
        """The error for somebody who gets no connection."""
        return refuse(
            reason,
            database=self.name,
            state=self.statistics(),
            holders=self.describe_holders(),
            waited_ns=waited_ns,
            retry_after_s=self._retry_after_s(),
            nothing_executed=admission is not None and not admission.has_begun,
        )

    def _retry_after_s(self) -> int:
        with self._draining, self._lock:
            now_ns = self.clock()
            waiting = len(self._line) + self._line.overload.recently_refused(now_ns)
            step_ns = self._line.drain.estimated_ns(now_ns, self._mean_use_ns)
        return retry_after_s(waiting=waiting, step_ns=step_ns, jitter=self._jitter())


_GONE = object()
