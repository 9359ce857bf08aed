from __future__ import annotations

import _thread
import asyncio
import dis
import gc
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import cache, partial
from heapq import heappop, heappush
from itertools import count
from types import CodeType, FrameType
from typing import Any, ClassVar, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import headgate.gate
import headgate.queueing
import headgate.waiters
from headgate.config import GateOptions
from headgate.errors import LeaseError, Overloaded
from headgate.gate import SWITCH_INTERVAL_NS, Gate
from headgate.queueing import OTHER, PATIENCE_NS, Kind
from headgate.waiters import PERMIT, Grant, TaskWaiter, ThreadWaiter

FOREVER = 1e6
MS = 1_000_000
KINDS: tuple[Kind, Kind] = ("sync", "async")
both_kinds = pytest.mark.parametrize("kind", KINDS)


class FakeClock:
    def __init__(self) -> None:
        self.now_ns = 0

    def __call__(self) -> int:
        return self.now_ns


class WatchedLock:
    """A lock that fails where the real one would wait for ever: for its own thread."""

    def __init__(self) -> None:
        self._lock = _thread.allocate_lock()
        self._owner = 0
        self.blocked: Callable[[], object] = lambda: None

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        taken = self._lock.acquire(blocking=False)
        if not taken and blocking:
            assert timeout >= 0 or self._owner != threading.get_ident(), "this thread waits for itself"
            self.blocked()
            taken = self._lock.acquire(timeout=timeout)
        if taken:
            self._owner = threading.get_ident()
        return taken

    def release(self) -> None:
        self._owner = 0
        self._lock.release()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *exc: object) -> None:
        self.release()


def make_gate(
    connections: int = 1, *, max_wait: float = FOREVER, max_pending: int = 1000, clock: FakeClock | None = None
) -> Gate:
    options = GateOptions(connections=connections, max_wait=max_wait, max_pending=max_pending)
    gate = Gate(options, name="shop", clock=clock or FakeClock(), jitter=lambda: 0.0)
    gate._lock.raw = WatchedLock()  # type: ignore[assignment]
    return gate


class FakeLease:
    """A lease as the gate knows it; given back, it gives its permit back, as a pool's does."""

    def __init__(self, gate: Gate, kind: Kind = "sync") -> None:
        self.gate = gate
        self.kind: Kind = kind
        self.given_back = 0

    def give_back(self) -> None:
        self.given_back += 1
        self.gate.release(kind=self.kind)

    def rest(self) -> None:
        self.gate.rest(self, self.kind)

    def resume(self) -> bool:
        return self.gate.resume(self, self.kind)

    @property
    def is_warm(self) -> bool:
        return self.gate.is_warm(self, self.kind)


def rested(gate: Gate, kind: Kind = "sync") -> FakeLease:
    """A new lease that its holder has left warm."""
    assert gate.acquire_nowait(kind) is PERMIT
    lease = FakeLease(gate, kind)
    lease.rest()
    return lease


class SyncWaiter(ThreadWaiter):
    """A thread that waits, without the thread: the test takes its steps."""


class AsyncWaiter(ThreadWaiter):
    """A task that waits, without the task."""

    kind: ClassVar[Kind] = "async"


class DeafWaiter(ThreadWaiter):
    """One that can no longer be told, because its event loop has been closed."""

    def wake(self) -> bool:
        return False


WAITERS: dict[Kind, type[ThreadWaiter]] = {"sync": SyncWaiter, "async": AsyncWaiter}


def join(gate: Gate, kind: Kind = "sync") -> ThreadWaiter:
    """Somebody begins to wait."""
    waiter = WAITERS[kind]()
    gate._join(waiter)
    return waiter


async def settle() -> None:
    """Let every task run until it waits for something."""
    for _ in range(10):
        await asyncio.sleep(0)


def numbers(gate: Gate) -> tuple[int, int]:
    now = gate.statistics()
    return now.in_use, now.pending


def test_permits_are_bounded_by_the_budget() -> None:
    gate = make_gate(2)
    assert [gate.acquire_nowait() for _ in range(3)] == [PERMIT, PERMIT, None]
    gate.release()
    assert gate.acquire_nowait() is PERMIT


async def test_a_released_permit_goes_to_whoever_has_waited_longest() -> None:
    gate = make_gate(1)
    await gate.acquire_async()
    order: list[str] = []

    async def wait(name: str) -> None:
        await gate.acquire_async()
        order.append(name)
        gate.release()

    tasks = [asyncio.create_task(wait(name)) for name in "abc"]
    await settle()
    assert numbers(gate) == (1, 3)
    gate.release()
    await asyncio.gather(*tasks)
    assert order == ["a", "b", "c"]
    assert numbers(gate) == (0, 0)


async def test_nobody_overtakes_a_waiter() -> None:
    gate = make_gate(1)
    await gate.acquire_async()
    waiter = asyncio.create_task(gate.acquire_async())
    await settle()
    gate.release()
    assert gate.acquire_nowait() is None, "the permit belongs to the waiter, also before it has woken up"
    await waiter


async def test_a_waiter_cancelled_while_it_waits_is_gone_from_the_count() -> None:
    gate = make_gate(1)
    await gate.acquire_async()
    waiter = asyncio.create_task(gate.acquire_async())
    await settle()
    waiter.cancel()
    await settle()
    assert numbers(gate) == (1, 0)
    gate.release()
    assert numbers(gate) == (0, 0)


