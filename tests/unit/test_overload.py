from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.overload import FITS, MAX_RETRY_AFTER_S, RELAPSE_NS, Drain, OverloadRule, retry_after_s, smooth

MS = 1_000_000
TARGET_NS = 50 * MS
INTERVAL_NS = 1_500 * MS
WINDOW_NS = INTERVAL_NS // 3
ABOVE_NS = TARGET_NS + 1


def make_rule() -> OverloadRule:
    return OverloadRule(target_ns=TARGET_NS, interval_ns=INTERVAL_NS)


def stand(rule: OverloadRule, from_ns: int, for_ns: int) -> int:
    """Newcomers wait longer than they should for so long; returns the end of it."""
    rule.observe(ABOVE_NS, from_ns)
    rule.observe(ABOVE_NS, from_ns + for_ns)
    return from_ns + for_ns


def overloaded_rule() -> tuple[OverloadRule, int]:
    rule = make_rule()
    return rule, stand(rule, 0, INTERVAL_NS)


def let_window_pass(rule: OverloadRule, now_ns: int, *, newcomers: int, refused: int) -> int:
    """So many come, so many of them in vain; returns when that has been judged."""
    for number in range(newcomers):
        rule.count_newcomer(refused=number < refused)
    rule.is_overloaded(now_ns + WINDOW_NS)
    return now_ns + WINDOW_NS


# how overload begins


@pytest.mark.parametrize(("for_ns", "overloaded"), [(INTERVAL_NS - 1, False), (INTERVAL_NS, True)])
def test_overload_begins_when_the_wait_has_stood_for_an_interval(for_ns: int, overloaded: bool) -> None:
    rule = make_rule()
    now_ns = stand(rule, 7, for_ns)
    assert rule.is_overloaded(now_ns) == overloaded


@pytest.mark.parametrize(("standing_ns", "overloaded"), [(TARGET_NS, False), (ABOVE_NS, True)])
def test_a_wait_of_the_target_may_stand(standing_ns: int, overloaded: bool) -> None:
    rule = make_rule()
    for now_ns in range(0, INTERVAL_NS + 1, 100 * MS):
        rule.observe(standing_ns, now_ns)
    assert rule.is_overloaded(INTERVAL_NS) == overloaded


@given(st.lists(st.tuples(st.integers(0, 300 * MS), st.integers(0, 2 * TARGET_NS)), max_size=60))
def test_overload_begins_exactly_when_the_shortest_wait_of_an_interval_was_too_long(
    steps: list[tuple[int, int]],
) -> None:
    """Against the plain definition: every observation since an interval ago was above the target."""
    rule, now_ns, seen = make_rule(), 0, list[tuple[int, int]]()
    for gap_ns, standing_ns in steps:
        now_ns += gap_ns
        rule.observe(standing_ns, now_ns)
        seen.append((now_ns, standing_ns))
        last_good = max((index for index, (_, waited) in enumerate(seen) if waited <= TARGET_NS), default=-1)
        since_ns = [at_ns for at_ns, _ in seen[last_good + 1 :]]
        stood_ns = now_ns - since_ns[0] if since_ns else 0
        assert rule.is_overloaded(now_ns) == (stood_ns >= INTERVAL_NS and len(since_ns) > 1)
        if rule.is_overloaded(now_ns):
            break


def test_one_short_wait_makes_it_begin_anew() -> None:
    rule = make_rule()
    now_ns = stand(rule, 0, INTERVAL_NS - 1)
    rule.observe(TARGET_NS, now_ns)
    now_ns = stand(rule, now_ns, INTERVAL_NS - 1)
    assert not rule.is_overloaded(now_ns)


# how it ends


@pytest.mark.parametrize("refused", [0, round(100 * FITS)])
def test_overload_ends_when_newcomers_fit_again(refused: int) -> None:
    rule, now_ns = overloaded_rule()
    now_ns = let_window_pass(rule, now_ns, newcomers=100, refused=refused)
    assert not rule.is_overloaded(now_ns)


def test_overload_goes_on_while_newcomers_are_refused() -> None:
    rule, now_ns = overloaded_rule()
    for _ in range(5):
        now_ns = let_window_pass(rule, now_ns, newcomers=100, refused=round(100 * FITS) + 1)
        assert rule.is_overloaded(now_ns)


