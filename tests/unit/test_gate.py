from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.config import GateOptions
from headgate.errors import LeaseError, Overloaded
from headgate.gate import Gate

FOREVER = 1e6


class FakeClock:
    def __init__(self) -> None:
        self.now_ns = 0

    def __call__(self) -> int:
        return self.now_ns


def make_gate(connections: int = 1, *, max_wait: float = FOREVER, max_pending: int = 1000) -> Gate:
    options = GateOptions(connections=connections, max_wait=max_wait, max_pending=max_pending)
    return Gate(options, name="shop", clock=FakeClock(), jitter=lambda: 0.0)


async def settle() -> None:
    """Let every task run until it waits for something."""
    for _ in range(10):
        await asyncio.sleep(0)


def numbers(gate: Gate) -> tuple[int, int]:
    now = gate.statistics()
    return now.in_use, now.pending


def test_permits_are_bounded_by_the_budget() -> None:
    gate = make_gate(2)
    assert [gate.acquire_nowait() for _ in range(3)] == [True, True, False]
    gate.release()
    assert gate.acquire_nowait()


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
    assert not gate.acquire_nowait(), "the permit belongs to the waiter, also before it has woken up"
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
    assert gate.acquire_nowait()


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
        gc.collect()
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
    gate = make_gate(1)
    await gate.acquire_async()
    first = asyncio.create_task(gate.acquire_async())
    await settle()
    with waiting_thread(gate) as thread_holds:
        last = asyncio.create_task(gate.acquire_async())
        await settle()
        gate.release()
        await first
        assert not thread_holds.is_set()
        gate.release()
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


def test_the_repr_is_a_status_line() -> None:
    gate = make_gate(2)
    gate.acquire()
    gate.take_place_nowait()
    assert repr(gate) == "<Gate 'shop' in use 1 of 2, idle 0, pending 0, oldest wait 0 ms>"


def test_statistics_tell_waits_and_use() -> None:
    gate = make_gate(1)
    gate.acquire()
    gate.release(use_ns=4_000)
    now = gate.statistics()
    assert (now.acquired, now.waited, now.mean_use_ns) == (1, 0, 4_000)


steps = st.lists(st.tuples(st.sampled_from(["start", "cancel", "release"]), st.integers(0, 7)), max_size=40)


@settings(deadline=None)
@given(steps, st.integers(1, 3), st.integers(0, 4))
def test_permits_are_conserved_after_any_order_of_acquire_cancel_and_release(
    program: list[tuple[str, int]], connections: int, max_pending: int
) -> None:
    """Cancellation comes in the same tick as the hand-over too: nothing settles between two steps."""

    async def run() -> None:
        gate = make_gate(connections, max_pending=max_pending)
        tasks: list[asyncio.Task[None]] = []
        released: set[asyncio.Task[None]] = set()

        def holders() -> list[asyncio.Task[None]]:
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
