from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from heapq import heappop, heappush
from itertools import count
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.errors import Overloaded
from headgate.gate import SWITCH_INTERVAL_NS
from headgate.queueing import OTHER, PATIENCE_NS, Kind
from headgate.turns import Turn
from headgate.waiters import PERMIT, ThreadWaiter

from .gate_fakes import (
    FOREVER,
    KINDS,
    MS,
    FakeClock,
    both_kinds,
    grant_of,
    join,
    make_gate,
    numbers,
    time_out,
)


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
        assert [waiter.waiter.kind for waiter in (own, other) if grant_of(waiter)] == [served]


@both_kinds
def test_a_permit_goes_to_the_other_kind_at_once_if_nobody_of_its_own_waits(kind: Kind) -> None:
    gate = make_gate(1)
    gate.acquire_nowait(kind)
    waiters = [join(gate, OTHER[kind]) for _ in range(3)]
    for waiter in waiters:
        gate.release(kind=kind)
        assert grant_of(waiter) is PERMIT


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
    assert [grant_of(waiter) for waiter in (*others, own)] == [PERMIT, None, PERMIT]
    join(gate, kind)
    clock.now_ns += 1
    gate.release(kind=kind)
    assert grant_of(others[1]) is PERMIT


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
        self.waiting: dict[Turn[ThreadWaiter], Arrival] = {}
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
        try:
            turn = join(self.gate, arrival.kind)
        except Overloaded:
            self.refused[arrival.kind] += 1
            return
        self.waiting[turn] = arrival
        self._plan(turn.until_ns, partial(self._time_out, turn))
        for evicted in [turn for turn in self.waiting if turn.waiter.outcome == "overload"]:
            self._time_out(evicted)

    def _serve(self, arrival: Arrival) -> None:
        self.served[arrival.kind] += 1
        self._plan(self.clock.now_ns + arrival.use_ns, partial(self._finish, arrival))

    def _finish(self, arrival: Arrival) -> None:
        before = list(self.waiting)
        self.gate.release(arrival.use_ns, arrival.kind)
        chosen = next((turn for turn in before if grant_of(turn) is not None), None)
        self.handed_over(arrival.kind, before, chosen)
        if chosen is not None:
            self._serve(self.waiting.pop(chosen))

    def _time_out(self, turn: Turn[ThreadWaiter]) -> None:
        if turn in self.waiting:
            del self.waiting[turn]
            self.refused[turn.waiter.kind] += 1
            with pytest.raises(Overloaded):
                time_out(turn)

    def handed_over(self, kind: Kind, before: list[Turn[ThreadWaiter]], chosen: Turn[ThreadWaiter] | None) -> None:
        """A connection of a kind came back while these waited; somebody or nobody was chosen."""


class JudgedSimulation(Simulation):
    """One that holds every hand-over against the rules."""

    last_switch_ns = last_fought_switch_ns = -SWITCH_INTERVAL_NS

    def handed_over(self, kind: Kind, before: list[Turn[ThreadWaiter]], chosen: Turn[ThreadWaiter] | None) -> None:
        assert (chosen is None) == (not before), "nobody waits while a permit is free"
        if chosen is None:
            return
        heads = {turn.waiter.kind: turn for turn in reversed(before)}
        assert chosen is heads[chosen.waiter.kind], "first come, first served within a kind"
        if len(heads) == 2:
            self._judge(kind, heads, chosen)
        if chosen.waiter.kind != kind:
            self.last_switch_ns = self.clock.now_ns

    def _judge(self, kind: Kind, heads: dict[Kind, Turn[ThreadWaiter]], chosen: Turn[ThreadWaiter]) -> None:
        now_ns = self.clock.now_ns
        if chosen.waiter.kind == kind:
            older_by_ns = heads[kind].joined_ns - heads[OTHER[kind]].joined_ns
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
        def handed_over(
            self, kind_back: Kind, before: list[Turn[ThreadWaiter]], chosen: Turn[ThreadWaiter] | None
        ) -> None:
            super().handed_over(kind_back, before, chosen)
            alone = next((turn for turn in self.waiting if turn.waiter.kind == kind), None)
            if alone is not None and chosen is not None and chosen is not alone:
                passed_by_ns.append(chosen.joined_ns - alone.joined_ns)

    Watched(connections).run(crowd)
    assert max(passed_by_ns, default=0) <= PATIENCE_NS + SWITCH_INTERVAL_NS


@both_kinds
@pytest.mark.parametrize("max_wait", [0.05, 0.2])
@pytest.mark.parametrize("others", [20, 5, 2])
def test_one_kind_in_overload_leaves_something_to_the_other(kind: Kind, max_wait: float, others: int) -> None:
    """One of so many others comes of this kind, at twice the capacity: its share is not much below theirs."""
    crowd = [Arrival(5 * MS, OTHER[kind], 10 * MS) for _ in range(others)]
    rounds = 400 // others
    simulation = Simulation(1, max_wait=max_wait)
    simulation.run([*crowd, Arrival(0, kind, 10 * MS)] * rounds)
    shares = {kind: simulation.served[kind] / rounds, OTHER[kind]: simulation.served[OTHER[kind]] / rounds / others}
    assert shares[kind] >= 0.4 * shares[OTHER[kind]]
    assert shares[OTHER[kind]] >= 0.4 * min(shares[kind], 0.5)
