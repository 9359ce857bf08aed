"""A few requests are kept, instant by instant."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from headgate.ledger import Account, Ledger
from headgate.names import DATABASE, GATE_WAIT, HELD_IDLE, PHASES, SEND, UNATTRIBUTED
from headgate.xray.live import LiveRequest
from headgate.xray.observation import RequestSample
from headgate.xray.page.timeline import counted
from headgate.xray.recorder import MOST_SAMPLED, Recorder
from headgate.xray.samples import MOST_NOTES, MOST_SLOW, MOST_SPREAD, Samples, marks_of

NAMED = range(UNATTRIBUTED)


def request(began_ns: int = 0, took_ns: int = 10, path: str = "/a") -> LiveRequest:
    scope: dict[str, Any] = {"method": "GET", "path": path}
    made = LiveRequest(scope, began_ns)
    made.status = 200
    made.answered_ns = made.ended_ns = began_ns + took_ns
    return made


def chosen(times_ns: list[int]) -> tuple[RequestSample, ...]:
    samples = Samples()
    for number, time_ns in enumerate(times_ns):
        one = request(number, time_ns)
        samples.add(one, one.account(one.ended_ns))
    return samples.chosen(0)


@given(st.lists(st.integers(0, 1_000), max_size=200))
def test_the_slowest_are_kept_and_others_spread_over_all(times_ns: list[int]) -> None:
    found = chosen(times_ns)
    slow = [one.total_ns for one in found if one.is_slow]
    spread = [one.came_ns for one in found if not one.is_slow]
    assert slow == sorted(times_ns, reverse=True)[:MOST_SLOW]
    assert len(spread) == min(len(times_ns), MOST_SPREAD)
    assert spread == sorted(set(spread))
    if len(times_ns) >= 20:
        assert spread[0] < len(times_ns) / 3
        assert spread[-1] > len(times_ns) / 2


def test_a_sample_of_very_many_notes_is_bounded() -> None:
    one = request(took_ns=100_000)
    for number in range(1_000):
        one.spend(DATABASE, number, number + 1)
    samples = Samples()
    samples.add(one, one.account(one.ended_ns))
    assert len(samples.chosen(0)[0].marks) <= MOST_NOTES


def test_marks_unite_what_overlaps_and_end_with_the_answer() -> None:
    one = request(began_ns=100, took_ns=50)
    one.spend(GATE_WAIT, 90, 110)
    one.enter(HELD_IDLE, 110)
    one.enter(HELD_IDLE, 120)
    one.leave(HELD_IDLE, 130)
    one.enter(DATABASE, 200)
    marks = marks_of(one.notes, 100, 50)
    assert marks == ((GATE_WAIT, 0, 10), (HELD_IDLE, 10, 50))


INTERVALS = st.lists(st.tuples(st.sampled_from(NAMED), st.integers(0, 100), st.integers(0, 100)), max_size=12)


@given(INTERVALS, st.integers(1, 100))
def test_what_instants_count_as_adds_up_to_the_account(drawn: list[tuple[int, int, int]], total_ns: int) -> None:
    """The page's first lane and the ledger say the same."""
    ledger = Ledger(0)
    for phase, one, other in drawn:
        ledger.spend(phase, min(one, other), max(one, other))
    account: Account = ledger.account(total_ns)
    times_ns = [0] * len(PHASES)
    for phase, from_ns, to_ns in counted(marks_of(ledger.notes, 0, total_ns), total_ns):
        times_ns[phase] += to_ns - from_ns
    assert tuple(times_ns) == account.times_ns


def test_only_so_many_routes_are_sampled() -> None:
    recorder = Recorder()
    for number in range(MOST_SAMPLED + 10):
        recorder.add(request(path=f"/{number}"))
    assert sum(bool(route.samples) for route in recorder.routes()) == MOST_SAMPLED


def test_what_has_not_ended_is_added_up_and_not_kept() -> None:
    recorder = Recorder()
    recorder.add(request())
    pending = LiveRequest({"method": "GET", "path": "/a"}, 5)
    pending.enter(SEND, 15)
    [route] = recorder.routes([pending], now_ns=25)
    assert (route.count, route.unfinished, route.times_ns[SEND]) == (2, 1, 10)
    assert route.statuses == {"0": 1, "200": 1}
    [again] = recorder.routes()
    assert (again.count, again.unfinished) == (1, 0)
