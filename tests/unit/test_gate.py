from __future__ import annotations

import asyncio
import gc
import math
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.admission import Admission
from headgate.errors import LeaseError, Overloaded
from headgate.gate import SWITCH_INTERVAL_NS, EarlyRefusal, Gate
from headgate.queueing import LEAST_ROOM, PATIENCE_NS
from headgate.tallies import WAIT_BOUNDS_NS
from headgate.waiters import PERMIT, Grant

from .gate_fakes import (
    MS,
    FakeClock,
    grant_of,
    join,
    make_gate,
    numbers,
    rested,
    run_tasks,
    waiting_thread,
)


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
    await run_tasks()
    assert numbers(gate) == (1, 3)
    gate.release()
    await asyncio.gather(*tasks)
    assert order == ["a", "b", "c"]
    assert numbers(gate) == (0, 0)


async def test_nobody_overtakes_a_waiter() -> None:
    gate = make_gate(1)
    await gate.acquire_async()
    waiter = asyncio.create_task(gate.acquire_async())
    await run_tasks()
    gate.release()
    assert gate.acquire_nowait() is None, "the permit belongs to the waiter, also before it has woken up"
    await waiter


async def test_a_waiter_cancelled_while_it_waits_is_gone_from_the_count() -> None:
    gate = make_gate(1)
    await gate.acquire_async()
    waiter = asyncio.create_task(gate.acquire_async())
    await run_tasks()
    waiter.cancel()
    await run_tasks()
    assert numbers(gate) == (1, 0)
    gate.release()
    assert numbers(gate) == (0, 0)


async def test_a_waiter_cancelled_at_hand_over_passes_the_permit_on() -> None:
    gate = make_gate(1)
    await gate.acquire_async()
    first, second = (asyncio.create_task(gate.acquire_async()) for _ in range(2))
    await run_tasks()
    gate.release()  # handed to first, which has not run yet
    first.cancel()
    await run_tasks()
    assert first.cancelled()
    assert second.done()
    assert numbers(gate) == (1, 0)


async def test_a_waiter_cancelled_at_hand_over_leaves_a_free_permit_if_nobody_else_waits() -> None:
    gate = make_gate(1)
    await gate.acquire_async()
    waiter = asyncio.create_task(gate.acquire_async())
    await run_tasks()
    gate.release()
    waiter.cancel()
    await run_tasks()
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
    await run_tasks()
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

    with gate._draining, gate._lock:
        Forgotten()
    assert numbers(gate) == (0, 0)


async def test_threads_and_tasks_wait_in_one_line() -> None:
    """Their order is that of arrival as soon as they are further apart than patience."""
    clock = FakeClock()
    gate = make_gate(1, clock=clock)
    await gate.acquire_async()
    first = asyncio.create_task(gate.acquire_async())
    await run_tasks()
    clock.now_ns += PATIENCE_NS + 1
    with waiting_thread(gate) as thread_holds:
        clock.now_ns += PATIENCE_NS + 1
        last = asyncio.create_task(gate.acquire_async())
        await run_tasks()
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
        await run_tasks()
        waiting = [task for task in tasks if not task.done()]
        assert numbers(gate) == (len(holders()), len(waiting))
        assert not waiting or len(holders()) == connections, "nobody waits while a permit is free"
        while waiting or holders():
            released.update(now := holders())
            for _ in now:
                gate.release()
            await run_tasks()
            waiting = [task for task in tasks if not task.done()]
        assert numbers(gate) == (0, 0)

    asyncio.run(run())


def test_a_place_given_back_by_a_finalizer_inside_the_gate_is_not_lost() -> None:
    gate = make_gate(1)
    assert gate.take_place_nowait()
    with gate._draining, gate._lock:
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
    assert grant_of(waiter) is PERMIT
    assert gate.statistics().acquired == 3