async def test_a_waiter_cancelled_at_hand_over_passes_the_permit_on() -> None:
    gate = make_gate(1)
    await gate.acquire_async()
    first, second = (asyncio.create_task(gate.acquire_async()) for _ in range(2))
    await settle()
    gate.release()  # handed to first, which has not run yet
    first.cancel()
    await settle()
    assert first.cancelled()
    assert second.done()
    assert numbers(gate) == (1, 0)


async def test_a_waiter_cancelled_at_hand_over_leaves_a_free_permit_if_nobody_else_waits() -> None:
    gate = make_gate(1)
    await gate.acquire_async()
    waiter = asyncio.create_task(gate.acquire_async())
    await settle()
    gate.release()
    waiter.cancel()
    await settle()
    assert numbers(gate) == (0, 0)
    assert gate.acquire_nowait() is PERMIT


async def test_a_waiter_past_max_wait_is_dropped_with_the_four_parts_of_a_message() -> None:
    gate = make_gate(1, max_wait=1e-9)
    gate.describe_holders = lambda: "orders.py:12 (1)"
    await gate.acquire_async()
    with pytest.raises(Overloaded) as caught:
        await gate.acquire_async()
    error = caught.value
    assert (error.database, error.reason, error.retry_after_s) == ("shop", "deadline", 1)
    fact, state, where, remedies = str(error).split("\n")
    assert "'shop'" in fact
    assert "max_wait" in fact
    assert "in use 1 of 1" in state
    assert "pending 0" in state
    assert "orders.py:12" in where
    assert remedies.startswith("Remedies: 1. ")
    assert numbers(gate) == (1, 0)
    assert gate.statistics().dropped == {"deadline": 1}


async def test_one_more_than_max_pending_is_shed_at_once() -> None:
    gate = make_gate(1, max_pending=1)
    await gate.acquire_async()
    waiter = asyncio.create_task(gate.acquire_async())
    await settle()
    with pytest.raises(Overloaded) as caught:
        await gate.acquire_async()
    assert caught.value.reason == "full"
    assert caught.value.waited_ns == 0
    assert gate.statistics().shed == {"full": 1}
    gate.release()
    await waiter


async def test_a_dropped_waiter_makes_room_in_the_line() -> None:
    gate = make_gate(1, max_wait=1e-9, max_pending=1)
    await gate.acquire_async()
    for _ in range(3):
        with pytest.raises(Overloaded) as caught:
            await gate.acquire_async()
        assert caught.value.reason == "deadline"


async def test_a_sync_wait_on_an_event_loop_is_refused_with_a_remedy() -> None:
    gate = make_gate(1)
    gate.acquire()
    with pytest.raises(LeaseError, match="async session"):
        gate.acquire()


def test_a_permit_given_back_by_a_finalizer_inside_the_gate_is_not_lost() -> None:
    gate = make_gate(1)
    gate.acquire()

    class Forgotten:
        def __del__(self) -> None:
            gate.release()

    with gate._lock:
        Forgotten()
    assert numbers(gate) == (0, 0)


@contextmanager
def waiting_thread(gate: Gate) -> Iterator[threading.Event]:
    """A thread that waits for a permit, keeps it until told and gives it back."""
    holds, may_end = threading.Event(), threading.Event()

    def run() -> None:
        gate.acquire()
        holds.set()
        may_end.wait(5)
        gate.release()

    before = gate.statistics().pending
    thread = threading.Thread(target=run)
    thread.start()
    while gate.statistics().pending == before:
        threading.Event().wait(0.0001)
    try:
        yield holds
    finally:
        may_end.set()
        thread.join(5)
        assert not thread.is_alive()


async def test_threads_and_tasks_wait_in_one_line() -> None:
    """Their order is that of arrival as soon as they are further apart than patience."""
    clock = FakeClock()
    gate = make_gate(1, clock=clock)
    await gate.acquire_async()
    first = asyncio.create_task(gate.acquire_async())
    await settle()
    clock.now_ns += PATIENCE_NS + 1
    with waiting_thread(gate) as thread_holds:
        clock.now_ns += PATIENCE_NS + 1
        last = asyncio.create_task(gate.acquire_async())
        await settle()
        gate.release(kind="sync")
        await first
        assert not thread_holds.is_set()
        clock.now_ns += SWITCH_INTERVAL_NS
        gate.release(kind="async")
        assert thread_holds.wait(5)
        assert not last.done()
    await asyncio.wait_for(last, 5)
    gate.release()
    assert numbers(gate) == (0, 0)


def test_a_waiter_whose_event_loop_has_been_closed_is_passed_over() -> None:
    gate = make_gate(1)
    gate.acquire()
    loop = asyncio.new_event_loop()
    waiting = loop.create_task(gate.acquire_async())
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    with waiting_thread(gate) as thread_holds:
        release = threading.Thread(target=gate.release)  # from a thread that is not the closed loop's
        release.start()
        release.join(5)
        assert thread_holds.wait(5)
    waiting._log_destroy_pending = False  # type: ignore[attr-defined]
    del waiting
    gc.collect()
    assert numbers(gate) == (0, 0)


def test_places_are_bounded_by_the_budget() -> None:
    gate = make_gate(1)
    assert gate.take_place_nowait()
    assert not gate.take_place_nowait()
    gate.give_place()
    assert gate.take_place_nowait()


