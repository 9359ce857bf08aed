from __future__ import annotations

import asyncio

import pytest

from headgate.errors import Overloaded
from headgate.queueing import OTHER, Kind
from headgate.waiters import PERMIT

from .gate_fakes import (
    MS,
    DeafWaiter,
    FakeClock,
    FakeLease,
    both_kinds,
    grant_of,
    interrupt,
    join,
    make_gate,
    numbers,
    rested,
    run_tasks,
    time_out,
    waiting_thread,
)


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
    assert grant_of(waiter) is lease
    assert grant_of(next_waiter) is None
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
    assert (grant_of(own), grant_of(other)) == (lease, None)


async def test_a_waiter_cancelled_as_a_warm_lease_is_handed_to_it_gives_it_back_once() -> None:
    gate = make_gate(1)
    lease = FakeLease(gate)
    gate.acquire_nowait()
    first, second = (asyncio.create_task(gate.acquire_async()) for _ in range(2))
    await run_tasks()
    lease.rest()  # handed to first, which has not run yet
    first.cancel()
    await run_tasks()
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
    interrupt(waiter)
    assert lease.given_back == 1
    assert numbers(gate) == (0, 0)


def test_a_waiter_timed_out_as_a_warm_lease_is_handed_to_it_has_it() -> None:
    clock = FakeClock()
    gate = make_gate(1, max_wait=0.1, clock=clock)
    gate.acquire()
    waiter, lease = join(gate), FakeLease(gate)
    clock.now_ns = 100 * MS
    lease.rest()
    assert time_out(waiter) is lease
    assert lease.given_back == 0
    assert gate.statistics().dropped == {}
    assert numbers(gate) == (1, 0)


def test_a_lease_rested_after_its_waiter_was_dropped_stays_with_its_holder() -> None:
    gate = make_gate(1)
    gate.acquire()
    waiter, lease = join(gate), FakeLease(gate)
    with pytest.raises(Overloaded):
        time_out(waiter)
    lease.rest()
    assert lease.resume()
    assert lease.given_back == 0


def test_a_lease_revoked_for_a_waiter_that_cannot_be_told_is_still_to_be_had() -> None:
    """By its holder, or by the next in need if the holder has come by in between and believes it lost."""
    gate = make_gate(1)
    gate.acquire()
    join(gate, waiter=DeafWaiter())
    lease = FakeLease(gate)
    lease.rest()
    assert lease.resume()

    class BadlyTimed(DeafWaiter):
        def wake(self) -> bool:
            assert not lease.resume(), "at this moment it is the waiter's"
            return super().wake()

    join(gate, waiter=BadlyTimed())
    lease.rest()
    assert numbers(gate) == (0, 0)
    assert gate.acquire_nowait() is lease
    lease.give_back()
    assert numbers(gate) == (0, 0)


def test_a_finalizer_inside_the_gate_may_take_its_lease_back() -> None:
    gate = make_gate(1)
    lease = rested(gate)
    with gate._draining, gate._lock:
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
    assert grant_of(waiter) is sync, "one that was left warm in the meantime"
    now = gate.statistics()
    assert (now.in_use, now.warm, now.revoked) == (3, 0, 2)
    assert (now.waited, now.wait_time_ns) == (1, 0)
