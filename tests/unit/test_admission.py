from __future__ import annotations

import contextvars
from itertools import count
from typing import Any

import pytest

from headgate.admission import LANES, Admission, Ask, Lane, current_admission, lane, rank_of
from headgate.errors import ConfigError
from headgate.fastapi import Deadline
from headgate.gate import Gate
from headgate.queueing import Rank, Reason

from .gate_fakes import FakeClock, make_gate
from .gate_steps import run_interleaved

SECOND = 1_000_000_000


class Wait:
    """Something a request waits for."""

    def __init__(self) -> None:
        self.ended: list[Reason] = []

    def end(self, reason: Reason) -> None:
        self.ended.append(reason)


def test_a_request_waits_in_its_lane_until_it_has_held_a_connection() -> None:
    gate, admission = make_gate(), Admission(0, Rank.LOW)
    assert admission.ask(gate, is_under_way=False) == Ask(Rank.LOW, admission)
    assert not admission.has_begun
    admission.admit(gate)
    assert admission.ask(gate, is_under_way=False) == Ask(Rank.UNDER_WAY, admission, has_begun=True)
    assert admission.has_begun


def test_the_high_lane_stays_high_and_is_not_turned_away_once_it_has_begun() -> None:
    gate, admission = make_gate(), Admission(0, Rank.HIGH)
    assert not admission.ask(gate, is_under_way=False).is_under_way
    admission.admit(gate)
    ask = admission.ask(gate, is_under_way=False)
    assert (ask.rank, ask.is_under_way) == (Rank.HIGH, True)


@pytest.mark.parametrize("deadline", [0, -1, float("nan"), float("inf"), 1e9, "5"])
def test_a_deadline_that_cannot_work_is_the_same_error_for_a_block_as_for_a_route(deadline: Any) -> None:
    with pytest.raises(ConfigError, match=r"seconds=.* cannot work") as of_route:
        Deadline(deadline)
    with pytest.raises(ConfigError) as of_block, lane(deadline=deadline):
        pytest.fail("it began")
    assert str(of_block.value) == str(of_route.value).replace("seconds=", "deadline=", 1)
    assert current_admission.get() is None


def test_what_it_has_held_of_one_database_does_not_admit_it_to_another() -> None:
    shop, reports, admission = make_gate(), make_gate(), Admission(0)
    admission.admit(shop)
    assert admission.ask(reports, is_under_way=False).rank is Rank.NORMAL
    assert admission.asked == (reports,)


def test_a_connection_that_was_leased_before_is_under_way() -> None:
    assert Admission(0).ask(make_gate(), is_under_way=True).rank is Rank.UNDER_WAY


def test_a_high_request_stays_high() -> None:
    gate, admission = make_gate(), Admission(0, Rank.HIGH)
    admission.admit(gate)
    assert admission.ask(gate, is_under_way=True).rank is Rank.HIGH


def test_the_shorter_deadline_counts() -> None:
    admission = Admission(5)
    assert Ask(Rank.NORMAL, admission).deadline_ns is None
    for seconds, deadline_ns in ((2.0, 2 * SECOND + 5), (3.0, 2 * SECOND + 5), (0.5, SECOND // 2 + 5)):
        admission.shorten(seconds)
        assert Ask(Rank.NORMAL, admission).deadline_ns == deadline_ns
    assert Ask().deadline_ns is None


def test_a_request_that_is_given_up_gives_up_what_it_waits_for_and_no_more() -> None:
    admission, finished, unfinished = Admission(0), Wait(), Wait()
    admission.begin(finished)
    admission.begin(unfinished)
    admission.finish(finished)
    admission.end("gone")
    assert (finished.ended, unfinished.ended, admission.ended) == ([], ["gone"], "gone")


def test_what_a_request_begins_to_wait_for_as_it_is_given_up_is_given_up_too() -> None:
    """Its client goes in one thread while it begins to wait in another."""
    for at_step in count(1):
        admission, wait = Admission(0), Wait()
        was_in_time = run_interleaved(
            make_gate(),
            lambda admission=admission, wait=wait: admission.begin(wait),  # type: ignore[misc]
            lambda admission=admission: admission.end("gone"),  # type: ignore[misc]
            at_step,
        )
        assert set(wait.ended) == {"gone"}
        if not was_in_time:
            break


# those that were let in and have not asked yet


def test_a_request_is_expected_until_it_asks_once() -> None:
    gate, admission = make_gate(), Admission(0)
    gate.expect(admission)
    assert len(gate._expected) == 1
    for _ in range(2):
        admission.ask(gate, is_under_way=False)
        gate.arrive(admission)
        assert not gate._expected


def test_a_request_that_two_gates_expect_is_forgotten_by_neither() -> None:
    """Two databases in overload: a number that stayed would turn everybody away for ever."""
    shop, reports, admission = make_gate(), make_gate(), Admission(0)
    shop.expect(admission)
    reports.expect(admission)
    admission.ask(shop, is_under_way=False)
    assert (len(shop._expected), len(reports._expected)) == (0, 1)
    reports.arrive(admission)
    assert (len(shop._expected), len(reports._expected)) == (0, 0)


def test_a_request_that_asks_in_two_threads_at_once_has_come_once() -> None:
    for at_step in count(1):
        gate, admission = make_gate(), Admission(0)
        gate.expect(admission)

        def ask(gate: Gate = gate, admission: Admission = admission) -> None:
            admission.ask(gate, is_under_way=False)

        was_in_time = run_interleaved(gate, ask, ask, at_step)
        assert not gate._expected
        if not was_in_time:
            break


# lanes outside of requests


@pytest.mark.parametrize("name", LANES)
def test_a_block_is_one_request_of_its_lane(name: Lane) -> None:
    clock = FakeClock()
    clock.now_ns = 7
    assert current_admission.get() is None
    with lane(name, deadline=2.0, clock=clock):
        admission = current_admission.get()
        assert admission is not None
        assert (admission.rank, admission.began_ns, admission.deadline_ns) == (rank_of(name), 7, 2 * SECOND + 7)
        assert contextvars.copy_context()[current_admission] is admission, "what it starts inherits it"
    assert current_admission.get() is None


def test_a_block_ends_with_an_exception_too_and_may_stand_in_another() -> None:
    with lane("low"):
        outer = current_admission.get()
        with pytest.raises(LookupError), lane("high"):
            raise LookupError
        assert current_admission.get() is outer


def test_an_unknown_lane_is_named_with_its_remedy() -> None:
    with pytest.raises(ConfigError, match=r"'urgent'.*'high', 'normal', 'low'"), lane("urgent"):  # type: ignore[arg-type]
        pass


def test_the_lanes_differ_in_rank_and_none_is_that_of_who_is_under_way() -> None:
    assert sorted(LANES.values()) == [Rank.HIGH, Rank.NORMAL, Rank.LOW]