@pytest.mark.parametrize(("connections", "needed"), [(1, 1), (3, 2), (4, 2)])
def test_half_of_the_budget_is_used_whether_its_leases_are_warm_or_not(connections: int, needed: int) -> None:
    gate = make_gate(connections)
    for number in range(connections):
        assert gate.is_half_used == (number >= needed)
        rested(gate)
    assert gate.is_half_used


def test_the_repr_is_a_status_line() -> None:
    gate = make_gate(2)
    gate.acquire()
    gate.take_place_nowait()
    assert repr(gate) == "<Gate 'shop' in use 1 of 2, warm 0, idle 0, pending 0, oldest wait 0 ms>"


def test_statistics_tell_waits_and_use() -> None:
    gate = make_gate(1)
    gate.acquire()
    gate.release(use_ns=4_000)
    now = gate.statistics()
    assert (now.acquired, now.waited, now.mean_use_ns) == (1, 0, 4_000)


def test_statistics_tell_how_long_those_who_had_to_wait_have_waited() -> None:
    clock = FakeClock()
    gate = make_gate(1, clock=clock)
    gate.acquire()
    for _ in range(2):
        join(gate)
        clock.now_ns += 3 * MS
    assert gate.statistics().oldest_wait_ns == 6 * MS
    gate.release()
    now = gate.statistics()
    assert (now.acquired, now.waited, now.wait_time_ns) == (2, 1, 6 * MS)
    assert (now.pending, now.oldest_wait_ns) == (1, 3 * MS)


steps = st.lists(st.tuples(st.sampled_from(["start", "cancel", "release"]), st.integers(0, 7)), max_size=40)


@settings(deadline=None)
@given(steps, st.integers(1, 3), st.integers(0, 4))
def test_permits_are_conserved_after_any_order_of_acquire_cancel_and_release(
    program: list[tuple[str, int]], connections: int, max_pending: int
) -> None:
    """Cancellation comes in the same tick as the hand-over too: nothing settles between two steps."""

    async def run() -> None:
        gate = make_gate(connections, max_pending=max_pending)
        tasks: list[asyncio.Task[Grant]] = []
        released: set[asyncio.Task[Grant]] = set()

        def holders() -> list[asyncio.Task[Grant]]:
            return [t for t in tasks if t.done() and not t.cancelled() and not t.exception() and t not in released]

        for action, number in program:
            if action == "start":
                tasks.append(asyncio.create_task(gate.acquire_async()))
                await asyncio.sleep(0)
            elif action == "cancel" and tasks:
                tasks[number % len(tasks)].cancel()
            elif action == "release" and holders():
                released.add(holder := holders()[0])
                del holder
                gate.release()
            assert gate.statistics().in_use <= connections
            assert gate.statistics().pending <= max_pending
        await settle()
        waiting = [task for task in tasks if not task.done()]
        assert numbers(gate) == (len(holders()), len(waiting))
        assert not waiting or len(holders()) == connections, "nobody waits while a permit is free"
        while waiting or holders():
            released.update(now := holders())
            for _ in now:
                gate.release()
            await settle()
            waiting = [task for task in tasks if not task.done()]
        assert numbers(gate) == (0, 0)

    asyncio.run(run())


def test_a_place_given_back_by_a_finalizer_inside_the_gate_is_not_lost() -> None:
    gate = make_gate(1)
    assert gate.take_place_nowait()
    with gate._lock:
        gate.give_place()
    assert gate.take_place_nowait()


def test_a_permit_released_where_its_waiters_loop_was_closed_stays_free() -> None:
    """In the very thread of that loop, where nothing has to be woken from outside."""
    gate = make_gate(1)
    gate.acquire()
    loop = asyncio.new_event_loop()
    waiting = loop.create_task(gate.acquire_async())
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    gate.release()
    waiting._log_destroy_pending = False  # type: ignore[attr-defined]
    del waiting
    gc.collect()
    assert numbers(gate) == (0, 0)


# warm leases


@both_kinds
async def test_a_warm_lease_is_had_without_waiting(kind: Kind) -> None:
    gate = make_gate(1)
    lease = rested(gate, kind)
    assert await gate.acquire_async() is lease
    assert not lease.resume()
    assert not lease.is_warm
    assert lease.given_back == 0
    assert numbers(gate) == (1, 0)


def test_a_warm_lease_is_left_alone_while_a_permit_is_free() -> None:
    gate = make_gate(2)
    lease = rested(gate)
    assert gate.acquire_nowait() is PERMIT
    assert lease.resume()


def test_a_resumed_lease_is_nobody_elses() -> None:
    gate = make_gate(1)
    lease = rested(gate)
    assert lease.is_warm
    assert lease.resume()
    assert not lease.is_warm
    assert not lease.resume(), "it is taken back once"
    assert gate.acquire_nowait() is None


@both_kinds
def test_a_lease_rested_while_somebody_waits_goes_to_the_waiter(kind: Kind) -> None:
    gate = make_gate(1)
    gate.acquire_nowait(kind)
    waiter, next_waiter = join(gate, "async"), join(gate, "async")
    lease = FakeLease(gate, kind)
    lease.rest()
    assert waiter.grant is lease
    assert next_waiter.grant is None
    assert not lease.resume()
    assert numbers(gate) == (1, 1)


