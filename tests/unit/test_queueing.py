from __future__ import annotations

import math
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.queueing import LEAST_ROOM, NEWCOMERS, OTHER, PATIENCE_NS, SPARE, Joined, Kind, Rank, Reason, WaitingLine

KINDS: tuple[Kind, Kind] = ("sync", "async")
both_kinds = pytest.mark.parametrize("kind", KINDS)


MS = 1_000_000
MAX_WAIT_NS = 500 * MS
TARGET_NS = MAX_WAIT_NS // 10
INTERVAL_NS = 3 * MAX_WAIT_NS
WINDOW_NS = MAX_WAIT_NS
HOLD_NS = 10 * MS


def line(*, connections: int = 1, max_pending: int = 3, max_wait_ns: int = 100) -> WaitingLine[str]:
    return WaitingLine(connections=connections, max_pending=max_pending, max_wait_ns=max_wait_ns)


def is_in(joined: Joined[str] | Reason) -> bool:
    return not isinstance(joined, str)


def test_first_come_is_first_served() -> None:
    queue = line()
    for name in "abc":
        queue.join(name, "sync", now_ns=0)
    assert [queue.next("sync", now_ns=0) for _ in range(3)] == [("a", 0), ("b", 0), ("c", 0)]
    assert queue.next_kind("sync", now_ns=0) is None
    with pytest.raises(KeyError):
        queue.next("sync", now_ns=0)


def test_a_full_line_admits_nobody() -> None:
    queue = line(max_pending=1)
    assert queue.join("a", "sync", now_ns=5) == Joined(105, None)
    assert queue.join("b", "sync", now_ns=5) == "full"
    assert len(queue) == 1


def test_a_line_of_no_length_admits_nobody() -> None:
    assert line(max_pending=0).join("a", "sync", now_ns=0) == "full"


def test_whoever_left_is_neither_counted_nor_served() -> None:
    queue = line()
    queue.join("a", "sync", now_ns=0)
    queue.join("b", "sync", now_ns=1)
    assert queue.leave("a", now_ns=1)
    assert not queue.leave("a", now_ns=1)
    assert len(queue) == 1
    assert queue.next("sync", now_ns=2) == ("b", 1)


def test_the_oldest_wait_is_that_of_the_first_in_line() -> None:
    queue = line()
    assert queue.oldest_wait_ns(now_ns=50) == 0
    queue.join("a", "sync", now_ns=10)
    queue.join("b", "sync", now_ns=40)
    assert queue.oldest_wait_ns(now_ns=50) == 40


def test_the_oldest_wait_is_that_of_either_kind() -> None:
    for first, second in (KINDS, KINDS[::-1]):
        queue = line()
        queue.join("a", first, now_ns=10)
        queue.join("b", second, now_ns=40)
        assert queue.oldest_wait_ns(now_ns=50) == 40
        assert queue.longest_waiting() == first


@both_kinds
def test_both_kinds_share_the_room_in_the_line(kind: Kind) -> None:
    queue = line(max_pending=2)
    assert is_in(queue.join("a", kind, now_ns=0))
    assert is_in(queue.join("b", OTHER[kind], now_ns=0))
    assert queue.join("c", kind, now_ns=0) == "full"
    assert queue.leave("b", now_ns=0)
    assert is_in(queue.join("c", kind, now_ns=0))


@both_kinds
@pytest.mark.parametrize(
    ("own_waits_ns", "other_waits_ns", "may_switch", "goes_to_own"),
    [
        pytest.param(0, None, True, True, id="nobody of the other kind waits"),
        pytest.param(None, 0, True, False, id="nobody of its own waits"),
        pytest.param(None, 0, False, False, id="nobody of its own waits, and it may not switch: better than idle"),
        pytest.param(0, 0, True, True, id="both have waited as long"),
        pytest.param(0, PATIENCE_NS, True, True, id="the other has waited longer by patience"),
        pytest.param(0, PATIENCE_NS + 1, True, False, id="the other has waited longer than that"),
        pytest.param(0, PATIENCE_NS + 1, False, True, id="it may not switch"),
        pytest.param(PATIENCE_NS + 1, 0, True, True, id="its own has waited longer"),
    ],
)
def test_a_connection_stays_with_its_kind_until_the_other_has_waited_longer_by_patience(
    kind: Kind, own_waits_ns: int | None, other_waits_ns: int | None, may_switch: bool, goes_to_own: bool
) -> None:
    queue = line(max_wait_ns=10**12)
    now_ns = 10**9
    for waiting, waits_ns in ((kind, own_waits_ns), (OTHER[kind], other_waits_ns)):
        if waits_ns is not None:
            queue.join(waiting, waiting, now_ns - waits_ns)
            queue.join(f"later {waiting}", waiting, now_ns)
    assert queue.next_kind(kind, now_ns, may_switch=may_switch) == (kind if goes_to_own else OTHER[kind])


