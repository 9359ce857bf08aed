"""A request's time adds up, whatever was noted."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.ledger import MOST_NOTES, Ledger
from headgate.names import DATABASE, HELD_IDLE, PHASES, SEND, STALLED, UNATTRIBUTED

NAMED = range(UNATTRIBUTED)
INTERVALS = st.lists(st.tuples(st.sampled_from(NAMED), st.integers(0, 1_000), st.integers(0, 1_000)), max_size=30)


def charged_to(intervals: list[tuple[int, int, int]], at: int) -> int:
    """The plain rule: of all intervals around an instant, the first phase."""
    around = [phase for phase, from_ns, to_ns in intervals if from_ns <= at < to_ns]
    return min(around, default=UNATTRIBUTED)


@given(INTERVALS, st.integers(0, 1_000))
def test_every_instant_is_charged_once_and_to_the_first_phase(drawn: list[tuple[int, int, int]], until_ns: int) -> None:
    intervals = [(phase, min(one, other), max(one, other)) for phase, one, other in drawn]
    ledger = Ledger(0)
    for phase, from_ns, to_ns in intervals:
        ledger.spend(phase, from_ns, to_ns)
    account = ledger.account(until_ns)
    expected = [charged_to(intervals, at) for at in range(until_ns)]
    assert account.times_ns == tuple(map(expected.count, range(len(PHASES))))
    assert account.total_ns == until_ns


@given(st.lists(st.tuples(st.sampled_from(NAMED), st.sampled_from((1, -1)), st.integers(-50, 1_500)), max_size=60))
def test_the_sum_is_the_total_also_where_notes_make_no_sense(notes: list[tuple[int, int, int]]) -> None:
    ledger = Ledger(0)
    for phase, change, at_ns in notes:
        (ledger.enter if change > 0 else ledger.leave)(phase, at_ns)
    account = ledger.account(1_000)
    assert account.total_ns == sum(account.times_ns) == 1_000
    assert min(account.times_ns) >= 0


def test_what_has_not_ended_counts_until_now() -> None:
    ledger = Ledger(100)
    ledger.enter(HELD_IDLE, 200)
    ledger.enter(DATABASE, 300)
    ledger.leave(DATABASE, 450)
    account = ledger.account(500)
    assert (account.times_ns[UNATTRIBUTED], account.times_ns[HELD_IDLE], account.times_ns[DATABASE]) == (100, 150, 150)


def test_an_account_until_the_answer_leaves_out_what_comes_after_it() -> None:
    ledger = Ledger(0)
    ledger.spend(DATABASE, 10, 20)
    ledger.spend(DATABASE, 40, 90)
    assert ledger.account(50).times_ns[DATABASE] == 20
    assert ledger.account(100).times_ns[DATABASE] == 60


def test_a_stall_found_afterwards_takes_what_was_charged_to_the_database() -> None:
    ledger = Ledger(0)
    ledger.spend(DATABASE, 10, 90)
    ledger.spend(STALLED, 20, 80)
    account = ledger.account(100)
    assert (account.times_ns[STALLED], account.times_ns[DATABASE]) == (60, 20)


def test_a_long_request_keeps_few_notes_and_loses_no_time() -> None:
    ledger = Ledger(0)
    for number in range(3 * MOST_NOTES):
        ledger.enter(DATABASE, number * 10)
        ledger.leave(DATABASE, number * 10 + 4)
    account = ledger.account(3 * MOST_NOTES * 10)
    assert len(ledger.notes) <= MOST_NOTES + 1
    assert account.times_ns[DATABASE] == 3 * MOST_NOTES * 4
    assert account.total_ns == 3 * MOST_NOTES * 10


def test_a_phase_that_is_open_when_the_oldest_notes_are_added_up_goes_on() -> None:
    ledger = Ledger(0)
    ledger.enter(HELD_IDLE, 0)
    for number in range(MOST_NOTES):
        ledger.spend(DATABASE, number, number)
        ledger.enter(SEND, number)
        ledger.leave(SEND, number)
    assert ledger.account(2 * MOST_NOTES).times_ns[HELD_IDLE] == 2 * MOST_NOTES


@pytest.mark.timeout(20)
def test_threads_that_note_at_once_lose_nothing() -> None:
    ledger = Ledger(0)
    each = 3 * MOST_NOTES

    def work() -> None:
        for _ in range(each):
            ledger.enter(DATABASE, 5)
            ledger.leave(DATABASE, 5)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    account = ledger.account(10)
    assert account.times_ns[DATABASE] == 0, "as often ended as begun"
    assert account.times_ns[UNATTRIBUTED] == 10


@given(INTERVALS, st.integers(0, 1_000))
def test_a_request_is_charged_what_its_account_says(drawn: list[tuple[int, int, int]], until_ns: int) -> None:
    ledger = Ledger(0)
    for phase, one, other in drawn:
        ledger.spend(phase, min(one, other), max(one, other))
    times_ns = [7] * len(PHASES)
    ledger.charge(times_ns, until_ns)
    assert [time_ns - 7 for time_ns in times_ns] == list(ledger.account(until_ns).times_ns)


@given(st.lists(st.tuples(st.sampled_from(NAMED), st.integers(0, 50), st.integers(0, 50)), max_size=4))
def test_one_thing_after_the_other_is_charged_likewise(drawn: list[tuple[int, int, int]]) -> None:
    ledger, at_ns = Ledger(100), 100
    for phase, pause_ns, time_ns in drawn:
        ledger.spend(phase, at_ns + pause_ns, at_ns + pause_ns + time_ns)
        at_ns += pause_ns + time_ns
    times_ns = [0] * len(PHASES)
    ledger.charge(times_ns, at_ns + 5)
    assert times_ns == list(ledger.account(at_ns + 5).times_ns)