def test_a_thread_that_waits_is_woken_by_a_lease_that_is_rested() -> None:
    gate = make_gate(1)
    gate.acquire()
    lease = FakeLease(gate)
    with waiting_thread(gate) as thread_holds:
        lease.rest()
        assert thread_holds.wait(5)
        assert not lease.resume()
    assert numbers(gate) == (0, 0)


def test_of_several_warm_leases_the_oldest_goes_first() -> None:
    gate = make_gate(3)
    first, second, third = (rested(gate) for _ in range(3))
    assert second.resume()
    second.rest()  # the youngest now
    assert [gate.acquire_nowait() for _ in range(4)] == [first, third, second, None]


@both_kinds
def test_a_warm_lease_of_ones_own_kind_goes_before_an_older_one_of_the_other(kind: Kind) -> None:
    gate = make_gate(2)
    other, own = rested(gate, OTHER[kind]), rested(gate, kind)
    assert [gate.acquire_nowait(kind) for _ in range(3)] == [own, other, None]


@both_kinds
def test_a_lease_rested_while_both_kinds_wait_goes_to_its_own(kind: Kind) -> None:
    gate = make_gate(1)
    gate.acquire_nowait(kind)
    other, own = join(gate, OTHER[kind]), join(gate, kind)
    lease = FakeLease(gate, kind)
    lease.rest()
    assert (own.grant, other.grant) == (lease, None)


async def test_a_waiter_cancelled_as_a_warm_lease_is_handed_to_it_gives_it_back_once() -> None:
    gate = make_gate(1)
    lease = FakeLease(gate)
    gate.acquire_nowait()
    first, second = (asyncio.create_task(gate.acquire_async()) for _ in range(2))
    await settle()
    lease.rest()  # handed to first, which has not run yet
    first.cancel()
    await settle()
    assert first.cancelled()
    assert second.result() is PERMIT
    assert lease.given_back == 1
    gate.release()
    assert numbers(gate) == (0, 0)
    assert gate.statistics().warm == 0


def test_a_thread_interrupted_as_a_warm_lease_is_handed_to_it_gives_it_back_once() -> None:
    gate = make_gate(1)
    gate.acquire()
    waiter, lease = join(gate), FakeLease(gate)
    lease.rest()
    gate._abandon(waiter)
    assert lease.given_back == 1
    assert numbers(gate) == (0, 0)


def test_a_waiter_timed_out_as_a_warm_lease_is_handed_to_it_has_it() -> None:
    clock = FakeClock()
    gate = make_gate(1, max_wait=0.1, clock=clock)
    gate.acquire()
    waiter, lease = join(gate), FakeLease(gate)
    clock.now_ns = 100 * MS
    lease.rest()
    assert gate._settle(waiter) is lease
    assert lease.given_back == 0
    assert gate.statistics().dropped == {}
    assert numbers(gate) == (1, 0)


def test_a_lease_rested_after_its_waiter_was_dropped_stays_with_its_holder() -> None:
    gate = make_gate(1)
    gate.acquire()
    waiter, lease = join(gate), FakeLease(gate)
    with pytest.raises(Overloaded):
        gate._settle(waiter)
    lease.rest()
    assert lease.resume()
    assert lease.given_back == 0


def test_a_lease_revoked_for_a_waiter_that_cannot_be_told_is_still_to_be_had() -> None:
    """By its holder, or by the next in need if the holder has come by in between and believes it lost."""
    gate = make_gate(1)
    gate.acquire()
    gate._join(DeafWaiter())
    lease = FakeLease(gate)
    lease.rest()
    assert lease.resume()

    class BadlyTimed(DeafWaiter):
        def wake(self) -> bool:
            assert not lease.resume(), "at this moment it is the waiter's"
            return super().wake()

    gate._join(BadlyTimed())
    lease.rest()
    assert numbers(gate) == (0, 0)
    assert gate.acquire_nowait() is lease
    lease.give_back()
    assert numbers(gate) == (0, 0)


def test_a_finalizer_inside_the_gate_may_take_its_lease_back() -> None:
    gate = make_gate(1)
    lease = rested(gate)
    with gate._lock:
        assert lease.resume()
        lease.give_back()
    now = gate.statistics()
    assert (now.in_use, now.warm) == (0, 0)


def test_statistics_tell_what_is_warm_and_what_was_revoked() -> None:
    gate = make_gate(3)
    gate.take_place_nowait()
    sync, task = rested(gate, "sync"), rested(gate, "async")
    gate.acquire_nowait()
    now = gate.statistics()
    assert (now.in_use, now.warm, now.idle, now.revoked) == (1, 2, 0, 0)
    assert "in use 1 of 3, warm 2, idle 0, pending 0" in repr(gate)
    assert sync.resume()
    assert gate.statistics().revoked == 0, "its own holder does not revoke it"
    sync.rest()
    assert gate.acquire_nowait("async") is task
    waiter = join(gate)
    assert waiter.grant is sync, "one that was left warm in the meantime"
    now = gate.statistics()
    assert (now.in_use, now.warm, now.revoked) == (3, 0, 2)
    assert (now.waited, now.wait_time_ns) == (1, 0)


# one step at a time: every point at which somebody else can come in between

