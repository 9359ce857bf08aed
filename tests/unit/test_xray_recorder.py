"""Requests that have ended are added up, in bounded memory."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import create_engine

from headgate.names import DATABASE, GATE_WAIT, PHASES
from headgate.xray import recorder
from headgate.xray.live import LiveHold, LiveRequest, LiveStatement, PoolTally
from headgate.xray.observation import HoldSum, RouteSum, Site
from headgate.xray.recorder import NO_REQUEST, OTHER, Recorder, sum_holds

LINE, ELSEWHERE = Site("app.py", 3, "read"), Site("app.py", 9, "write")


@pytest.fixture
def pool() -> PoolTally:
    return PoolTally(create_engine("sqlite://").pool)


def request(path: str = "/slow", *, ended_ns: int = 1_000, **changes: Any) -> LiveRequest:
    made = LiveRequest({"method": "GET", "path": path}, 0)
    made.status, made.answered_ns, made.ended_ns = 200, ended_ns, ended_ns
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def hold(pool: PoolTally, request: LiveRequest | None, began_ns: int, ended_ns: int, site: Site = LINE) -> LiveHold:
    made = LiveHold(pool, request, site, began_ns, 1)
    made.ended_ns = ended_ns
    if request is not None:
        request.holds.append(made)
    return made


def statement(text: str, site: Site, began_ns: int, ended_ns: int, cause: str = "") -> LiveStatement:
    made = LiveStatement(text, site, began_ns)
    made.ended_ns, made.cause = ended_ns, cause
    return made


def only_route(recorder: Recorder) -> RouteSum:
    [found] = recorder.routes()
    return found


def test_a_request_is_charged_until_its_answer() -> None:
    adding = Recorder()
    answered = request(ended_ns=2_000, answered_ns=800)
    answered.spend(DATABASE, 100, 400)
    answered.spend(GATE_WAIT, 50, 100)
    adding.add(answered)
    found = only_route(adding)
    assert dict(zip(PHASES, found.times_ns, strict=True))["database"] == 300
    assert (sum(found.times_ns), found.latencies_ns, found.statuses) == (800, (800,), {"200": 1})


def test_a_route_is_named_by_its_template() -> None:
    class Route:
        path = "/items/{number}"

    adding = Recorder()
    one = request("/items/7")
    one.scope["route"] = Route()
    adding.add(one)
    assert only_route(adding).route == "GET /items/{number}"
    assert adding.paths() == {"GET /items/7": "GET /items/{number}"}


def test_holds_of_a_line_are_one_sum(pool: PoolTally) -> None:
    adding = Recorder()
    for _ in range(2):
        one = request(answered_ns=900, responding_ns=600)
        held = hold(pool, one, 100, 950)
        held.busy_ns = 200
        held.seen = {(ELSEWHERE, "asyncio.sleep"): 300, (LINE, "its own code"): 100}
        adding.add(one)
    found = only_route(adding)
    [held_sum] = found.holds
    assert (held_sum.count, held_sum.held_ns, held_sum.busy_ns) == (2, 1_700, 400)
    assert (held_sum.after_answer_ns, held_sum.sending_ns) == (100, 600)
    assert [(one.what, one.share) for one in held_sum.awaited] == [("asyncio.sleep", 0.75), ("its own code", 0.25)]
    assert found.holders == {pool.name: 2}


def test_a_hold_that_ends_after_its_request_is_not_lost(pool: PoolTally) -> None:
    adding = Recorder()
    one = request()
    late = hold(pool, one, 100, 0)
    adding.add(one)
    assert only_route(adding).holds == ()
    late.ended_ns = 1_500
    adding.add_hold(late)
    assert only_route(adding).holds[0].after_answer_ns == 500
    assert only_route(adding).holders == {pool.name: 1}


def test_a_hold_outside_of_requests(pool: PoolTally) -> None:
    adding = Recorder()
    adding.add_hold(hold(pool, None, 100, 300))
    found = only_route(adding)
    assert (found.route, found.count, found.holds[0].held_ns) == (NO_REQUEST, 0, 200)


def test_what_has_not_ended_is_added_up_until_now(pool: PoolTally) -> None:
    holds = [hold(pool, request(), 100, 0), hold(pool, request(), 200, 0), hold(pool, request(), 300, 0, ELSEWHERE)]
    found: tuple[HoldSum, ...] = sum_holds(holds, 1_000)
    assert [(one.site, one.count, one.held_ns) for one in found] == [(LINE, 2, 1_700), (ELSEWHERE, 1, 700)]


def test_statements_are_counted_by_line_and_request() -> None:
    adding = Recorder()
    for times in (3, 5):
        many = [statement("SELECT 1", LINE, 0, 10, "Order.items" if number == 4 else "") for number in range(times)]
        adding.add(request(statements=[*many, statement("SELECT 1", ELSEWHERE, 0, 10)]))
    first, second = only_route(adding).statements
    assert (first.count, first.requests, first.most, first.time_ns, first.cause) == (8, 2, 5, 80, "Order.items")
    assert (second.count, second.requests, second.most) == (2, 2, 1)


def test_a_second_connection_is_counted_with_its_line() -> None:
    adding = Recorder()
    adding.add(request(second=LINE))
    adding.add(request())
    assert (only_route(adding).twice, only_route(adding).second) == (1, LINE)


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch, pool: PoolTally) -> None:
    monkeypatch.setattr(recorder, "MOST_ROUTES", 3)
    monkeypatch.setattr(recorder, "MOST_LATENCIES", 10)
    monkeypatch.setattr(recorder, "MOST_STATEMENTS", 2)
    monkeypatch.setattr(recorder, "MOST_HOLDS", 2)
    adding = Recorder()
    for number in range(100):
        one = request(f"/{number}", statements=[statement(f"SELECT c{number}", LINE, 0, 1)])
        hold(pool, one, 0, 1, Site("app.py", number, "read"))
        adding.add(one)
    routes = {route.route: route for route in adding.routes()}
    assert set(routes) == {"GET /0", "GET /1", "GET /2", OTHER}
    other = routes[OTHER]
    assert other.count == 97
    assert (len(other.statements), len(other.holds)) == (2, 2)
    assert len(other.latencies_ns) <= 10
    assert len(adding.paths()) <= 3


def test_a_sample_of_latencies_is_spread_over_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "MOST_LATENCIES", 100)
    adding = Recorder()
    for number in range(1, 10_001):
        adding.add(request(ended_ns=number))
    latencies = only_route(adding).latencies_ns
    assert len(latencies) <= 100
    assert latencies[len(latencies) // 2] == pytest.approx(5_000, rel=0.1)


def test_after_a_warm_up_it_begins_anew() -> None:
    adding = Recorder()
    adding.add(request())
    adding.forget()
    assert adding.routes() == ()
