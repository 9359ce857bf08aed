"""The thread that ends blocks at their deadlines."""

from __future__ import annotations

import threading
import time

import pytest

from headgate.admission import Admission, current_admission, lane
from headgate.deadlines import LEAST_FORGOTTEN, Alarm


class Request:
    """Tells when it was ended."""

    def __init__(self) -> None:
        self.ended = threading.Event()
        self.reason = ""

    def end(self, reason: str) -> None:
        self.reason = reason
        self.ended.set()


def test_requests_end_in_the_order_of_their_deadlines() -> None:
    alarm, later, sooner = Alarm(), Request(), Request()
    alarm.set(later, 0.05)
    alarm.set(sooner, 0.01)  # the thread sleeps for the later one already
    assert sooner.ended.wait(5)
    assert not later.ended.is_set()
    assert later.ended.wait(5)
    assert (sooner.reason, later.reason) == ("deadline", "deadline")


def test_what_is_forgotten_is_not_ended() -> None:
    alarm, forgotten, other = Alarm(), Request(), Request()
    alarm.forget(alarm.set(forgotten, 0.01))
    alarm.set(other, 0.02)
    assert other.ended.wait(5)
    assert not forgotten.ended.is_set()


def test_what_is_over_does_not_pile_up() -> None:
    alarm = Alarm()
    for _ in range(4 * LEAST_FORGOTTEN):
        alarm.forget(alarm.set(Request(), 3600))
    assert len(alarm._due) <= LEAST_FORGOTTEN + 3


def test_a_child_starts_anew() -> None:
    alarm, of_parent, own = Alarm(), Request(), Request()
    alarm.set(of_parent, 0.01)
    assert of_parent.ended.wait(5)
    alarm.start_anew()
    alarm.set(own, 0.01)
    assert own.ended.wait(5)


def test_a_block_ends_with_the_one_around_it() -> None:
    with lane(), lane(deadline=3600):
        outer = Admission(time.monotonic_ns())
        token = current_admission.set(outer)
        with lane("low"):
            inner = current_admission.get()
            assert inner is not None
            outer.end("gone")
            assert inner.ended == "gone"
        current_admission.reset(token)


def test_a_block_that_is_over_is_not_ended_by_the_one_around_it() -> None:
    outer = Admission(0)
    token = current_admission.set(outer)
    try:
        with lane():
            inner = current_admission.get()
        outer.end("gone")
    finally:
        current_admission.reset(token)
    assert inner is not None
    assert inner.ended is None


@pytest.mark.parametrize("reason", ["deadline", "gone"])
def test_the_first_reason_counts(reason: str) -> None:
    admission = Admission(0)
    admission.end(reason)  # type: ignore[arg-type]
    admission.end("stalled")
    assert admission.ended == reason