GATE_FILES = {module.__file__ for module in (headgate.gate, headgate.queueing, headgate.waiters)}
ONLY_TELLING = {"_refusal", "_state", "_statistics"}
OF_NO_CONCERN_TO_OTHERS = (
    *("BUILD", "CACHE", "COPY", "IS_OP", "JUMP", "KW_NAMES", "LOAD_CONST", "LOAD_FAST", "LOAD_GLOBAL", "LOAD_METHOD"),
    *("NOP", "POP_TOP", "PRECALL", "PUSH_NULL", "RESUME", "RETURN", "STORE_FAST", "SWAP", "UNPACK"),
)


@cache
def steps_of(code: CodeType) -> frozenset[int]:
    """Where in this code somebody else may come in between, and it makes a difference."""
    return frozenset(
        instruction.offset
        for instruction in dis.get_instructions(code)
        if not instruction.opname.startswith(OF_NO_CONCERN_TO_OTHERS)
    )


@contextmanager
def called_before_step(number: int, call: Callable[[], object], files: set[str | None] = GATE_FILES) -> Iterator[None]:
    """Call something before one step, an instruction of the interpreter, that this thread takes in these files."""
    steps = count(1)

    def trace(frame: FrameType, event: str, _: object) -> Any:
        if frame.f_code.co_filename not in files or frame.f_code.co_name in ONLY_TELLING:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode" and frame.f_lasti in steps_of(frame.f_code) and next(steps) == number:
            call()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


def run_interleaved(gate: Gate, one: Callable[[], object], other: Callable[[], object], at_step: int) -> bool:
    """Run ``one``; before that step of it a second thread runs ``other`` as far as it gets.

    :returns: False if ``one`` ended earlier, so that ``other`` came after it.
    """
    stopped, failures = threading.Event(), list[BaseException]()

    def run_other() -> None:
        try:
            other()
        except BaseException as error:
            failures.append(error)
        stopped.set()

    def let_other_run() -> None:
        second.start()
        assert stopped.wait(5)

    second = threading.Thread(target=run_other, daemon=True)
    gate._lock.raw.blocked = stopped.set  # type: ignore[attr-defined]
    with called_before_step(at_step, let_other_run):
        one()
    was_in_time = second.ident is not None
    if not was_in_time:
        second.start()
    second.join(5)
    assert not second.is_alive()
    assert failures == []
    return was_in_time


class Play:
    """One connection, its holder, somebody who waits and somebody who comes; whatever they do, all is accounted for."""

    def __init__(self) -> None:
        self.gate = make_gate(1)
        self.gate.acquire()
        self.lease = FakeLease(self.gate)
        self.waiter = SyncWaiter()
        self.holds = True
        self.has_place = self.gate.take_place_nowait()
        self.is_waiting = False
        self.newcomer: Grant | None = None

    def act(self, names: str) -> None:
        for name in names.split():
            getattr(self, name)()

    def join(self) -> None:
        self.is_waiting = True
        self.gate._join(self.waiter)

    def leave(self) -> None:
        self.gate._abandon(self.waiter)
        self.is_waiting = False

    def time_out(self) -> None:
        try:
            self.gate._settle(self.waiter)
        except Overloaded:
            self.is_waiting = False

    def come(self) -> None:
        self.newcomer = self.gate.acquire_nowait()

    def rest(self) -> None:
        self.holds = False
        self.lease.rest()

    def resume(self) -> None:
        self.holds = self.lease.resume()

    def release(self) -> None:
        self.holds = False
        self.gate.release()

    def give_place(self) -> None:
        self.has_place = False
        self.gate.give_place()

    def lose(self) -> None:
        """As the finalizer of a forgotten holder does."""
        if self.lease.resume():
            self.gate.release()

    def look(self) -> None:
        repr(self.gate)

    def check(self) -> None:
        now = self.gate.statistics()
        is_served = self.is_waiting and self.waiter.grant is not None
        owners = self.holds + is_served + (self.newcomer is not None)
        assert owners <= 1, "exactly one of those who reach for it has it"
        assert now.in_use == owners, "no permit is lost"
        assert self.gate.take_place_nowait() == (not self.has_place), "no place is lost"
        assert now.pending == (self.is_waiting and not is_served)
        assert not now.pending or now.in_use == 1, "nobody waits while a permit is free or a lease is warm"
        assert not (self.is_waiting and self.newcomer), "nobody overtakes"
        assert self.lease.given_back <= 1


def in_both_orders(before: str, one: str, other: str) -> Iterator[Any]:
    for first, second in ((one, other), (other, one)):
        yield pytest.param(before, first, second, id=f"{before}: {first} before {second}")


PLAYS = [
    *in_both_orders("rest", "resume", "come"),
    *in_both_orders("rest", "resume", "join"),
    *in_both_orders("", "rest", "join"),
    *in_both_orders("", "rest", "come"),
    *in_both_orders("", "release", "join"),
    *in_both_orders("join", "rest resume", "leave"),
    *in_both_orders("join", "rest", "time_out"),
    *in_both_orders("join", "rest", "come"),
    *in_both_orders("join", "release", "leave"),
    *in_both_orders("join", "release", "come"),
]


@pytest.mark.parametrize(("before", "one", "other"), PLAYS)
def test_nothing_is_lost_wherever_one_thread_comes_in_between_the_steps_of_another(
    before: str, one: str, other: str
) -> None:
    for at_step in count(1):
        play = Play()
        play.act(before)
        was_in_time = run_interleaved(play.gate, partial(play.act, one), partial(play.act, other), at_step)
        play.check()
        if not was_in_time:
            break


