"""What a log says of those who hold connections."""

from __future__ import annotations

import pytest

from headgate.xray.holders import (
    MOST_GROUPS,
    Doing,
    Holder,
    PoolState,
    describe_left,
    describe_overdue,
    describe_returned,
    describe_timeout,
    group_holders,
    show_route,
    show_time,
)
from headgate.xray.observation import NOWHERE, Site

MS = 1_000_000
SHOP = PoolState("postgresql at db:5432, shop", in_use=2, limit=2, idle=0, pending=3, oldest_wait_ns=480 * MS)


def at(line: int) -> Site:
    return Site("shop/orders.py", line, "read_order")


def holder(
    route: str = "GET /orders/{id}",
    *,
    acquired: int = 31,
    now: int = 33,
    doing: Doing = "waits",
    what: str = "asyncio.sleep",
    age_ms: int = 1_200,
) -> Holder:
    return Holder(route, at(acquired), at(now), doing, what, age_ms * MS)


def test_a_timeout_says_the_fact_the_state_where_and_what_to_do() -> None:
    holders = [holder(age_ms=400), holder(age_ms=1_200)]
    assert describe_timeout(SHOP, holders, timeout_s=0.5) == (
        "postgresql at db:5432, shop: no connection came free within 500 ms.\n"
        "State: in use 2 of 2, idle 0, pending 3, oldest wait 480 ms.\n"
        "Held by:\n"
        "  2 by GET /orders/{id}: acquired at shop/orders.py:31, now at shop/orders.py:33 awaiting asyncio.sleep, "
        "for 400 ms to 1.2 s\n"
        "Remedies: 1. let GET /orders/{id} commit, or close its session, before it awaits at shop/orders.py:33; "
        "Headgate's sessions give the connection back by themselves after reads. "
        "2. raise pool_size or max_overflow (2 connections in all) only if the holders need their connections all "
        "that time and the database has room for more."
    )


def test_timeouts_since_the_last_report_are_counted() -> None:
    text = describe_timeout(SHOP, [holder()], timeout_s=30, timeouts=37, since_ns=12_000 * MS)
    assert text.startswith("postgresql at db:5432, shop: no connection came free within 30 s, 37 times in 12 s.\n")


def test_connections_that_nobody_saw_being_acquired_are_counted_too() -> None:
    text = describe_timeout(SHOP, [holder()], timeout_s=0.5)
    assert "\n  1 more, unknown: acquired before the X-ray watched, or being opened now\n" in text


@pytest.mark.parametrize(
    ("one", "place", "remedy"),
    [
        (holder(doing="runs", what=""), "now at shop/orders.py:33 running its own code", "before its code at"),
        (holder(doing="executes", what=""), "now at shop/orders.py:33 executing a statement", "make the statement at"),
        (
            holder(doing="asks", what=""),
            "now at shop/orders.py:33 asking for one more connection",
            "use the session that holds a connection already",
        ),
        (holder(doing="left", what="request"), "its request is over", "close what shop/orders.py:31 opens"),
        (holder(doing="left", what="task"), "its task is over", "close what shop/orders.py:31 opens"),
        (holder(""), "2 by code outside of requests: ", "let code outside of requests commit"),
    ],
)
def test_what_a_holder_does_has_its_words_and_its_remedy(one: Holder, place: str, remedy: str) -> None:
    _, _, where, remedies = describe_timeout(SHOP, [one, one], timeout_s=0.5).split("\n", 3)
    assert where == "Held by:"
    line, _, remedies = remedies.partition("\nRemedies: 1. ")
    assert place in line
    assert remedy in remedies


def test_each_kind_of_holder_has_one_remedy_that_of_the_most_first() -> None:
    holders = [holder(doing="executes", what=""), *[holder()] * 2, *[holder(now=99)] * 3]
    remedies = describe_timeout(SHOP, holders, timeout_s=0.5).partition("Remedies: ")[2]
    assert remedies.startswith(
        "1. let GET /orders/{id} commit, or close its session, before it awaits at shop/orders.py:99"
    )
    assert "2. make the statement at shop/orders.py:33 faster" in remedies
    assert "3. raise pool_size" in remedies
    assert "4." not in remedies


def test_the_greatest_groups_are_named_and_the_rest_is_counted() -> None:
    many = PoolState("shop", in_use=200, limit=None, idle=0, pending=0, oldest_wait_ns=0)
    holders = [holder(now=line) for line in range(1, MOST_GROUPS + 4) for _ in range(line)]
    lines = describe_timeout(many, holders, timeout_s=0.5).splitlines()
    assert lines[1] == "State: in use 200, idle 0, pending 0."
    assert lines[3].startswith(f"  {MOST_GROUPS + 3} by ")
    assert lines[2 + MOST_GROUPS].startswith("  4 by ")
    assert lines[3 + MOST_GROUPS] == "  6 more, at 3 other places"  # 1 + 2 + 3


def test_of_equal_groups_the_one_that_has_held_longest_comes_first() -> None:
    groups = group_holders([holder(now=1, age_ms=5), holder(now=2, age_ms=9), holder(now=3, age_ms=7)])
    assert [group.like.now.line for group in groups] == [2, 3, 1]


def test_a_line_that_is_not_known_is_said_to_be_unknown() -> None:
    nobody = Holder("GET /", NOWHERE, NOWHERE, "waits", "a future", 5 * MS)
    assert "acquired at an unknown line, now at an unknown line awaiting a future, for 5 ms\n" in describe_timeout(
        SHOP, [nobody], timeout_s=0.5
    )


def test_overdue_connections() -> None:
    assert describe_overdue(SHOP, [holder(age_ms=10_300)], overdue_s=10.0).startswith(
        "postgresql at db:5432, shop: 1 connection has been held for more than 10 s.\n"
        "State: in use 2 of 2, idle 0, pending 3, oldest wait 480 ms.\n"
        "Held by:\n"
        "  1 by GET /orders/{id}: acquired at shop/orders.py:31, now at shop/orders.py:33 awaiting asyncio.sleep, "
        "for 10.3 s\n"
        "Remedies: 1. let GET /orders/{id} commit"
    )


def test_connections_that_were_left_behind() -> None:
    text = describe_left(SHOP, [holder(doing="left", what="request")] * 2)
    assert text.startswith("postgresql at db:5432, shop: 2 connections were not given back by whoever acquired them.\n")
    assert "\n  2 by GET /orders/{id}: acquired at shop/orders.py:31, its request is over, for 1.2 s\n" in text
    assert text.endswith(
        "Remedies: 1. close what shop/orders.py:31 opens, by with, async with or a dependency that closes it."
    )


def test_reported_connections_that_have_come_back() -> None:
    assert describe_returned("shop", [holder(age_ms=12_400)]) == (
        "shop: 1 connection reported above has come back.\n"
        "  1 by GET /orders/{id}: acquired at shop/orders.py:31, after 12.4 s"
    )


@pytest.mark.parametrize(
    ("time_ns", "shown"),
    [(0, "0 ms"), (999_400_000, "999 ms"), (1_000 * MS, "1 s"), (12_340 * MS, "12.3 s"), (300_000 * MS, "5 min")],
)
def test_times_as_people_read_them(time_ns: int, shown: str) -> None:
    assert show_time(time_ns) == shown


def test_a_path_of_the_clients_cannot_write_lines_of_its_own_into_the_log() -> None:
    assert show_route("GET /x\nERROR all is lost\x1b[31m") == "GET /x?ERROR all is lost?[31m"
    assert show_route(f"GET /{'x' * 500}") == f"GET /{'x' * 95}..."
