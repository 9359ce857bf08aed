from __future__ import annotations

import asyncio
import gc
import sys
import threading
from contextlib import suppress
from functools import partial
from itertools import count
from typing import Any

import pytest

from headgate.admission import Ask
from headgate.errors import Overloaded
from headgate.gate import Gate
from headgate.turns import Turn
from headgate.waiters import PERMIT, Grant, TaskWaiter, ThreadWaiter

from .gate_fakes import (
    MS,
    FakeClock,
    FakeLease,
    WatchedLock,
    grant_of,
    interrupt,
    join,
    make_gate,
    numbers,
    time_out,
)
from .gate_steps import (
    GATE_FILES,
    called_before_step,
    in_both_orders,
    play_interleaved,
    play_interrupted,
    run_interleaved,
)


class Play:
    """One connection, its holder, somebody who waits and somebody who comes; whatever they do, all is accounted for."""

    def __init__(self) -> None:
        self.gate = make_gate(1)
        self.gate.acquire()
        self.lease = FakeLease(self.gate)
        self.turn: Turn[ThreadWaiter] | None = None
        self.holds = True
        self.has_place = self.gate.take_place_nowait()
        self.is_waiting = False
        self.newcomer: Grant | None = None

    def join(self) -> None:
        self.is_waiting = True
        self.turn = join(self.gate)

    def leave(self) -> None:
        assert self.turn is not None
        interrupt(self.turn)
        self.is_waiting = False

    def time_out(self) -> None:
        assert self.turn is not None
        try:
            time_out(self.turn)
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
        is_served = self.is_waiting and self.turn is not None and grant_of(self.turn) is not None
        owners = self.holds + is_served + (self.newcomer is not None)
        assert owners <= 1, "exactly one of those who reach for it has it"
        assert now.in_use == owners, "no permit is lost"
        assert self.gate.take_place_nowait() == (not self.has_place), "no place is lost"
        assert now.pending == (self.is_waiting and not is_served)
        assert not now.pending or now.in_use == 1, "nobody waits while a permit is free or a lease is warm"
        assert not (self.is_waiting and self.newcomer), "nobody overtakes"
        assert self.lease.given_back <= 1


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
    play_interleaved(Play, before, one, other)


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
    play_interrupted(Play, before, interrupted, finalizer)


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
    real_join = gate.join

    def interrupted_join(turn: Turn[ThreadWaiter], ask: Ask) -> int:
        real_join(turn, ask)
        raise KeyboardInterrupt

    monkeypatch.setattr(gate, "join", interrupted_join)
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

        def give_up(gate: Gate = gate, waiter: Turn[ThreadWaiter] = waiter, failed: list[bool] = failed) -> None:
            with suppress(OSError):
                failed.append(True)
                interrupt(waiter)

        with called_before_step(at_step, give_up):
            assert gate.acquire_nowait() is PERMIT
        if not failed:
            break
        assert numbers(gate) == (1, 0)


def test_two_that_ask_at_once_whether_it_is_overloaded_do_not_end_it() -> None:
    """As the middleware does for every request, while threads join the line."""
    for at_step in count(1):
        clock = FakeClock()
        gate = make_gate(max_wait=0.5, clock=clock)
        gate._line.overload.observe(1_000 * MS, 0)
        gate._line.overload.observe(1_000 * MS, 1_500 * MS)
        gate._line.overload.count_newcomer(refused=True)
        clock.now_ns = 2_000 * MS
        was_in_time = run_interleaved(
            gate, partial(getattr, gate, "is_overloaded"), partial(getattr, gate, "is_overloaded"), at_step, GATE_FILES
        )
        assert gate.is_overloaded
        if not was_in_time:
            break
