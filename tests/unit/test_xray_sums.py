"""Sums grow with the app's routes and pools, never with what clients send."""

from __future__ import annotations

from typing import Any

import pytest

from headgate.names import DATABASE, PHASES, SEND, UNATTRIBUTED
from headgate.xray.sums import MOST_POOLS, MOST_ROUTES, OTHER, Sums, route_label

from .live_requests import MS, make_hold, make_request, make_scope, make_tally


def make_sums() -> Sums:
    return Sums(lambda tally: tally.name)


def add(sums: Sums, scope: dict[str, Any], **options: Any) -> None:
    request = make_request(scope, **options)
    sums.add_request(request, request.answered_ns)


def test_requests_are_added_up_by_route_and_phase() -> None:
    sums, scope = make_sums(), make_scope()
    add(sums, scope, total_ms=100, database_ms=60)
    add(sums, scope, total_ms=50, database_ms=0, status=503)
    (route,) = sums.routes()
    assert (route.route, route.requests) == ("GET /orders/{id}", 2)
    assert route.statuses == (0, 0, 1, 0, 0, 1)
    expected = [0] * len(PHASES)
    expected[DATABASE], expected[SEND], expected[UNATTRIBUTED] = 60 * MS, 2 * MS, 88 * MS
    assert list(route.times_ns) == expected
    assert sum(route.times_ns) == 150 * MS


@pytest.mark.parametrize(
    ("scope", "label"),
    [
        (make_scope(), "GET /orders/{id}"),
        (make_scope(template=None), "GET (no route)"),
        (make_scope(template=None) | {"endpoint": make_scope}, "GET make_scope"),
        (make_scope(method="BREW"), "OTHER /orders/{id}"),
    ],
)
def test_nothing_in_a_label_is_of_a_clients_choice(scope: dict[str, Any], label: str) -> None:
    assert route_label(scope) == label


def test_unknown_paths_and_methods_are_one_route_each() -> None:
    sums = make_sums()
    for number in range(3_000):
        add(sums, make_scope(f"/{number}", template=None))
        add(sums, make_scope(f"/{number}", template=None, method=f"M{number}"))
    assert sorted(route.route for route in sums.routes()) == ["GET (no route)", "OTHER (no route)"]


def test_routes_are_bounded() -> None:
    sums = make_sums()
    for number in range(MOST_ROUTES + 100):
        add(sums, make_scope(template=f"/{number}"))
    routes = sums.routes()
    assert len(routes) == MOST_ROUTES + 1
    assert next(route.requests for route in routes if route.route == OTHER) == 100


def test_two_routes_of_one_name_are_one() -> None:
    sums = make_sums()
    add(sums, make_scope())
    add(sums, make_scope())
    assert [route.requests for route in sums.routes()] == [2]


@pytest.mark.parametrize(("status", "kind"), [(0, 0), (99, 0), (101, 1), (204, 2), (599, 5), (600, 0)])
def test_statuses_are_counted_by_class(status: int, kind: int) -> None:
    sums = make_sums()
    add(sums, make_scope(), status=status)
    assert sums.routes()[0].statuses[kind] == 1


def test_holds_are_added_up_by_pool() -> None:
    sums, pool, request = make_sums(), make_tally("main"), make_request()
    make_hold(pool, request, held_ms=60, waited_ms=3)
    make_hold(pool, request, held_ms=2_000, waited_ms=0)
    make_hold(pool, request).ended_ns = 0  # lasts on
    sums.add_request(request, request.answered_ns)
    sums.add_creation(pool, 7 * MS)
    (figures,) = sums.pools()
    assert figures.label == "main"
    assert (sum(figures.uses.counts), figures.uses.sum_ns) == (2, 2_060 * MS)
    assert figures.uses.counts[-1] == 1
    assert (figures.waits.counts[0], figures.waits.counts[2], figures.waits.sum_ns) == (1, 1, 3 * MS)
    assert figures.creations.sum_ns == 7 * MS


def test_a_lease_that_was_resumed_has_not_waited() -> None:
    sums, pool = make_sums(), make_tally()
    hold = make_hold(pool)
    hold.waited_ns = -1
    sums.add_hold(hold)
    assert sum(sums.pools()[0].waits.counts) == 0
    assert sum(sums.pools()[0].uses.counts) == 1


def test_a_bound_belongs_to_its_class() -> None:
    sums, pool = make_sums(), make_tally()
    sums.add_creation(pool, 1 * MS)
    sums.add_creation(pool, 1 * MS + 1)
    assert sums.pools()[0].creations.counts[:2] == (1, 1)


def test_pools_are_bounded() -> None:
    sums = make_sums()
    for number in range(3 * MOST_POOLS):
        sums.add_creation(make_tally(str(number)), MS)
    pools = sums.pools()
    assert len(pools) == MOST_POOLS + 1
    assert sum(next(pool.creations.counts for pool in pools if pool.label == OTHER)) == 2 * MOST_POOLS


def test_a_forked_child_begins_with_nothing() -> None:
    sums = make_sums()
    add(sums, make_scope())
    sums.add_creation(make_tally(), MS)
    sums.start_anew()
    assert sums.routes() == []
    assert sums.pools() == []