def test_overload_ends_when_nobody_comes_any_more() -> None:
    rule, now_ns = overloaded_rule()
    assert rule.is_overloaded(now_ns + WINDOW_NS - 1)
    assert not rule.is_overloaded(now_ns + WINDOW_NS)


def test_one_that_was_let_in_and_dropped_counts_as_refused() -> None:
    rule, now_ns = overloaded_rule()
    for _ in range(2):
        rule.count_newcomer(refused=False)
        rule.count_drop()
    assert rule.is_overloaded(now_ns + WINDOW_NS)


def test_what_was_refused_before_the_overload_does_not_prolong_it() -> None:
    rule = make_rule()
    for _ in range(100):
        rule.count_newcomer(refused=True)
    now_ns = let_window_pass(rule, stand(rule, 0, INTERVAL_NS), newcomers=10, refused=0)
    assert not rule.is_overloaded(now_ns)


@pytest.mark.parametrize(
    ("after_ns", "patience_ns"), [(RELAPSE_NS - INTERVAL_NS, INTERVAL_NS // 10), (RELAPSE_NS, INTERVAL_NS)]
)
def test_a_relapse_is_seen_in_a_tenth_of_the_time(after_ns: int, patience_ns: int) -> None:
    rule, now_ns = overloaded_rule()
    ended_ns = let_window_pass(rule, now_ns, newcomers=1, refused=0)
    rule.observe(ABOVE_NS, ended_ns + after_ns)
    rule.observe(ABOVE_NS, ended_ns + after_ns + patience_ns - 1)
    assert not rule.is_overloaded(ended_ns + after_ns + patience_ns - 1)
    rule.observe(ABOVE_NS, ended_ns + after_ns + patience_ns)
    assert rule.is_overloaded(ended_ns + after_ns + patience_ns)


def test_what_a_server_that_stood_still_has_caused_is_no_sign_of_a_relapse() -> None:
    rule, now_ns = overloaded_rule()
    rule.count_stall()
    ended_ns = let_window_pass(rule, now_ns, newcomers=1, refused=0)
    assert not rule.is_overloaded(stand(rule, ended_ns, INTERVAL_NS - 1)), "a burst passes as ever"
    rule.observe(ABOVE_NS, ended_ns + INTERVAL_NS)
    assert rule.is_overloaded(ended_ns + INTERVAL_NS)
    ended_ns = let_window_pass(rule, ended_ns + INTERVAL_NS, newcomers=1, refused=0)
    assert rule.is_overloaded(stand(rule, ended_ns, INTERVAL_NS // 10)), "and the next one is judged for itself"


def test_only_who_was_refused_lately_is_expected_back() -> None:
    """Without overload too: what was refused since the start would keep everybody away for ever longer."""
    rule = make_rule()
    now_ns = let_window_pass(rule, 0, newcomers=5, refused=3)
    for _ in range(2):
        rule.count_newcomer(refused=True)
    assert rule.recently_refused(now_ns) == 5
    assert rule.recently_refused(now_ns + WINDOW_NS) == 2
    assert rule.recently_refused(now_ns + 2 * WINDOW_NS) == 0


def test_who_was_refused_long_ago_is_not_expected_back() -> None:
    rule = make_rule()
    rule.count_newcomer(refused=True)
    assert rule.recently_refused(100 * INTERVAL_NS) == 0


# how fast connections come


def test_nothing_is_measured_before_as_many_grants_as_connections_were_seen() -> None:
    drain = Drain(3, fresh_ns=1_000)
    for now_ns in (10, 20, 30):
        drain.note_grant(now_ns, still_waiting=True)
        assert drain.measured_ns(now_ns) == 0
    drain.note_grant(40, still_waiting=True)
    assert drain.measured_ns(40) == 10


def test_with_nothing_measured_the_use_tells_by_littles_law() -> None:
    assert Drain(4, fresh_ns=1_000).estimated_ns(0, use_ns=20.0) == 5.0


def test_a_measurement_goes_out_of_date() -> None:
    """What the server needed while it was frozen is nothing to tell today's burst."""
    drain = Drain(1, fresh_ns=1_000)
    drain.note_grant(0, still_waiting=True)
    drain.note_grant(500, still_waiting=True)
    assert drain.measured_ns(1_499) == 500
    assert drain.measured_ns(1_500) == 0
    assert drain.estimated_ns(1_500, use_ns=7.0) == 7.0


def test_the_time_in_which_nobody_waited_is_not_measured() -> None:
    drain = Drain(1, fresh_ns=10**9)
    drain.note_grant(0, still_waiting=True)
    drain.note_grant(10, still_waiting=False)
    drain.note_grant(10_000, still_waiting=True)
    assert drain.measured_ns(10_000) == 10


@given(st.integers(1, 20), st.lists(st.tuples(st.integers(0, 100), st.booleans()), max_size=200))
def test_the_mean_lies_between_the_shortest_and_the_longest_step_and_the_memory_is_bounded(
    connections: int, grants: list[tuple[int, bool]]
) -> None:
    drain, now_ns = Drain(connections, fresh_ns=10**9), 0
    for gap_ns, still_waiting in grants:
        now_ns += gap_ns
        drain.note_grant(now_ns, still_waiting=still_waiting)
        assert 0 <= drain.measured_ns(now_ns) <= 100
        assert len(drain._grants_ns) <= 2 * connections + 1


# when to come again


@pytest.mark.parametrize(
    ("waiting", "step_ns", "jitter", "expected"),
    [
        pytest.param(0, 0.0, 0.0, 1, id="nobody waits"),
        pytest.param(0, 1e9, 0.99, 1, id="jitter alone stays within a second"),
        pytest.param(300, 1e9 / 30, 0.5, 10, id="300 who wait, 30 a second"),
        pytest.param(300, 1e9 / 30, 0.0, 5, id="half of it"),
        pytest.param(300, 1e9 / 30, 0.99, 15, id="one and a half of it"),
        pytest.param(10**6, 1e9, 0.0, MAX_RETRY_AFTER_S, id="bounded"),
    ],
)
def test_retry_after_is_the_time_the_line_needs_to_drain(
    waiting: int, step_ns: float, jitter: float, expected: int
) -> None:
    assert retry_after_s(waiting=waiting, step_ns=step_ns, jitter=jitter) == expected


@given(st.integers(0, 10**6), st.floats(0, 1e12), st.floats(0, 1, exclude_max=True))
def test_retry_after_is_always_a_sane_number_of_seconds(waiting: int, step_ns: float, jitter: float) -> None:
    assert 1 <= retry_after_s(waiting=waiting, step_ns=step_ns, jitter=jitter) <= MAX_RETRY_AFTER_S


@given(st.lists(st.integers(1, 10**12), min_size=1))
def test_a_smoothed_mean_stays_within_its_samples(samples: list[int]) -> None:
    mean = 0.0
    for sample in samples:
        mean = smooth(mean, sample)
    assert min(samples) * (1 - 1e-9) <= mean <= max(samples) * (1 + 1e-9)


def test_bursts_with_pauses_do_not_keep_an_overload_alive() -> None:
    """Each burst would otherwise be refused for the one before, at whatever little load."""
    rule, now_ns = overloaded_rule()
    for _ in range(20):
        rule.count_newcomer(refused=True)
    rule.observe(1, now_ns + 1)
    rule.observe(None, now_ns + 2)
    pause_ns = INTERVAL_NS // 10
    assert rule.is_overloaded(now_ns + 2 + pause_ns - 1)
    assert not rule.is_overloaded(now_ns + 2 + pause_ns)


def test_somebody_who_waits_keeps_an_overload_alive() -> None:
    rule, now_ns = overloaded_rule()
    for _ in range(20):
        rule.count_newcomer(refused=True)
    rule.observe(None, now_ns + 1)
    rule.observe(0, now_ns + 2)
    assert rule.is_overloaded(now_ns + WINDOW_NS)


def test_an_overload_that_nobody_looked_at_for_long_is_over() -> None:
    rule, now_ns = overloaded_rule()
    for _ in range(20):
        rule.count_newcomer(refused=True)
    assert not rule.is_overloaded(now_ns + 3600 * 10**9)


def test_a_stall_says_nothing_of_what_comes_after_it() -> None:
    drain = Drain(2, fresh_ns=1_500 * MS)
    for grant in (0, 10, 20, 5_020, 5_030):
        drain.note_grant(grant * MS, still_waiting=True)
    assert drain.measured_ns(5_030 * MS) == 0, "not enough since"
    drain.note_grant(5_040 * MS, still_waiting=True)
    assert drain.measured_ns(5_040 * MS) == 10 * MS