@both_kinds
def test_a_kind_that_waits_has_a_turn_although_the_other_waits_as_long(kind: Kind) -> None:
    """Where everybody waits nearly the longest time allowed, nobody waits longer by patience."""
    queue = line(max_wait_ns=10**12, max_pending=10)
    for name in "abc":
        queue.join(f"own {name}", kind, now_ns=0)
        queue.join(f"other {name}", OTHER[kind], now_ns=0)
    served_ns = 10**9
    queue.next(OTHER[kind], served_ns)
    assert queue.next_kind(kind, served_ns + PATIENCE_NS) == kind
    assert queue.next_kind(kind, served_ns + PATIENCE_NS + 1) == OTHER[kind]
    queue.next(OTHER[kind], served_ns + PATIENCE_NS + 1)
    assert queue.next_kind(kind, served_ns + PATIENCE_NS + 1) == kind


@both_kinds
def test_nobody_to_go_to(kind: Kind) -> None:
    assert line().next_kind(kind, now_ns=0) is None


@both_kinds
def test_each_kind_is_served_in_its_own_order(kind: Kind) -> None:
    queue = line()
    queue.join("a", OTHER[kind], now_ns=0)
    queue.join("b", kind, now_ns=1)
    queue.join("c", kind, now_ns=2)
    served = [queue.next(whose, now_ns=3) for whose in (kind, kind, OTHER[kind])]
    assert served == [("b", 1), ("c", 2), ("a", 0)]


# who may wait, and for how long


def test_a_newcomer_waits_until_the_earlier_of_max_wait_and_its_deadline() -> None:
    for deadline_ns, until_ns in ((None, 105), (50, 50), (1_000, 105)):
        assert line().join("a", "sync", now_ns=5, deadline_ns=deadline_ns) == Joined(until_ns, None)


@pytest.mark.parametrize("rank", [Rank.HIGH, Rank.NORMAL, Rank.LOW])
def test_whose_deadline_has_come_is_not_let_in(rank: Rank) -> None:
    assert line().join("a", "sync", now_ns=50, deadline_ns=50, rank=rank) == "deadline"


def test_where_waiting_is_turned_off_nobody_waits() -> None:
    assert line(max_wait_ns=0).join("a", "sync", now_ns=5) == "deadline"


def measured_line(step_ns: int = HOLD_NS, *, max_pending: int = 1_000) -> tuple[WaitingLine[str], int]:
    """A line of one connection that is known to come back that often."""
    queue = line(max_pending=max_pending, max_wait_ns=MAX_WAIT_NS)
    for number in range(3):
        queue.join(f"before {number}", "sync", 0)
    for number in range(3):
        queue.next("sync", number * step_ns)
    return queue, 2 * step_ns


def test_one_that_would_wait_longer_than_it_may_is_turned_away_at_once() -> None:
    queue, now_ns = measured_line()
    fits = math.floor(MAX_WAIT_NS / HOLD_NS / SPARE) + 1  # one whose turn it is, and those behind it
    for number in range(fits):
        assert queue.join(f"{number}", "sync", now_ns) == Joined(now_ns + MAX_WAIT_NS, None)
    assert queue.join("one more", "sync", now_ns) == "full"


def in_time(holds: int) -> int:
    """Nanoseconds within which that many are surely served."""
    return math.ceil(holds * HOLD_NS * SPARE)


def test_a_shorter_deadline_fits_fewer() -> None:
    queue, now_ns = measured_line()
    for number in range(3):
        assert is_in(queue.join(f"{number}", "sync", now_ns, deadline_ns=now_ns + in_time(2)))
    assert queue.join("one more", "sync", now_ns, deadline_ns=now_ns + in_time(2)) == "full"
    assert is_in(queue.join("one with more time", "sync", now_ns, deadline_ns=now_ns + in_time(3)))