@pytest.mark.parametrize(
    ("before", "interrupted", "finalizer"),
    [
        pytest.param("", "join", "release"),
        pytest.param("", "come", "release"),
        pytest.param("join", "time_out", "release"),
        pytest.param("join", "leave", "release"),
        pytest.param("rest", "join", "lose"),
        pytest.param("rest", "come", "lose"),
        pytest.param("rest", "look", "lose"),
        pytest.param("", "release", "give_place"),
        pytest.param("", "give_place", "release"),
        pytest.param("join", "release", "leave"),
        pytest.param("join", "rest", "leave"),
        pytest.param("join", "come", "leave"),
    ],
)
def test_a_finalizer_may_interrupt_the_gate_anywhere(before: str, interrupted: str, finalizer: str) -> None:
    for at_step in count(1):
        play, ran = Play(), list[str]()

        def finalize(play: Play = play, ran: list[str] = ran) -> None:
            ran.append(finalizer)
            play.act(finalizer)

        play.act(before)
        with called_before_step(at_step, finalize):
            play.act(interrupted)
        if not ran:
            break
        play.check()


def test_a_finalizer_may_interrupt_a_thread_that_waits_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also inside what the thread waits with, when the permit that comes back is the one it waits for."""
    monkeypatch.setattr(threading, "Lock", WatchedLock)
    for at_step in count(1):
        gate, ran = make_gate(1, max_wait=0), list[int]()
        gate.acquire()

        def finalize(gate: Gate = gate, ran: list[int] = ran) -> None:
            ran.append(1)
            gate.release()

        with called_before_step(at_step, finalize, {*GATE_FILES, threading.__file__}):
            try:
                gate.acquire()
            except Overloaded:
                granted = 0
            else:
                granted = 1
        if not ran:
            break
        assert numbers(gate) == (granted, 0)


def test_a_waiting_task_that_dies_with_its_loop_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody but the line knows it any more, so it is collected as soon as it is taken out."""
    failures: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", failures.append)
    gate = make_gate(1)
    gate.acquire()
    loop = asyncio.new_event_loop()
    waiting = loop.create_task(gate.acquire_async())
    waiting._log_destroy_pending = False  # type: ignore[attr-defined]
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    del waiting
    gate.release()
    gc.collect()
    assert failures == []
    assert numbers(gate) == (0, 0)


