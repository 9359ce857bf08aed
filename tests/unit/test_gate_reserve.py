"""The reserve: connections of the budget that only the high lane may use."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.admission import ORDINARY, Ask
from headgate.queueing import Kind, Rank
from headgate.turns import Turn
from headgate.waiters import PERMIT, RESERVED, Grant, ThreadWaiter

from .gate_fakes import (
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
)
from .gate_steps import in_both_orders, play_interleaved, play_interrupted

HIGH = Ask(Rank.HIGH)


@pytest.mark.parametrize("rank", [Rank.UNDER_WAY, Rank.NORMAL, Rank.LOW])
def test_ordinary_traffic_never_takes_the_reserve(rank: Rank) -> None:
    gate = make_gate(3, reserve=1)
    assert [gate.acquire_nowait("sync", rank) for _ in range(3)] == [PERMIT, PERMIT, None]
    turn = join(gate, ask=Ask(rank))
    assert grant_of(turn) is None
    assert numbers(gate) == (2, 1)


@pytest.mark.parametrize("waiting", [Rank.UNDER_WAY, Rank.NORMAL])
def test_high_takes_it_at_once_past_a_line(waiting: Rank) -> None:
    gate = make_gate(2, reserve=1)
    gate.acquire_nowait()
    turn = join(gate, ask=Ask(waiting))
    assert gate.acquire_nowait("sync", Rank.HIGH) is RESERVED
    assert gate.acquire_nowait("sync", Rank.HIGH) is None
    assert grant_of(turn) is None
    assert numbers(gate) == (2, 1)


def test_high_takes_what_is_anybodys_first() -> None:
    gate = make_gate(2, reserve=1)
    assert [gate.acquire_nowait("sync", Rank.HIGH) for _ in range(3)] == [PERMIT, RESERVED, None]


def test_high_takes_a_warm_lease_before_the_reserve() -> None:
    gate = make_gate(2, reserve=1)
    lease = rested(gate)
    assert gate.acquire_nowait("sync", Rank.HIGH) is lease


def test_a_reserved_permit_comes_back_to_the_reserve() -> None:
    gate = make_gate(2, reserve=1)
    for _ in range(2):
        gate.acquire_nowait("sync", Rank.HIGH)
    newcomer = join(gate)
    gate.release(is_reserved=True)
    assert grant_of(newcomer) is None
    assert gate.acquire_nowait("sync", Rank.HIGH) is RESERVED
    gate.release(is_reserved=True)
    gate.release()
    assert grant_of(newcomer) is PERMIT
    gate.release()
    assert numbers(gate) == (0, 0)


@both_kinds
def test_a_reserved_permit_goes_to_a_high_waiter_of_any_kind(kind: Kind) -> None:
    clock = FakeClock()
    gate = make_gate(2, reserve=1, clock=clock)
    for _ in range(2):
        gate.acquire_nowait("sync", Rank.HIGH)
    join(gate)
    first = join(gate, kind, HIGH)
    clock.now_ns += 1
    second = join(gate, "sync", HIGH)
    gate.release(is_reserved=True)
    assert [grant_of(turn) for turn in (first, second)] == [RESERVED, None]
    gate.release()
    assert grant_of(second) is PERMIT


def test_high_waits_before_newcomers_for_what_is_anybodys() -> None:
    gate = make_gate(2, reserve=1)
    for _ in range(2):
        gate.acquire_nowait("sync", Rank.HIGH)
    newcomer, high = join(gate), join(gate, ask=HIGH)
    gate.release()
    assert (grant_of(newcomer), grant_of(high)) == (None, PERMIT)


def test_what_is_reserved_is_passed_over_one_that_cannot_be_told() -> None:
    gate = make_gate(2, reserve=1)
    for _ in range(2):
        gate.acquire_nowait("sync", Rank.HIGH)
    join(gate, ask=HIGH, waiter=DeafWaiter())
    high = join(gate, ask=HIGH)
    gate.release(is_reserved=True)
    assert grant_of(high) is RESERVED
    join(gate, ask=HIGH, waiter=DeafWaiter())
    gate.release(is_reserved=True)
    assert gate.acquire_nowait("sync", Rank.HIGH) is RESERVED


async def test_a_high_task_cancelled_at_hand_over_gives_the_reserve_back() -> None:
    gate = make_gate(2, reserve=1)
    for _ in range(2):
        gate.acquire_nowait("async", Rank.HIGH)
    first, second = (asyncio.create_task(gate.acquire_async(HIGH)) for _ in range(2))
    await run_tasks()
    gate.release(is_reserved=True)
    first.cancel()
    await run_tasks()
    assert first.cancelled()
    assert second.result() is RESERVED
    gate.release(is_reserved=True)
    gate.release()
    assert numbers(gate) == (0, 0)


def test_statistics_count_what_is_out_of_the_reserve_as_in_use() -> None:
    gate = make_gate(3, reserve=2)
    grants = [gate.acquire_nowait("sync", Rank.HIGH) for _ in range(4)]
    assert grants == [PERMIT, RESERVED, RESERVED, None]
    assert gate.statistics().in_use == 3
    for grant in grants[:3]:
        gate.release(is_reserved=grant is RESERVED)
    assert gate.statistics().in_use == 0


# one step at a time


class Play:
    """Two connections, one of them reserved and both out; a newcomer and a high one wait or come."""

    def __init__(self) -> None:
        self.gate = make_gate(2, reserve=1)
        for _ in range(2):
            self.gate.acquire_nowait("sync", Rank.HIGH)
        self.held = {PERMIT, RESERVED}
        self.turns: dict[str, Turn[ThreadWaiter]] = {}
        self.came: Grant | None = None

    def join(self) -> None:
        self.turns["newcomer"] = join(self.gate, ask=ORDINARY)

    def join_high(self) -> None:
        self.turns["high"] = join(self.gate, ask=HIGH)

    def leave_high(self) -> None:
        interrupt(self.turns.pop("high"))

    def come_high(self) -> None:
        self.came = self.gate.acquire_nowait("sync", Rank.HIGH)

    def release(self) -> None:
        self.held.discard(PERMIT)
        self.gate.release()

    def release_reserved(self) -> None:
        self.held.discard(RESERVED)
        self.gate.release(is_reserved=True)

    def check(self) -> None:
        grants = {name: grant_of(turn) for name, turn in self.turns.items()}
        out = [*self.held, *(grant for grant in (*grants.values(), self.came) if grant is not None)]
        assert sorted(map(id, out)) == sorted(map(id, set(out))), "each permit is somebody's once"
        assert grants.get("newcomer") is not RESERVED, "ordinary traffic never takes the reserve"
        now = self.gate.statistics()
        assert now.in_use == len(out), "no permit is lost"
        waiting = [name for name, grant in grants.items() if grant is None]
        assert now.pending == len(waiting)
        assert "high" not in waiting or len(out) == 2, "high does not wait while anything is free"
        assert "newcomer" not in waiting or PERMIT in out, "nobody waits while what is anybody's is free"
        for grant in out:
            self.gate.release(is_reserved=grant is RESERVED)


@pytest.mark.parametrize(
    ("before", "one", "other"),
    [
        *in_both_orders("", "release_reserved", "join_high"),
        *in_both_orders("", "release_reserved", "come_high"),
        *in_both_orders("", "release_reserved", "join"),
        *in_both_orders("join", "release_reserved", "come_high"),
        *in_both_orders("join", "release", "join_high"),
        *in_both_orders("join join_high", "release", "release_reserved"),
        *in_both_orders("join join_high", "release", "leave_high"),
        *in_both_orders("join join_high", "release_reserved", "leave_high"),
    ],
)
def test_the_reserve_is_kept_wherever_one_thread_comes_in_between_the_steps_of_another(
    before: str, one: str, other: str
) -> None:
    play_interleaved(Play, before, one, other)


@pytest.mark.parametrize(
    ("before", "interrupted", "finalizer"),
    [
        ("", "join_high", "release_reserved"),
        ("", "come_high", "release_reserved"),
        ("join", "join_high", "release"),
        ("join join_high", "release", "release_reserved"),
        ("join join_high", "release_reserved", "release"),
        ("join join_high", "release_reserved", "leave_high"),
        ("join join_high", "leave_high", "release_reserved"),
    ],
)
def test_a_finalizer_may_give_back_to_the_reserve_anywhere(before: str, interrupted: str, finalizer: str) -> None:
    play_interrupted(Play, before, interrupted, finalizer)


# any order


class Program:
    """Whoever holds, waits or has left a lease warm, and the same counted plainly."""

    def __init__(self, ordinary: int, reserve: int) -> None:
        self.ordinary, self.reserve = ordinary, reserve
        self.gate = make_gate(ordinary + reserve, reserve=reserve)
        self.held: list[Grant] = []
        self.warm: list[FakeLease] = []
        self.waiting: list[tuple[Turn[ThreadWaiter], Rank]] = []

    def come(self, rank: Rank, _: int) -> None:
        grant = self.gate.acquire_nowait("sync", rank)
        if grant is not None:
            self.take(grant, rank)

    def join(self, rank: Rank, _: int) -> None:
        self.waiting.append((join(self.gate, ask=Ask(rank)), rank))

    def leave(self, _: Rank, number: int) -> None:
        if self.waiting:
            interrupt(self.waiting.pop(number % len(self.waiting))[0])

    def release(self, _: Rank, number: int) -> None:
        if self.held:
            self.gate.release(is_reserved=self.held.pop(number % len(self.held)) is RESERVED)

    def rest(self, _: Rank, __: int) -> None:
        if PERMIT in self.held:
            self.held.remove(PERMIT)
            self.warm.append(FakeLease(self.gate))
            self.warm[-1].rest()

    def take(self, grant: Grant, rank: Rank) -> None:
        assert grant is not RESERVED or rank is Rank.HIGH, "ordinary traffic never takes the reserve"
        self.held.append(RESERVED if grant is RESERVED else PERMIT)

    def check(self) -> None:
        for turn, rank in [one for one in self.waiting if grant_of(one[0]) is not None]:
            self.waiting.remove((turn, rank))
            self.take(turn.grant, rank)
        now, ranks = self.gate.statistics(), [rank for _, rank in self.waiting]
        warm = sum(lease.is_warm for lease in self.warm)
        assert (now.in_use, now.warm, now.pending) == (len(self.held), warm, len(ranks))
        assert self.held.count(RESERVED) <= self.reserve
        assert self.held.count(PERMIT) + warm <= self.ordinary
        assert not ranks or self.held.count(PERMIT) == self.ordinary, "nobody waits while what is anybody's is free"
        assert Rank.HIGH not in ranks or self.held.count(RESERVED) == self.reserve, "high takes what is reserved"

    def end(self) -> None:
        for turn, _ in self.waiting:
            interrupt(turn)
        while self.held:
            self.release(Rank.NORMAL, 0)
        for lease in self.warm:
            if lease.resume():
                self.gate.release()
        assert numbers(self.gate) == (0, 0)
        assert self.gate._reserve == self.reserve, "it has all come back"


steps = st.lists(
    st.tuples(
        st.sampled_from(["come", "join", "release", "leave", "rest"]), st.sampled_from(list(Rank)), st.integers(0, 9)
    ),
    max_size=50,
)


@given(steps, st.integers(1, 4), st.integers(0, 3))
def test_the_reserve_is_kept_after_any_order_of_events(
    actions: list[tuple[str, Rank, int]], ordinary: int, reserve: int
) -> None:
    program = Program(ordinary, reserve)
    for action, rank, number in actions:
        getattr(program, action)(rank, number)
        program.check()
    program.end()
