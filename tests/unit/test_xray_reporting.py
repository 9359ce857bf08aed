"""When the log says who holds connections: once, not too often, and never at the service's expense."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy.pool import QueuePool

from headgate.xray.live import Live, LiveHold, LiveRequest
from headgate.xray.observation import Site
from headgate.xray.options import OVERDUE, WatchOptions, from_environment, to_environment
from headgate.xray.pool_waits import Wait
from headgate.xray.reporting import HoldReporter
from headgate.xray.watch import Watch

S = 1_000_000_000
SITE = Site("/srv/app.py", 31, "read_order")


class World:
    """A pool of two, and what is reported of it."""

    def __init__(self, overdue_s: float = 10.0) -> None:
        self.now_ns = 1_000 * S
        self.said: list[str] = []
        self.pool = QueuePool(lambda: None, pool_size=2, max_overflow=0, timeout=0.5)  # type: ignore[arg-type, return-value]
        self.live = Live(lambda _: None, lambda _: None, lambda _: None)
        self.reporter = HoldReporter(
            self.live,
            WatchOptions(overdue_s),
            name_of=lambda _: "shop",
            say=self.said.append,
            clock=lambda: self.now_ns,
        )

    def request(self, path: str = "/orders") -> LiveRequest:
        request = LiveRequest({"type": "http", "method": "GET", "path": path}, self.now_ns)
        request.thread = threading.get_ident()
        self.live.begin(request)
        return request

    def hold(self, request: LiveRequest | None) -> LiveHold:
        hold = LiveHold(self.live.know_pool(self.pool), request, SITE, self.now_ns, threading.get_ident())
        self.live.hold(hold, hold)
        return hold

    def time_out(self, request: LiveRequest | None = None) -> None:
        self.reporter.tell_timeout(Wait(self.pool, self.now_ns, request))

    def pass_time(self, seconds: float) -> None:
        """With a look in each of its seconds."""
        until_ns = self.now_ns + round(seconds * S)
        while self.now_ns < until_ns:
            self.now_ns = min(until_ns, self.now_ns + S)
            self.reporter.look(self.now_ns)


def test_a_timeout_names_who_holds() -> None:
    world = World()
    world.hold(world.request())
    world.now_ns += S
    world.time_out()
    (report,) = world.said
    assert report.startswith("shop: no connection came free within 500 ms.\nState: in use 0 of 2, idle 0, pending 0.\n")
    assert "\n  1 by GET /orders: acquired at /srv/app.py:31, now at " in report
    assert "test_xray_reporting.py:" in report


def test_timeouts_of_ten_seconds_are_one_report_which_counts_them() -> None:
    world = World()
    for seconds in (0, 1, 2, 3.5, 3.5):  # at 0, 1, 3, 6.5 and 10 s
        world.now_ns += round(seconds * S)
        world.time_out()
    assert [report.partition(".\n")[0] for report in world.said] == [
        "shop: no connection came free within 500 ms",
        "shop: no connection came free within 500 ms, 4 times in 10 s",
    ]


def test_the_timeouts_of_two_pools_are_counted_apart() -> None:
    world = World()
    world.time_out()
    world.pool = world.pool.recreate()
    world.time_out()
    assert len(world.said) == 2


def test_whoever_holds_one_connection_and_asks_for_another_is_said_to() -> None:
    world = World()
    request = world.request()
    world.hold(request)
    wait = Wait(world.pool, world.now_ns, request)
    world.reporter.waits._waits[id(wait)] = wait
    world.now_ns += S
    world.reporter.tell_timeout(wait)
    (report,) = world.said
    assert "asking for one more connection, for 1 s" in report
    assert "pending 0" in report, "whoever has just given up waits no longer"


def test_an_overdue_hold_is_reported_once_and_taken_back_when_it_returns() -> None:
    world = World()
    hold = world.hold(world.request())
    world.pass_time(9)
    assert world.said == []
    world.pass_time(30)
    assert [report.partition(".\n")[0] for report in world.said] == [
        "shop: 1 connection has been held for more than 10 s"
    ]
    world.live.let_go(hold, world.now_ns)
    world.pass_time(5)
    assert world.said[1:] == [
        "shop: 1 connection reported above has come back.\n  1 by GET /orders: acquired at /srv/app.py:31, after 39 s"
    ]


def test_a_hold_that_ends_in_time_is_not_reported() -> None:
    world = World()
    hold = world.hold(world.request())
    world.pass_time(9)
    world.live.let_go(hold, world.now_ns)
    world.pass_time(20)
    assert world.said == []


def test_no_time_is_overdue_where_none_is_set() -> None:
    world = World(overdue_s=0)
    world.hold(world.request())
    world.pass_time(1_000)
    assert world.said == []


def test_overdue_holds_that_come_one_by_one_are_reported_together() -> None:
    world = World()
    for _ in range(8):
        world.hold(world.request())
        world.pass_time(1)
    world.pass_time(30)
    assert [report.partition(" have")[0].partition(" has")[0] for report in world.said] == [
        "shop: 1 connection",
        "shop: 7 connections",
    ]


def test_a_connection_that_its_request_left_behind_is_reported_once() -> None:
    world = World()
    request = world.request()
    world.hold(request)
    world.pass_time(1)
    world.live.end(request, world.now_ns)
    world.pass_time(1)
    assert world.said == [], "it may be on its way back"
    world.pass_time(30)
    (report,) = world.said
    assert report.startswith("shop: 1 connection was not given back by whoever acquired it.\n")
    assert "acquired at /srv/app.py:31, its request is over" in report


def test_a_connection_on_its_way_back_after_its_request_is_not_reported() -> None:
    world = World()
    request = world.request()
    hold = world.hold(request)
    world.live.end(request, world.now_ns)
    world.reporter.look(world.now_ns)
    world.live.let_go(hold, world.now_ns)
    world.pass_time(30)
    assert world.said == []


def test_a_report_that_fails_is_one_line_and_no_exception(capsys: pytest.CaptureFixture[str]) -> None:
    world = World()
    world.hold(world.request())

    def fail(_: object) -> str:
        raise RuntimeError("no\nname")

    world.reporter._name_of = fail
    world.time_out()
    world.pass_time(30)
    out, err = capsys.readouterr()
    assert (out, world.said) == ("", [])
    assert err == "headgate: the X-ray has failed, and the service goes on: RuntimeError: no name\n"


def test_nothing_is_remembered_of_a_parent() -> None:
    world = World()
    world.hold(world.request())
    world.time_out()
    world.live.forget()
    world.reporter.start_anew()
    world.pass_time(30)
    world.time_out()
    assert len(world.said) == 2
    assert "GET /orders" not in world.said[1]


@pytest.mark.parametrize("text", ["soon", "-1", "nan", "inf"])
def test_an_overdue_time_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=f"HEADGATE_XRAY_OVERDUE='{text}' is no time"):
        from_environment({OVERDUE: text})


def test_options_pass_through_the_environment() -> None:
    assert from_environment({}) == from_environment({OVERDUE: ""}) == WatchOptions()
    assert from_environment(to_environment(WatchOptions(2.5))) == WatchOptions(2.5)


def test_what_fails_in_a_watch_does_not_reach_the_request(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(Watch, "_begin", fail)
    watch = Watch()
    request = LiveRequest({"type": "http", "method": "GET", "path": "/"}, 0)
    watch.live.begin(request)
    watch.live.end(request, 1)
    assert capsys.readouterr().err.count("can't start new thread") == 1
    assert [route.route for route in watch.recorder.routes()] == ["GET /"]
