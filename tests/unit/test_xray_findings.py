"""What fails a test is told in full; what is allowed is found by the function's name."""

from __future__ import annotations

import functools
from typing import Any

import pytest

from headgate.xray import hold_ok
from headgate.xray.allowing import is_hold_ok, parse_allowed
from headgate.xray.findings import MOST_TOLD, find_leak, find_repeat, find_stall, format_findings, is_query
from headgate.xray.live import Live
from headgate.xray.loops import Loops
from headgate.xray.observation import NOWHERE, Site
from headgate.xray.stalls import Stillness, Verdict

SITE = Site("/srv/shop/api/orders.py", 12, "Orders.load.<locals>.one")
MS = 1_000_000


@pytest.mark.parametrize(
    ("name", "covers"),
    [
        ("shop.api.orders:Orders.load.one", True),
        ("orders:Orders.load.one", True),
        ("orders:Orders.load", False),
        ("other.orders:Orders.load.one", False),
        ("rders:Orders.load.one", False),
    ],
)
def test_a_function_is_allowed_by_the_end_of_its_path_and_its_whole_name(name: str, covers: bool) -> None:
    assert parse_allowed(name).is_at(SITE) is covers


def test_a_package_is_its_init() -> None:
    assert parse_allowed("shop.api:load").is_at(Site("/srv/shop/api/__init__.py", 1, "load"))


@pytest.mark.parametrize("name", ["", "shop", "shop:", ":load"])
def test_what_is_no_function_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"write package\.module:function"):
        parse_allowed(name)


def test_a_marked_function_is_known_through_its_decorators() -> None:
    def decorated(function: Any) -> Any:
        @functools.wraps(function)
        def call() -> None:
            function()

        return call

    @hold_ok
    @decorated
    def work() -> None:
        pass

    name = "test_a_marked_function_is_known_through_its_decorators.<locals>.work"
    assert is_hold_ok(Site(__file__, 1, name))
    assert not is_hold_ok(Site(__file__, 1, "another"))


@pytest.mark.parametrize(
    "text", ["SELECT 1", "  (select 1)", "/* a */ -- b\n WITH x AS (SELECT 1) SELECT 1", "VALUES (1)"]
)
def test_a_query_asks_for_rows(text: str) -> None:
    assert is_query(text)


@pytest.mark.parametrize("text", ["INSERT INTO a SELECT 1", "UPDATE a", "selection", "BEGIN"])
def test_a_write_is_no_query(text: str) -> None:
    assert not is_query(text)


def test_everything_is_told_up_to_a_bound() -> None:
    told = format_findings([find_leak(SITE, was_collected=False)] * (MOST_TOLD + 3))
    assert told.startswith(f"headgate X-ray: {MOST_TOLD + 3} findings\n\nleak: {SITE} in Orders.load.one\n")
    assert told.count("Cure: ") == MOST_TOLD
    assert told.endswith("… and 3 more")


def test_a_finding_has_its_line_the_fact_and_the_cure() -> None:
    finding = find_repeat(
        "SELECT a FROM b WHERE c = ?", SITE._replace(text="one.items"), 6, "Order.items", "GET /orders"
    )
    assert format_findings([finding]).splitlines() == [
        "headgate X-ray: 1 finding",
        "",
        f"repeat: {SITE} in Orders.load.one during GET /orders",
        "    one.items",
        "  The same query is sent 6 times, to load Order.items one by one: SELECT a FROM b WHERE c = ?",
        "  Cure: load it with the rest: select(…).options(selectinload(Order.items)).",
    ]


@pytest.mark.parametrize(
    ("verdict", "site", "what", "lasted_ms", "starved_ms", "is_told"),
    [
        ("code", SITE, "time.sleep", 100, 0, True),
        ("code", SITE, "", 100, 60, False),
        ("code", SITE, "pdb.Pdb.interaction", 100, 0, False),
        ("code", NOWHERE, "json.loads", 100, 0, False),
        ("collection", NOWHERE, "", 100, 0, False),
        ("import", SITE, "pandas", 100, 0, False),
        ("thread", SITE, "threading.Lock", 100, 0, False),
        ("descheduled", NOWHERE, "", 100, 0, False),
        ("suspended", NOWHERE, "", 100, 0, False),
        ("code", SITE, "", 49, 0, False),
    ],
)
def test_only_code_of_the_applications_that_ran_long_enough_is_a_stall(
    verdict: Verdict, site: Site, what: str, lasted_ms: int, starved_ms: int, is_told: bool
) -> None:
    told: list[Site] = []
    live = Live(lambda request: None, lambda request: None, lambda hold: None)
    loops = Loops(live, 50 * MS, lambda site, what, lasted_ns: told.append(site))
    loops._tell(Stillness(0, lasted_ms * MS, verdict, site, what, 0), starved_ms * MS)
    assert told == ([SITE] if is_told else [])


def test_a_stall_says_what_ran() -> None:
    assert "at least: time.sleep ran on it" in find_stall(SITE, "time.sleep", 120 * MS).fact
