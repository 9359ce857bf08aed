from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.queueing import MAX_RETRY_AFTER_S, OTHER, PATIENCE_NS, Kind, WaitingLine, retry_after_s, smooth

KINDS: tuple[Kind, Kind] = ("sync", "async")
both_kinds = pytest.mark.parametrize("kind", KINDS)


def line(*, max_pending: int = 3, max_wait_ns: int = 100) -> WaitingLine[str]:
    return WaitingLine(max_pending=max_pending, max_wait_ns=max_wait_ns)


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
    assert queue.join("a", "sync", now_ns=5) == 105
    assert queue.join("b", "sync", now_ns=5) is None
    assert len(queue) == 1


def test_a_line_of_no_length_admits_nobody() -> None:
    assert line(max_pending=0).join("a", "sync", now_ns=0) is None


def test_whoever_left_is_neither_counted_nor_served() -> None:
    queue = line()
    queue.join("a", "sync", now_ns=0)
    queue.join("b", "sync", now_ns=1)
    assert queue.leave("a")
    assert not queue.leave("a")
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
    assert queue.join("a", kind, now_ns=0) is not None
    assert queue.join("b", OTHER[kind], now_ns=0) is not None
    assert queue.join("c", kind, now_ns=0) is None
    assert queue.leave("b")
    assert queue.join("c", kind, now_ns=0) is not None


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


actions = st.lists(st.tuples(st.sampled_from(["join", "leave", "next"]), st.integers(0, 9)), max_size=60)


def kind_of(who: int) -> Kind:
    return "sync" if who % 2 else "async"


@given(actions, st.integers(0, 5))
def test_pending_is_the_number_of_live_waiters_after_any_order_of_events(
    steps: list[tuple[str, int]], max_pending: int
) -> None:
    queue: WaitingLine[int] = WaitingLine(max_pending=max_pending, max_wait_ns=10**12)
    model: list[int] = []
    for now_ns, (action, who) in enumerate(steps):
        if action == "join" and who not in model:
            admitted = queue.join(who, kind_of(who), now_ns) is not None
            assert admitted == (len(model) < max_pending)
            if admitted:
                model.append(who)
        elif action == "leave":
            assert queue.leave(who) == (who in model)
            model = [other for other in model if other != who]
        elif action == "next":
            served = [other for other in model if kind_of(other) == kind_of(who)] or model
            chosen = queue.next_kind(kind_of(who), now_ns)
            assert (queue.next(chosen, now_ns)[0] if chosen else None) == (served[0] if served else None)
            model = [other for other in model if other not in served[:1]]
        assert len(queue) == len(model) <= max_pending
        assert bool(queue) == bool(model)


@pytest.mark.parametrize(
    ("pending", "connections", "mean_use_ns", "jitter", "expected"),
    [
        pytest.param(0, 15, 0.0, 0.0, 1, id="nobody waits"),
        pytest.param(0, 15, 0.0, 0.99, 1, id="jitter alone stays within a second"),
        pytest.param(300, 15, 500e6, 0.0, 10, id="300 waiters over 15 connections of half a second"),
        pytest.param(300, 15, 500e6, 0.5, 13, id="stretched by jitter"),
        pytest.param(100_000, 1, 1e9, 0.0, MAX_RETRY_AFTER_S, id="bounded"),
    ],
)
def test_retry_after_is_the_time_the_line_needs_to_drain(
    pending: int, connections: int, mean_use_ns: float, jitter: float, expected: int
) -> None:
    got = retry_after_s(pending=pending, connections=connections, mean_use_ns=mean_use_ns, jitter=jitter)
    assert got == expected


@given(st.integers(0, 10**6), st.integers(1, 1000), st.floats(0, 1e12), st.floats(0, 1, exclude_max=True))
def test_retry_after_is_always_a_sane_number_of_seconds(
    pending: int, connections: int, mean_use_ns: float, jitter: float
) -> None:
    got = retry_after_s(pending=pending, connections=connections, mean_use_ns=mean_use_ns, jitter=jitter)
    assert 1 <= got <= MAX_RETRY_AFTER_S


@given(st.lists(st.integers(1, 10**12), min_size=1))
def test_a_smoothed_mean_stays_within_its_samples(samples: list[int]) -> None:
    mean = 0.0
    for sample in samples:
        mean = smooth(mean, sample)
    assert min(samples) * (1 - 1e-9) <= mean <= max(samples) * (1 + 1e-9)