def test_whoever_is_refused_is_told_to_come_when_the_line_should_have_drained() -> None:
    clock = FakeClock()
    gate = make_gate(1, max_pending=4, clock=clock)
    gate.acquire_nowait()
    gate.release(use_ns=500 * MS)
    gate.acquire_nowait()
    for _ in range(4):
        join(gate)
    gate._jitter = lambda: 0.5
    for refused in range(1, 5):
        with pytest.raises(Overloaded) as caught:
            join(gate)
        assert caught.value.retry_after_s == math.ceil((4 + refused) * 0.5)
    clock.now_ns += 10**18
    with pytest.raises(Overloaded) as caught:
        join(gate)
    assert caught.value.retry_after_s == math.ceil(5 * 0.5), "those who were refused long ago are not expected back"


# early refusal


def overloaded_gate(clock: FakeClock) -> Gate:
    """Its one connection is out, and newcomers have waited too long for an interval."""
    gate = make_gate(1, max_wait=0.5, clock=clock)
    gate.acquire_nowait()
    gate._line.overload.observe(100 * MS, clock.now_ns - 1_500 * MS)
    gate._line.overload.observe(100 * MS, clock.now_ns)
    return gate


def test_nobody_is_refused_early_without_overload() -> None:
    gate = make_gate(1)
    gate.acquire_nowait()
    for _ in range(20):
        join(gate)
    assert not gate.is_overloaded
    assert gate.refuse_early() is None


def test_in_overload_one_more_than_there_is_room_for_is_refused_early() -> None:
    gate = overloaded_gate(FakeClock())
    assert gate.is_overloaded
    assert gate.statistics().overloaded
    assert "overloaded" in repr(gate)
    for _ in range(LEAST_ROOM):
        assert gate.refuse_early() is None
        join(gate)
    assert gate.refuse_early() == EarlyRefusal("overload", 1)
    assert gate.statistics().shed == {"overload": 1}


def test_who_was_let_in_and_has_not_asked_yet_takes_room() -> None:
    gate = overloaded_gate(FakeClock())
    admissions = [Admission(0) for _ in range(LEAST_ROOM)]
    for admission in admissions:
        assert gate.refuse_early() is None
        gate.expect(admission)
    assert gate.refuse_early() is not None
    gate.arrive(admissions[0])
    gate.arrive(admissions[0])
    assert gate.refuse_early() is None
    gate.expect(admissions[0])
    assert gate.refuse_early() is not None


def test_who_takes_long_to_ask_does_not_take_room_for_ever() -> None:
    clock = FakeClock()
    gate = overloaded_gate(clock)
    for _ in range(LEAST_ROOM):
        gate.expect(Admission(0))
    assert gate.refuse_early() is not None
    clock.now_ns += gate._line.overload.target_ns
    assert gate.refuse_early() is None
    assert gate._count_expected(clock.now_ns) == 0, "and is not remembered either"


def test_what_is_refused_early_keeps_the_overload_going() -> None:
    clock = FakeClock()
    gate = overloaded_gate(clock)
    for _ in range(LEAST_ROOM):
        join(gate)
    for _ in range(5):
        assert gate.refuse_early() is not None
        clock.now_ns += 500 * MS
        assert gate.is_overloaded
    clock.now_ns += 500 * MS
    assert not gate.is_overloaded


def test_an_early_refusal_says_if_everything_stands_still() -> None:
    clock = FakeClock()
    gate = overloaded_gate(clock)
    for _ in range(LEAST_ROOM):
        join(gate)
    for _ in range(11):
        clock.now_ns += 499 * MS
        refusal = gate.refuse_early()
    assert refusal is not None
    assert refusal.reason == "stalled"


def test_statistics_count_waits_by_their_length() -> None:
    clock = FakeClock()
    gate = make_gate(1, clock=clock)
    gate.acquire_nowait()
    for waited_ns in (WAIT_BOUNDS_NS[0], WAIT_BOUNDS_NS[0] + 1, WAIT_BOUNDS_NS[-1] + 1):
        turn = join(gate)
        clock.now_ns += waited_ns
        gate.release()
        assert grant_of(turn) is PERMIT
    waits = gate.statistics().waits
    assert len(waits) == len(WAIT_BOUNDS_NS) + 1
    assert (waits[0], waits[1], waits[-1]) == (2, 1, 1), "the first did not wait at all, and counts as short"
    assert sum(waits) == gate.statistics().acquired == 4