def test_only_those_count_who_are_served_before() -> None:
    queue, now_ns = measured_line()
    for number in range(MAX_WAIT_NS // HOLD_NS + 1):
        queue.join(f"{number}", "sync", now_ns, rank=Rank.LOW)
    assert queue.join("low", "sync", now_ns, rank=Rank.LOW) == "full"
    assert is_in(queue.join("normal", "sync", now_ns))
    assert is_in(queue.join("high", "sync", now_ns, rank=Rank.HIGH))


def test_while_nothing_has_been_measured_lately_nobody_is_turned_away_for_a_guess() -> None:
    queue, now_ns = measured_line(step_ns=2 * MAX_WAIT_NS)
    for number in range(2):
        queue.join(f"{number}", "sync", now_ns)
    assert queue.join("at once", "sync", now_ns) == "full"
    for number in range(2):
        queue.leave(f"{number}", now_ns)
    later_ns = now_ns + 100 * MAX_WAIT_NS
    assert all(is_in(queue.join(f"{number}", "sync", later_ns)) for number in range(100))


def test_the_time_after_the_last_one_gave_up_is_not_measured() -> None:
    """As when the server stood still until everybody had gone: the next burst knows nothing of it."""
    queue, now_ns = measured_line()
    queue.join("served", "sync", now_ns)
    queue.join("gone", "sync", now_ns)
    queue.next("sync", now_ns + HOLD_NS)
    queue.leave("gone", now_ns + MAX_WAIT_NS)
    later_ns = now_ns + 1_000 * MAX_WAIT_NS
    for name in "abcd":
        queue.join(name, "sync", later_ns)
    queue.next("sync", later_ns + HOLD_NS)
    assert is_in(queue.join("e", "sync", later_ns + HOLD_NS))


# overload


def overloaded_line(*, waiting: int = 0, max_pending: int = 1_000) -> tuple[WaitingLine[str], int]:
    """A line of one connection in overload, as many of whose backlog still wait."""
    queue = line(max_pending=max_pending, max_wait_ns=MAX_WAIT_NS)
    now_ns, number = 0, 0
    while not queue.overload.is_overloaded(now_ns):
        while len(queue) < max(waiting, 11):
            queue.join(f"backlog {number}", "sync", now_ns)
            number += 1
        now_ns += HOLD_NS
        queue.next("sync", now_ns)
    while len(queue) > waiting:
        queue.next("sync", now_ns)
    return queue, now_ns


def fill(queue: WaitingLine[str], now_ns: int, rank: Rank = Rank.NORMAL) -> list[str]:
    """As many as the overload leaves room for."""
    names = [f"{rank.name} {number}" for number in range(LEAST_ROOM)]
    for name in names:
        assert queue.join(name, "sync", now_ns, rank=rank) == Joined(now_ns + MAX_WAIT_NS, None)
    return names


def test_overload_begins_when_the_head_of_the_line_has_stood_for_an_interval() -> None:
    _, now_ns = overloaded_line()
    assert INTERVAL_NS <= now_ns <= INTERVAL_NS + 2 * TARGET_NS + 2 * HOLD_NS


@pytest.mark.parametrize("is_served", [True, False])
def test_the_wait_that_stood_is_over_when_its_waiter_is_served_or_leaves(is_served: bool) -> None:
    """The next one has waited for a moment only, and its wait counts from there."""
    queue = line(max_wait_ns=MAX_WAIT_NS)
    queue.join("a", "sync", 0)
    since_ns = TARGET_NS + 1
    queue.join("b", "sync", since_ns)
    assert queue.next("sync", since_ns + 1) == ("a", 0) if is_served else queue.leave("a", since_ns + 1)
    queue.join("c", "sync", since_ns + INTERVAL_NS)
    assert not queue.overload.is_overloaded(since_ns + INTERVAL_NS)


def test_in_overload_one_more_takes_the_place_of_the_one_that_has_waited_longest() -> None:
    queue, now_ns = overloaded_line()
    first, second = fill(queue, now_ns)
    assert queue.join("c", "sync", now_ns + 1) == Joined(now_ns + 1 + MAX_WAIT_NS, first)
    assert queue.join("d", "sync", now_ns + 2) == Joined(now_ns + 2 + MAX_WAIT_NS, second)
    assert [queue.next("sync", now_ns + 3)[0] for _ in range(2)] == ["c", "d"]


def test_a_backlog_from_before_the_overload_is_served_before_anybody_is_let_in() -> None:
    queue, now_ns = overloaded_line(waiting=LEAST_ROOM + 1)
    assert queue.join("too early", "sync", now_ns) == "overload"
    served, _ = queue.next("sync", now_ns)
    assert served.startswith("backlog")
    joined = queue.join("next", "sync", now_ns)
    assert not isinstance(joined, str)
    assert joined.evicted is not None


def test_low_makes_room_for_normal_and_not_the_other_way_round() -> None:
    queue, now_ns = overloaded_line()
    first, second = fill(queue, now_ns, Rank.LOW)
    assert queue.join("a", "sync", now_ns) == Joined(now_ns + MAX_WAIT_NS, first)
    assert queue.join("b", "sync", now_ns) == Joined(now_ns + MAX_WAIT_NS, second)
    assert queue.join("low", "sync", now_ns, rank=Rank.LOW) == "overload"
    assert queue.join("c", "sync", now_ns) == Joined(now_ns + MAX_WAIT_NS, "a")


def test_low_makes_room_for_normal_before_the_backlog_is_served_too() -> None:
    queue, now_ns = overloaded_line(waiting=LEAST_ROOM + 1)
    assert queue.join("low", "sync", now_ns, rank=Rank.LOW) == "overload"
    for name in (f"backlog {number}" for number in range(1_000)):
        if queue.leave(name, now_ns) and len(queue) == LEAST_ROOM - 1:
            break
    assert queue.join("low", "sync", now_ns, rank=Rank.LOW) == Joined(now_ns + MAX_WAIT_NS, None)
    assert queue.join("normal", "sync", now_ns) == Joined(now_ns + MAX_WAIT_NS, "low")


@pytest.mark.parametrize("rank", [Rank.HIGH, Rank.UNDER_WAY])
def test_neither_high_nor_under_way_is_kept_out_or_evicted_in_overload(rank: Rank) -> None:
    queue, now_ns = overloaded_line()
    fill(queue, now_ns)
    for number in range(5):
        joined = queue.join(f"{number}", "sync", now_ns, rank=rank)
        assert not isinstance(joined, str)
        assert joined.evicted is None
    for number in range(5, 20):
        joined = queue.join(f"{number}", "sync", now_ns)
        assert not isinstance(joined, str)
        assert joined.evicted is not None
    assert [queue.next("sync", now_ns)[0] for _ in range(5)] == [f"{number}" for number in range(5)]


@both_kinds
def test_one_alone_of_its_kind_is_not_evicted_for_one_of_the_other(kind: Kind) -> None:
    queue, now_ns = overloaded_line()
    queue.join("alone", kind, now_ns)
    queue.join("a", OTHER[kind], now_ns)
    assert queue.join("b", OTHER[kind], now_ns) == Joined(now_ns + MAX_WAIT_NS, "a")
    assert queue.join("another", kind, now_ns) == Joined(now_ns + MAX_WAIT_NS, "alone")


@both_kinds
def test_a_kind_whose_waiters_take_each_others_places_has_its_turn_all_the_same(kind: Kind) -> None:
    queue, now_ns = overloaded_line()
    queue.next_kind(kind, now_ns)
    for _ in range(20):
        now_ns += PATIENCE_NS // 20
        queue.join(f"own {now_ns}", kind, now_ns)
        queue.join(f"other {now_ns}", OTHER[kind], now_ns)
        queue.join(f"its next {now_ns}", OTHER[kind], now_ns)
    assert queue.next_kind(kind, now_ns + PATIENCE_NS) == OTHER[kind]


def test_in_overload_the_room_is_what_is_served_within_two_thirds_of_the_target() -> None:
    queue = line(connections=10, max_pending=1_000, max_wait_ns=MAX_WAIT_NS)
    assert queue.room(0) == LEAST_ROOM
    assert queue.room(0, use_ns=10 * MS) == pytest.approx(TARGET_NS / 1.5 / MS)
    assert queue.room(0, use_ns=10**10) == LEAST_ROOM


def test_overload_ends_for_the_line_when_everybody_fits_again() -> None:
    queue, now_ns = overloaded_line()
    for number in range(20):
        queue.join(f"{number}", "sync", now_ns)
        queue.next("sync", now_ns)
    assert not queue.overload.is_overloaded(now_ns + WINDOW_NS)
    assert all(is_in(queue.join(f"again {number}", "sync", now_ns + WINDOW_NS)) for number in range(10))


def test_somebody_is_told_before_it_begins_only_in_overload_and_only_without_room() -> None:
    queue = line(max_pending=1_000, max_wait_ns=MAX_WAIT_NS)
    for number in range(10):
        queue.join(f"{number}", "sync", 0)
    assert not queue.would_refuse(0, expected=100)
    queue, now_ns = overloaded_line()
    assert not queue.would_refuse(now_ns, expected=LEAST_ROOM - 1)
    assert queue.would_refuse(now_ns, expected=LEAST_ROOM)
    fill(queue, now_ns)
    assert queue.would_refuse(now_ns, expected=0)


def test_who_cannot_be_served_in_time_need_not_begin() -> None:
    """A burst that fills the line is told so before routing, overloaded or not; as long as somebody is measured."""
    queue = WaitingLine[int](connections=1, max_pending=1000, max_wait_ns=100 * MS)
    for number in range(30):
        queue.join(number, "async", 0)
    assert queue.would_refuse(0, expected=1000) is None, "nothing is known yet of how fast they are served"
    for grant in range(1, 5):
        queue.next("async", grant * 10 * MS)
    now_ns = 40 * MS
    assert queue.would_refuse(now_ns, expected=0) == "full"
    for number in range(4, 25):
        queue.leave(number, now_ns)
    assert queue.would_refuse(now_ns, expected=0) is None
    assert queue.would_refuse(now_ns, expected=10) == "full"


# the order


def test_within_a_kind_the_ranks_go_one_after_the_other_each_in_its_order() -> None:
    queue = line(max_pending=100, max_wait_ns=10**12)
    for number, rank in enumerate([Rank.LOW, Rank.NORMAL, Rank.UNDER_WAY, Rank.HIGH] * 2):
        queue.join(f"{rank.name} {number}", "sync", now_ns=number, rank=rank)
    served = [queue.next("sync", now_ns=9)[0].split()[0] for _ in range(8)]
    assert served == ["HIGH", "HIGH", "UNDER_WAY", "UNDER_WAY", "NORMAL", "NORMAL", "LOW", "LOW"]


@both_kinds
def test_of_two_high_ones_the_earlier_is_first_whatever_its_kind(kind: Kind) -> None:
    queue = line(max_pending=9)
    queue.join("normal", kind, now_ns=0)
    assert queue.next_high() is None
    queue.join("first", kind, now_ns=1, rank=Rank.HIGH)
    queue.join("second", OTHER[kind], now_ns=2, rank=Rank.HIGH)
    assert [queue.next_high(), queue.next_high(), queue.next_high()] == [("first", 1), ("second", 2), None]
    assert len(queue) == 1


@both_kinds
def test_whose_turn_it_is_depends_on_the_rank_first(kind: Kind) -> None:
    queue = line()
    queue.join("newcomer", kind, now_ns=0)
    queue.join("under way", OTHER[kind], now_ns=50, rank=Rank.UNDER_WAY)
    assert queue.longest_waiting() == OTHER[kind]


@both_kinds
def test_a_better_rank_of_the_other_kind_goes_first_if_it_came_first(kind: Kind) -> None:
    queue = line(max_wait_ns=10**12)
    queue.join("under way", OTHER[kind], now_ns=0, rank=Rank.UNDER_WAY)
    queue.join("newcomer", kind, now_ns=1)
    assert queue.next_kind(kind, now_ns=2) == OTHER[kind]
    assert queue.next_kind(kind, now_ns=2, may_switch=False) == kind


# whatever happens


class Model:
    """What the line must be after any order of events, said plainly."""

    def __init__(self, max_pending: int) -> None:
        self.queue: WaitingLine[int] = WaitingLine(connections=2, max_pending=max_pending, max_wait_ns=MAX_WAIT_NS)
        self.waiting: dict[int, tuple[Kind, Rank, int]] = {}
        self.until_ns: dict[int, int | None] = {}
        self.now_ns = 0

    def join(self, who: int, kind: Kind, rank: Rank, deadline_in_ns: int | None) -> None:
        deadline_ns = None if deadline_in_ns is None else self.now_ns + deadline_in_ns
        was_overloaded = self.queue.overload.is_overloaded(self.now_ns)
        pending = len(self.waiting)
        joined = self.queue.join(who, kind, self.now_ns, rank=rank, deadline_ns=deadline_ns, use_ns=HOLD_NS)
        if isinstance(joined, str):
            assert rank is not Rank.UNDER_WAY, "whoever is under way is never refused"
            assert joined != "overload" or (was_overloaded and rank in NEWCOMERS)
            assert pending < self.queue.max_pending or joined == "full"
            return
        if joined.evicted is not None:
            assert was_overloaded
            self._check_evicted(self.waiting.pop(joined.evicted), rank)
        self.waiting[who] = kind, rank, self.now_ns
        self.until_ns[who] = joined.deadline_ns
        if rank is not Rank.UNDER_WAY:
            assert joined.deadline_ns is not None
            assert self.now_ns < joined.deadline_ns <= self.now_ns + MAX_WAIT_NS
            assert pending < self.queue.max_pending
        assert deadline_ns is None or joined.deadline_ns is None or joined.deadline_ns <= deadline_ns

    def _check_evicted(self, evicted: tuple[Kind, Rank, int], rank: Rank) -> None:
        kind, last, joined_ns = evicted
        assert last in NEWCOMERS
        assert last >= rank
        assert all(other <= last for _, other, _ in self.waiting.values() if other in NEWCOMERS), "the last rank"
        same = [at_ns for its_kind, other, at_ns in self.waiting.values() if (its_kind, other) == (kind, last)]
        assert all(joined_ns <= at_ns for at_ns in same), "the one that has waited longest"

    def leave(self, who: int) -> None:
        assert self.queue.leave(who, self.now_ns) == (who in self.waiting)
        self.waiting.pop(who, None)

    def serve(self, kind: Kind) -> None:
        chosen = self.queue.next_kind(kind, self.now_ns)
        assert (chosen is None) == (not self.waiting), "nobody waits in vain"
        if chosen is None:
            return
        who, joined_ns = self.queue.next(chosen, self.now_ns)
        own_kind, rank, at_ns = self.waiting.pop(who)
        assert (own_kind, at_ns) == (chosen, joined_ns)
        others = [(other, at) for its_kind, other, at in self.waiting.values() if its_kind == chosen]
        assert all((rank, at_ns) <= other for other in others), "first come, first served within a kind and a rank"

    def give_up(self) -> None:
        """Whoever has waited as long as it may leaves the line, as waiters do by themselves."""
        for who in [who for who in self.waiting if (self.until_ns[who] or self.now_ns + 1) <= self.now_ns]:
            self.leave(who)

    def check(self) -> None:
        assert len(self.queue) == len(self.waiting), "pending is the number of live waiters"
        assert bool(self.queue) == bool(self.waiting)
        under_way = sum(rank is Rank.UNDER_WAY for _, rank, _ in self.waiting.values())
        assert len(self.waiting) - under_way <= self.queue.max_pending
        assert self.queue.newcomers() == sum(rank in NEWCOMERS for _, rank, _ in self.waiting.values())
        oldest_ns = min((at_ns for _, _, at_ns in self.waiting.values()), default=self.now_ns)
        assert self.queue.oldest_wait_ns(self.now_ns) == self.now_ns - oldest_ns
        assert len(self.queue.drain._grants_ns) <= 5


events = st.lists(
    st.one_of(
        st.tuples(
            st.just("join"),
            st.sampled_from(["sync", "async"]),
            st.sampled_from([*Rank, Rank.NORMAL, Rank.NORMAL]),
            st.none() | st.integers(-MS, 2 * MAX_WAIT_NS),
        ),
        st.tuples(st.just("leave"), st.integers(0, 60)),
        st.tuples(st.just("serve"), st.sampled_from(["sync", "async"])),
        st.tuples(st.just("pass"), st.sampled_from([0, MS, 20 * MS, 200 * MS, 600 * MS])),
    ),
    max_size=80,
)


@given(events, st.integers(0, 8), st.booleans())
def test_the_line_is_what_it_must_be_after_any_order_of_events(
    steps: list[tuple[Any, ...]], max_pending: int, overloaded: bool
) -> None:
    model, names = Model(max_pending), count(1)
    if overloaded:
        model.queue.overload.observe(TARGET_NS + 1, -INTERVAL_NS)
        model.queue.overload.observe(TARGET_NS + 1, 0)
    for action, *arguments in steps:
        if action == "pass":
            model.now_ns += arguments[0]
            model.give_up()
        elif action == "join":
            model.join(next(names), *arguments)
        elif action == "leave":
            model.leave(*arguments)
        else:
            model.serve(*arguments)
        model.check()