def test_a_thread_interrupted_as_it_joins_the_line_is_gone_from_it(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = make_gate(1)
    gate.acquire()
    real_join = gate._join

    def interrupted_join(waiter: ThreadWaiter) -> int:
        real_join(waiter)
        raise KeyboardInterrupt

    monkeypatch.setattr(gate, "_join", interrupted_join)
    with pytest.raises(KeyboardInterrupt):
        gate.acquire()
    assert numbers(gate) == (1, 0)


def test_a_task_whose_loop_is_run_elsewhere_by_now_is_woken_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    async def begin_to_wait() -> TaskWaiter:
        return TaskWaiter()

    loop = asyncio.new_event_loop()
    waiter = loop.run_until_complete(begin_to_wait())
    calls: list[object] = []
    monkeypatch.setattr(loop, "call_soon_threadsafe", calls.append)
    assert waiter.wake()
    loop.close()
    assert calls == [waiter.resolve]


def test_what_fails_for_one_that_gives_up_fails_for_nobody_else() -> None:
    class BrokenLease(FakeLease):
        def give_back(self) -> None:
            super().give_back()
            raise OSError("the connection is broken")

    for at_step in count(1):
        gate, failed = make_gate(2), list[bool]()
        for _ in range(2):
            gate.acquire()
        waiter = join(gate)
        BrokenLease(gate).rest()
        gate.release()

        def give_up(gate: Gate = gate, waiter: ThreadWaiter = waiter, failed: list[bool] = failed) -> None:
            with suppress(OSError):
                failed.append(True)
                gate._abandon(waiter)

        with called_before_step(at_step, give_up):
            assert gate.acquire_nowait() is PERMIT
        if not failed:
            break
        assert numbers(gate) == (1, 0)


async def test_whoever_describes_the_holders_may_ask_the_gate() -> None:
    gate = make_gate(1, max_wait=1e-9)
    gate.describe_holders = lambda: repr(gate)
    gate.acquire_nowait()
    with pytest.raises(Overloaded, match="Held by: <Gate 'shop' in use 1 of 1"):
        await gate.acquire_async()


def test_every_grant_counts_as_acquired() -> None:
    gate = make_gate(1)
    rested(gate)
    gate.acquire_nowait()
    waiter = join(gate)
    gate.release()
    assert waiter.grant is PERMIT
    assert gate.statistics().acquired == 3


# the two kinds


@both_kinds
def test_a_permit_goes_to_its_own_kind_until_the_other_has_waited_longer_by_patience(kind: Kind) -> None:
    for patience_ns, served in ((PATIENCE_NS, kind), (PATIENCE_NS + 1, OTHER[kind])):
        clock = FakeClock()
        gate = make_gate(1, clock=clock)
        gate.acquire_nowait(kind)
        other = join(gate, OTHER[kind])
        clock.now_ns += patience_ns
        own = join(gate, kind)
        gate.release(kind=kind)
        assert [waiter.kind for waiter in (own, other) if waiter.grant] == [served]


@both_kinds
def test_a_permit_goes_to_the_other_kind_at_once_if_nobody_of_its_own_waits(kind: Kind) -> None:
    gate = make_gate(1)
    gate.acquire_nowait(kind)
    waiters = [join(gate, OTHER[kind]) for _ in range(3)]
    for waiter in waiters:
        gate.release(kind=kind)
        assert waiter.grant is PERMIT


@both_kinds
def test_connections_are_replaced_across_kinds_one_an_interval(kind: Kind) -> None:
    clock = FakeClock()
    gate = make_gate(2, clock=clock)
    for _ in range(2):
        gate.acquire_nowait(kind)
    others = [join(gate, OTHER[kind]) for _ in range(2)]
    clock.now_ns += PATIENCE_NS + 1
    own = join(gate, kind)
    gate.release(kind=kind)
    clock.now_ns += SWITCH_INTERVAL_NS - 1
    gate.release(kind=kind)
    assert [waiter.grant for waiter in (*others, own)] == [PERMIT, None, PERMIT]
    join(gate, kind)
    clock.now_ns += 1
    gate.release(kind=kind)
    assert others[1].grant is PERMIT


class Arrival(NamedTuple):
    gap_ns: int
    kind: Kind
    use_ns: int


class Simulation:
    """A gate under arrivals that are given; time passes from event to event."""

    def __init__(self, connections: int, *, max_wait: float = FOREVER, max_pending: int = 1000) -> None:
        self.clock = FakeClock()
        self.gate = make_gate(connections, max_wait=max_wait, max_pending=max_pending, clock=self.clock)
        self.served: Counter[Kind] = Counter()
        self.refused: Counter[Kind] = Counter()
        self.waiting: dict[ThreadWaiter, Arrival] = {}
        self.joined_ns: dict[ThreadWaiter, int] = {}
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._number = count()

    def run(self, arrivals: Iterable[Arrival]) -> None:
        at_ns = 0
        for arrival in arrivals:
            at_ns += arrival.gap_ns
            self._plan(at_ns, partial(self._arrive, arrival))
        while self._events:
            self.clock.now_ns, _, happen = heappop(self._events)
            happen()
        assert numbers(self.gate) == (0, 0)

    def _plan(self, at_ns: int, happen: Callable[[], None]) -> None:
        heappush(self._events, (at_ns, next(self._number), happen))

    def _arrive(self, arrival: Arrival) -> None:
        if self.gate.acquire_nowait(arrival.kind) is not None:
            self._serve(arrival)
            return
        waiter = WAITERS[arrival.kind]()
        try:
            deadline_ns = self.gate._join(waiter)
        except Overloaded:
            self.refused[arrival.kind] += 1
            return
        self.waiting[waiter], self.joined_ns[waiter] = arrival, self.clock.now_ns
        self._plan(deadline_ns, partial(self._time_out, waiter))

    def _serve(self, arrival: Arrival) -> None:
        self.served[arrival.kind] += 1
        self._plan(self.clock.now_ns + arrival.use_ns, partial(self._finish, arrival))

    def _finish(self, arrival: Arrival) -> None:
        before = list(self.waiting)
        self.gate.release(arrival.use_ns, arrival.kind)
        chosen = next((waiter for waiter in before if waiter.grant is not None), None)
        self.handed_over(arrival.kind, before, chosen)
        if chosen is not None:
            self._serve(self.waiting.pop(chosen))

    def _time_out(self, waiter: ThreadWaiter) -> None:
        if waiter in self.waiting:
            del self.waiting[waiter]
            self.refused[waiter.kind] += 1
            with pytest.raises(Overloaded):
                self.gate._settle(waiter)

    def handed_over(self, kind: Kind, before: list[ThreadWaiter], chosen: ThreadWaiter | None) -> None:
        """A connection of a kind came back while these waited; somebody or nobody was chosen."""


class JudgedSimulation(Simulation):
    """One that holds every hand-over against the rules."""

    last_switch_ns = last_fought_switch_ns = -SWITCH_INTERVAL_NS

    def handed_over(self, kind: Kind, before: list[ThreadWaiter], chosen: ThreadWaiter | None) -> None:
        assert (chosen is None) == (not before), "nobody waits while a permit is free"
        if chosen is None:
            return
        heads = {waiter.kind: waiter for waiter in reversed(before)}
        assert chosen is heads[chosen.kind], "first come, first served within a kind"
        if len(heads) == 2:
            self._judge(kind, heads, chosen)
        if chosen.kind != kind:
            self.last_switch_ns = self.clock.now_ns

    def _judge(self, kind: Kind, heads: dict[Kind, ThreadWaiter], chosen: ThreadWaiter) -> None:
        now_ns = self.clock.now_ns
        if chosen.kind == kind:
            older_by_ns = self.joined_ns[heads[kind]] - self.joined_ns[heads[OTHER[kind]]]
            assert older_by_ns <= PATIENCE_NS or now_ns - self.last_switch_ns < SWITCH_INTERVAL_NS
        else:
            assert now_ns - self.last_fought_switch_ns >= SWITCH_INTERVAL_NS, "switches are bounded in rate"
            self.last_fought_switch_ns = now_ns


arrivals = st.lists(
    st.builds(Arrival, st.integers(0, 30 * MS), st.sampled_from(KINDS), st.integers(1, 60 * MS)), max_size=60
)


@given(arrivals, st.integers(1, 3))
def test_between_the_kinds_the_difference_in_waiting_is_bounded_and_so_are_switches(
    arrivals: list[Arrival], connections: int
) -> None:
    """Nobody is passed by the other kind's later ones for longer than patience, but for the interval of a switch."""
    simulation = JudgedSimulation(connections)
    simulation.run(arrivals)
    assert simulation.served.total() == len(arrivals)


@both_kinds
@given(gap_ns=st.integers(1 * MS, 9 * MS), use_ns=st.integers(10 * MS, 30 * MS), connections=st.integers(1, 3))
def test_one_of_a_kind_is_served_before_those_of_the_other_that_came_much_later(
    kind: Kind, gap_ns: int, use_ns: int, connections: int
) -> None:
    """However many of them there are."""
    crowd = [Arrival(gap_ns // connections, OTHER[kind], use_ns) for _ in range(30)]
    crowd[6:6] = [Arrival(0, kind, use_ns)]
    passed_by_ns: list[int] = []

    class Watched(JudgedSimulation):
        def handed_over(self, kind_back: Kind, before: list[ThreadWaiter], chosen: ThreadWaiter | None) -> None:
            super().handed_over(kind_back, before, chosen)
            alone = next((waiter for waiter in self.waiting if waiter.kind == kind), None)
            if alone is not None and chosen is not None and chosen is not alone:
                passed_by_ns.append(self.joined_ns[chosen] - self.joined_ns[alone])

    Watched(connections).run(crowd)
    assert max(passed_by_ns, default=0) <= PATIENCE_NS + SWITCH_INTERVAL_NS


@both_kinds
@pytest.mark.parametrize("max_wait", [0.05, 1.0])
def test_one_kind_in_overload_leaves_something_to_the_other(kind: Kind, max_wait: float) -> None:
    """A twentieth of the arrivals, and hardly a tenth of the capacity."""
    others = [Arrival(5 * MS, OTHER[kind], 10 * MS) for _ in range(20)]
    simulation = Simulation(1, max_wait=max_wait)
    simulation.run([*others, Arrival(0, kind, 10 * MS)] * 20)
    assert simulation.served[kind] >= 10


# everything at once


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
        self.threads: list[ThreadWaiter] = []
        self.places = 0

    @initialize(connections=st.integers(1, 3), max_pending=st.integers(0, 5))
    def open(self, connections: int, max_pending: int) -> None:
        self.gate = make_gate(connections, max_pending=max_pending, clock=self.clock)

    def got(self, grant: Grant, kind: Kind) -> None:
        if isinstance(grant, FakeLease):
            self.ends[grant] += 1
        self.held.append(FakeLease(self.gate, kind))
        self.leases.append(self.held[-1])

    def end(self, lease: FakeLease) -> None:
        self.ends[lease] += 1
        self.gate.release(1, lease.kind)

    # coming, waiting, giving up

    @rule()
    def start_task(self) -> None:
        self.tasks.append(self.loop.create_task(self.gate.acquire_async()))
        self.run_loop(1)

    @rule(kind=st.sampled_from(KINDS))
    def start_thread(self, kind: Kind) -> None:
        grant = self.gate.acquire_nowait(kind)
        if grant is not None:
            self.got(grant, kind)
        else:
            self.join(WAITERS[kind]())

    @rule()
    def start_deaf(self) -> None:
        self.join(DeafWaiter())

    def join(self, waiter: ThreadWaiter) -> None:
        if self.gate.statistics().pending == self.gate._line.max_pending:
            with pytest.raises(Overloaded, match="max_pending"):
                self.gate._join(waiter)
            return
        self.gate._join(waiter)
        if not isinstance(waiter, DeafWaiter):
            self.threads.append(waiter)

    @precondition(lambda self: self.tasks)
    @rule(number=st.integers(0, 9))
    def cancel_task(self, number: int) -> None:
        self.tasks[number % len(self.tasks)].cancel()

    @precondition(lambda self: self.threads)
    @rule(number=st.integers(0, 9))
    def interrupt_thread(self, number: int) -> None:
        self.gate._abandon(self.threads.pop(number % len(self.threads)))

    @precondition(lambda self: self.threads)
    @rule(number=st.integers(0, 9))
    def end_wait_of_thread(self, number: int) -> None:
        waiter = self.threads.pop(number % len(self.threads))
        had = waiter.grant
        try:
            self.got(self.gate._settle(waiter), waiter.kind)
        except Overloaded:
            assert had is None

    @rule()
    def run_tasks(self) -> None:
        self.run_loop(5)
        waiting = [task for task in self.tasks if not task.done()]
        deaf = sum(isinstance(waiter, DeafWaiter) for line in self.gate._line._lines.values() for waiter in line)
        unserved = [waiter for waiter in self.threads if waiter.grant is None]
        now = self.gate.statistics()
        assert now.pending == len(waiting) + len(unserved) + deaf, "only live waiters are counted"
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
        with self.gate._lock:
            if lease.resume():
                self.end(lease)

    @precondition(lambda self: self.held)
    @rule(number=st.integers(0, 9), inside=st.booleans())
    def release(self, number: int, inside: bool) -> None:
        lease = self.held.pop(number % len(self.held))
        with self.gate._lock if inside else nullcontext():
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

    @rule(ms=st.integers(1, 60))
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
        assert now.pending <= self.gate._line.max_pending
        assert not now.pending or now.in_use == now.connections, "a permit is free or a lease is warm"

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
