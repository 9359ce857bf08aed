from __future__ import annotations

import asyncio
import sys
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from typing import ClassVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from headgate.admission import Admission, Ask
from headgate.config import GateOptions
from headgate.errors import Overloaded
from headgate.gate import Gate
from headgate.queueing import NEWCOMERS, Kind, Rank
from headgate.turns import Turn
from headgate.waiters import RESERVED, Grant, ThreadWaiter

from .gate_fakes import (
    FOREVER,
    KINDS,
    MS,
    WAITERS,
    DeafWaiter,
    FakeClock,
    FakeLease,
    grant_of,
    interrupt,
    join,
    make_gate,
    time_out,
)


class Machine(RuleBasedStateMachine):
    """Holders, waiters and finalizers of both kinds in any order; tasks are real, threads take their steps by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.clock = FakeClock()
        self.held: list[FakeLease] = []
        self.warm: list[FakeLease] = []
        self.leases: list[FakeLease] = []
        self.ends: Counter[FakeLease] = Counter()
        self.tasks: list[asyncio.Task[Grant]] = []
        self.threads: list[Turn[ThreadWaiter]] = []
        self.requests: list[Admission] = []
        self.places = 0

    @initialize(
        ordinary=st.integers(1, 3),
        reserve=st.integers(0, 2),
        max_pending=st.integers(0, 5),
        max_wait=st.sampled_from([FOREVER, 0.1]),
    )
    def open(self, ordinary: int, reserve: int, max_pending: int, max_wait: float) -> None:
        self.ordinary, self.reserve = ordinary, reserve
        self.gate = make_gate(
            ordinary + reserve, reserve=reserve, max_pending=max_pending, max_wait=max_wait, clock=self.clock
        )

    def got(self, grant: Grant, kind: Kind) -> None:
        if isinstance(grant, FakeLease):
            self.ends[grant] += 1
        self.held.append(FakeLease(self.gate, kind, is_reserved=grant is RESERVED))
        self.leases.append(self.held[-1])

    def end(self, lease: FakeLease) -> None:
        self.ends[lease] += 1
        self.gate.release(1, lease.kind, is_reserved=lease.is_reserved)

    # coming, waiting, giving up

    def request(self, rank: Rank) -> Ask:
        self.requests.append(Admission(self.clock.now_ns, rank))
        return Ask(rank, self.requests[-1])

    @rule(rank=st.sampled_from(Rank))
    def start_task(self, rank: Rank) -> None:
        self.tasks.append(self.loop.create_task(self.gate.acquire_async(self.request(rank))))
        self.run_loop(1)

    @rule(kind=st.sampled_from(KINDS), rank=st.sampled_from(Rank))
    def start_thread(self, kind: Kind, rank: Rank) -> None:
        grant = self.gate.acquire_nowait(kind, rank)
        if grant is not None:
            self.got(grant, kind)
        else:
            self.join(WAITERS[kind](), rank)

    @rule(rank=st.sampled_from(Rank))
    def start_deaf(self, rank: Rank) -> None:
        self.join(DeafWaiter(), rank)

    def join(self, waiter: ThreadWaiter, rank: Rank) -> None:
        is_full = self.gate.statistics().pending >= self.gate._line.max_pending
        reason, turn = self.try_to_join(waiter, rank)
        if turn is None:
            assert rank is not Rank.UNDER_WAY, "whoever is under way is never refused"
            assert reason == "full" or not is_full
            assert reason != "overload" or rank in NEWCOMERS
            return
        assert rank is Rank.UNDER_WAY or not is_full
        assert rank is Rank.UNDER_WAY or turn.until_ns <= self.clock.now_ns + self.gate._line.max_wait_ns
        if not isinstance(waiter, DeafWaiter):
            self.threads.append(turn)

    def try_to_join(self, waiter: ThreadWaiter, rank: Rank) -> tuple[str, Turn[ThreadWaiter] | None]:
        try:
            return "", join(self.gate, ask=self.request(rank), waiter=waiter)
        except Overloaded as error:
            return error.reason, None

    @precondition(lambda self: self.requests)
    @rule(number=st.integers(0, 9))
    def give_up_request(self, number: int) -> None:
        self.requests.pop(number % len(self.requests)).end("gone")

    @precondition(lambda self: self.tasks)
    @rule(number=st.integers(0, 9))
    def cancel_task(self, number: int) -> None:
        self.tasks[number % len(self.tasks)].cancel()

    @precondition(lambda self: self.threads)
    @rule(number=st.integers(0, 9))
    def interrupt_thread(self, number: int) -> None:
        interrupt(self.threads.pop(number % len(self.threads)))

    @precondition(lambda self: self.threads)
    @rule(number=st.integers(0, 9))
    def end_wait_of_thread(self, number: int) -> None:
        turn = self.threads.pop(number % len(self.threads))
        had = grant_of(turn)
        try:
            self.got(time_out(turn), turn.waiter.kind)
        except Overloaded:
            assert had is None

    @rule()
    def run_tasks(self) -> None:
        self.run_loop(5)
        waiting = [task for task in self.tasks if not task.done()]
        deaf = sum(isinstance(waiter, DeafWaiter) for waiter in self.gate._line._kinds)
        unserved = [turn for turn in self.threads if grant_of(turn) is None]
        gone = sum(turn.waiter.outcome == "gone" for turn in unserved)  # until they have noticed
        alive = sum(turn.waiter.outcome is None for turn in unserved) + len(waiting) + deaf
        now = self.gate.statistics()
        assert alive <= now.pending <= alive + gone, "only live waiters are counted"
        assert now.in_use == len(self.held) + len(self.threads) - len(unserved), "no permit is lost"

    def run_loop(self, turns: int) -> None:
        for _ in range(turns):
            self.loop.run_until_complete(asyncio.sleep(0))
        for task in [task for task in self.tasks if task.done()]:
            self.tasks.remove(task)
            if not task.cancelled() and not isinstance(task.exception(), Overloaded):
                self.got(task.result(), "async")

    # holding

    @precondition(lambda self: self.held)
    @rule(number=st.integers(0, 9))
    def rest(self, number: int) -> None:
        lease = self.held.pop(number % len(self.held))
        if lease.is_reserved:
            self.end(lease)
            return
        self.warm.append(lease)
        lease.rest()

    @precondition(lambda self: self.warm)
    @rule(number=st.integers(0, 9))
    def resume(self, number: int) -> None:
        lease = self.warm.pop(number % len(self.warm))
        if lease.resume():
            self.held.append(lease)

    @precondition(lambda self: self.warm)
    @rule(number=st.integers(0, 9))
    def forget_inside_the_gate(self, number: int) -> None:
        lease = self.warm.pop(number % len(self.warm))
        with self.gate._draining, self.gate._lock:
            if lease.resume():
                self.end(lease)

    @precondition(lambda self: self.held)
    @rule(number=st.integers(0, 9), inside=st.booleans())
    def release(self, number: int, inside: bool) -> None:
        lease = self.held.pop(number % len(self.held))
        with ExitStack() as stack:
            if inside:
                stack.enter_context(self.gate._draining)
                stack.enter_context(self.gate._lock)
            self.end(lease)

    @rule()
    def take_place(self) -> None:
        taken = self.gate.take_place_nowait()
        assert taken == (self.places < self.gate.connections)
        self.places += taken

    @precondition(lambda self: self.places)
    @rule()
    def give_place(self) -> None:
        self.places -= 1
        self.gate.give_place()

    @rule(ms=st.sampled_from([1, 20, 60, 400]))
    def pass_time(self, ms: int) -> None:
        self.clock.now_ns += ms * MS

    # what always holds

    @invariant()
    def permits_are_bounded_and_nobody_waits_in_vain(self) -> None:
        if not hasattr(self, "gate"):
            return
        now = self.gate.statistics()
        assert now.in_use + now.warm <= now.connections
        assert now.warm == sum(lease.is_warm for lease in self.leases)
        under_way = sum(len(ranks[Rank.UNDER_WAY]) for ranks in self.gate._line._lines.values())
        assert now.pending - under_way <= self.gate._line.max_pending
        reserved = self.reserve - self.gate._reserve
        is_used_up = now.in_use - reserved == self.ordinary
        assert not now.pending or is_used_up, "a permit is free or a lease is warm"
        assert not self.gate._reserve or all(not ranks[Rank.HIGH] for ranks in self.gate._line._lines.values())

    def teardown(self) -> None:
        while self.tasks or self.threads or self.held or self.warm:
            for task in self.tasks:
                task.cancel()
            self.run_loop(3)
            while self.threads:
                self.interrupt_thread(0)
            while self.warm:
                self.resume(0)
            while self.held:
                self.release(0, inside=False)
        self.loop.close()
        if hasattr(self, "gate"):
            now = self.gate.statistics()
            assert (now.in_use, now.warm, now.pending) == (0, 0, 0)
            assert [self.ends[lease] + lease.given_back for lease in self.leases] == [1] * len(self.leases)


TestAnyOrderOfEvents = Machine.TestCase
TestAnyOrderOfEvents.settings = settings(stateful_step_count=20)


class Connection:
    is_used = False


class CrowdLease(FakeLease):
    """A lease with a connection that notices when two use it at once."""

    connection: Connection
    shared: ClassVar[list[str]] = []

    def use(self) -> None:
        if self.connection.is_used:
            self.shared.append("two at once")
        self.connection.is_used = True
        sum(range(20))
        self.connection.is_used = False

    def go_on(self) -> None:
        """Use it as long as nobody else does, and give it back if nobody has."""
        for _ in range(3):
            if not self.resume():
                return
            self.use()
            self.rest()
        if self.resume():
            self.gate.release(1, self.kind)


class Crowd:
    """Threads and tasks at one gate."""

    def __init__(self) -> None:
        self.gate = Gate(GateOptions(connections=2, max_wait=5.0))

    def lend(self, grant: Grant, kind: Kind) -> CrowdLease:
        lease = CrowdLease(self.gate, kind)
        lease.connection = grant.connection if isinstance(grant, CrowdLease) else Connection()
        lease.use()
        lease.rest()
        return lease

    def be_a_thread(self) -> None:
        for _ in range(300):
            self.lend(self.gate.acquire(), "sync").go_on()

    def be_tasks(self) -> None:
        async def run() -> None:
            await asyncio.gather(*(self.be_a_task() for _ in range(6)))

        asyncio.run(run())

    async def be_a_task(self) -> None:
        for _ in range(100):
            lease = self.lend(await self.gate.acquire_async(), "async")
            await asyncio.sleep(0)
            lease.go_on()


def test_threads_and_tasks_in_a_crowd_never_share_a_lease_and_leave_nothing_behind() -> None:
    """Real threads, and a loop with tasks in one of them, over two connections."""
    crowd = Crowd()
    CrowdLease.shared.clear()
    run_all(crowd.be_a_thread, crowd.be_a_thread, crowd.be_a_thread, crowd.be_tasks)
    now = crowd.gate.statistics()
    assert CrowdLease.shared == []
    assert (now.in_use, now.warm, now.pending, now.shed, now.dropped) == (0, 0, 0, {}, {})


def run_all(*functions: Callable[[], object]) -> None:
    """Run each in a thread of its own, which are switched as often as can be."""
    failures: list[BaseException] = []

    def run(function: Callable[[], object]) -> None:
        try:
            function()
        except BaseException as error:
            failures.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=run, args=(function,), daemon=True) for function in functions]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
    finally:
        sys.setswitchinterval(interval)
    assert not any(thread.is_alive() for thread in threads)
    assert failures == []
