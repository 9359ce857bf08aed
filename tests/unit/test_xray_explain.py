"""From observations to sentences: recorded ones word by word, and made ones for what cannot be recorded."""

from __future__ import annotations

from pathlib import Path

import pytest

from headgate.xray.explain import Explanation, explain
from headgate.xray.observation import (
    A_THREAD,
    NOWHERE,
    RUNS,
    Awaited,
    HoldSum,
    Observation,
    Site,
    Stall,
    StatementSum,
    decode,
)
from headgate.xray.sentences import many, rate, seconds, share
from headgate.xray.text import format_explanation

from .xray_facts import ACQUIRED, LINE, MS, POOL, S, held_route, hold, observation, offer, pool, process, route, times

GOLDEN = Path(__file__).parents[1] / "golden" / "xray"
OTHER_LINE = Site("/srv/shop/app.py", 70, "read", "await call()")
SATURATED = pool(held_ns=150 * S)


@pytest.mark.parametrize("recorded", sorted(GOLDEN.glob("*.json")), ids=lambda path: path.stem)
def test_recorded_observations_are_explained_word_by_word(recorded: Path) -> None:
    text = format_explanation(explain(decode(recorded.read_text(encoding="utf-8"))))
    assert text + "\n" == recorded.with_suffix(".txt").read_text(encoding="utf-8")


def test_there_are_recorded_observations() -> None:
    assert len(list(GOLDEN.glob("*.json"))) >= 10


def lines(explanation: Explanation, route: str = "GET /slow") -> list[str]:
    found = next(one for one in explanation.routes if one.route == route)
    return [sentence.text for sentence in found.sentences]


def kinds(explanation: Explanation, route: str = "GET /slow") -> list[str]:
    found = next(one for one in explanation.routes if one.route == route)
    return [sentence.kind for sentence in found.sentences]


def test_connections_held_across_a_sleep() -> None:
    sent = offer(sent=500, answered=240, failed={"timeout": 260}, latency_ns=30 * S)
    busy = process(cpu_ns=6 * S, loop_cpu_ns=6 * S)
    told = explain(observation(held_route(busy_s=0.004), pools=(SATURATED,), offers=(sent,), process=busy))
    assert told.routes[0].headline == "500 sent, 240 answered, 260 failed (timeout), p50 30.0 s"
    assert lines(told) == [
        "binding constraint: 15 connections ÷ 2.00 s held = 7.5 requests/s at most  (offered 100/s)",
        "of the 2.00 s a connection is held, the database works 4 ms (0.2 %); "
        "the rest is asyncio.sleep at /srv/shop/app.py:61",
        "release before /srv/shop/app.py:61 → the connections then allow 3,750 requests/s, and the core binds next, "
        "at 12.5. headgate.AsyncSession does this by itself.",
    ]


def test_what_is_gained_says_also_what_binds_next() -> None:
    busy = process(cpu_ns=6 * S, loop_cpu_ns=6 * S)
    told = explain(observation(held_route(), pools=(SATURATED,), process=busy))
    assert "and the core binds next, at 12.5" in lines(told)[-1]
    idle = process(cpu_ns=1, loop_cpu_ns=1)
    told = explain(observation(held_route(), pools=(SATURATED,), process=idle))
    assert "→ the ceiling becomes 5,000 requests/s" in lines(told)[-1]


def test_several_lines_each_with_its_own_gain() -> None:
    awaited = (Awaited(LINE, "asyncio.sleep", 0.7), Awaited(OTHER_LINE, RUNS, 0.28), Awaited(NOWHERE, A_THREAD, 0.02))
    base = held_route()
    several = route(count=75, times_ns=base.times_ns, holders={POOL: 75}, holds=(hold(75, 150 * S, S, *awaited),))
    found = explain(observation(several, pools=(SATURATED,), process=process(cpu_ns=1, loop_cpu_ns=1)))
    _, held, first, second = lines(found)
    assert held.endswith(
        "the rest is asyncio.sleep at /srv/shop/app.py:61 (70 %), «await call()» at /srv/shop/app.py:70 (28 %), "
        "the wait for a worker thread (2.0 %)"
    )
    assert first.startswith("release before /srv/shop/app.py:61 → the ceiling becomes 24.")
    assert second.startswith("also release before /srv/shop/app.py:70 → the ceiling becomes ")


def test_a_route_that_waits_for_anothers_connections_gets_no_advice() -> None:
    victim = route("GET /victim", 10, times_ns=times(gate_wait=20 * S), holds=(hold(10, 10 * MS),), holders={POOL: 10})
    told = explain(observation(held_route(), victim, pools=(SATURATED,)))
    assert lines(told, "GET /victim") == [
        "waits 2.00 s for one of 15 connections, because of another route: GET /slow holds them 100 % of the time "
        "they are held"
    ]


def test_connections_that_never_come_back() -> None:
    lost = HoldSum(POOL, ACQUIRED, 15, 150 * S, 0, 150 * S)
    starved = route(times_ns=times(gate_wait=3_000 * S))
    told = explain(observation(starved, pools=(pool(held_ns=150 * S, timeouts=90),), leaks=(lost,)))
    assert lines(told) == [
        "binding constraint: 15 connections, of which 15 are never given back (acquired at /srv/shop/app.py:60); "
        "waits 30.0 s for one"
    ]
    assert told.service[0].text == (
        "never given back: 15 connections acquired at /srv/shop/app.py:60; their requests are over"
    )


def test_nothing_is_saturated_and_nothing_advised() -> None:
    told = explain(observation(route(holders={POOL: 100}, holds=(hold(100, 200 * MS, 190 * MS),)), pools=(pool(),)))
    assert lines(told) == ["not saturated: the process uses 10 % of a core"]
    assert told.service == ()


def test_the_client_is_the_limit_only_if_nothing_else_is() -> None:
    capped = offer(connections=10, latency_ns=S)
    told = explain(observation(route(), offers=(capped,)))
    assert lines(told) == [
        "the client is the limit: its 10 connections make requests wait before they are sent (p50 1.00 s for the "
        "client, 1 ms in the service)"
    ]
    told = explain(observation(held_route(), pools=(SATURATED,), offers=(capped,)))
    assert kinds(told)[0] == "connections"


def test_a_servers_refusals() -> None:
    refusing = pool(held_ns=30 * S, refused='FATAL: too many connections for role "shop"', refusals=12, most=4)
    told = explain(observation(held_route(held_s=0.1, busy_s=0.1), pools=(refusing,)))
    assert lines(told)[0] == (
        "binding constraint: 4 connections, all that the server allows, ÷ 100 ms held = 40 requests/s at most"
    )
    assert [sentence.text for sentence in told.service] == [
        'the server refused 12 connections when 4 were open: FATAL: too many connections for role "shop"'
    ]


@pytest.mark.parametrize(
    ("workers", "allowed", "said"),
    [
        (4, None, []),
        (8, None, ["8 workers × 15 connections = 120, and PostgreSQL's usual max_connections is 100"]),
        (4, 50, ["4 workers × 15 connections = 60, and the server's max_connections is 50"]),
        (4, 200, []),
    ],
)
def test_workers_multiply_connections(workers: int, allowed: int | None, said: list[str]) -> None:
    several = process(workers=workers, max_connections=allowed)
    told = explain(observation(route(), process=several, pools=(pool(),)))
    assert [sentence.text.partition(":")[0] for sentence in told.service] == said


@pytest.mark.parametrize(
    ("stall", "said"),
    [
        (
            Stall(
                "code", Site("/srv/shop/app.py", 9, "f", "time.sleep(0.3)"), "", 1, 300 * MS, 300 * MS, 1, "GET /slow"
            ),
            "keeps the event loop to itself once, for 300 ms, because of «time.sleep(0.3)» at /srv/shop/app.py:9 "
            "(GET /slow); 1 other request waited; await asyncio.sleep(…) instead",
        ),
        (
            Stall("code", LINE, "sqlalchemy.Session.execute", 3, 900 * MS, 400 * MS, 0, "GET /slow"),
            "keeps the event loop to itself 3 times, 900 ms in all and 400 ms at most, because of "
            "sqlalchemy.Session.execute at /srv/shop/app.py:61 (GET /slow); use an AsyncSession, or a plain def "
            "endpoint, which runs in a worker thread",
        ),
        (
            Stall("import", LINE, "pandas", 1, 2 * S, 2 * S, 40, "GET /slow"),
            "keeps the event loop to itself once, for 2.00 s: the import of pandas at /srv/shop/app.py:61; "
            "40 other requests waited; import it when the service starts",
        ),
    ],
)
def test_a_routes_own_stalls(stall: Stall, said: str) -> None:
    told = explain(observation(route(), stalls=(stall,)))
    assert lines(told)[1:] == [said]
    assert told.service == ()


@pytest.mark.parametrize(
    ("verdict", "said"),
    [
        ("collection", "Python collected garbage, which is not the doing of a line of the app"),
        ("suspended", "the process was suspended, or given no processor"),
        ("descheduled", "the process was not allowed to run, the machine was busy with something else"),
        ("contended", "the other threads of the process kept the interpreter busy"),
    ],
)
def test_stalls_that_are_nobodys_fault_name_no_line(verdict: str, said: str) -> None:
    stall = Stall(verdict, NOWHERE, "", 1, 300 * MS, 300 * MS, 2)
    [sentence] = explain(observation(route(), stalls=(stall,))).service
    assert sentence.text.startswith(f"the event loop stood still once, for 300 ms: {said}; 2 other requests waited")
    assert sentence.site is None


def test_a_short_stall_that_is_nobodys_fault_is_not_worth_a_word() -> None:
    stall = Stall("descheduled", NOWHERE, "", 1, 60 * MS, 60 * MS, 2)
    assert explain(observation(route(), stalls=(stall,))).service == ()


def test_a_library_that_stalls_the_loop_is_named_as_itself() -> None:
    stall = Stall("code", NOWHERE, "json.JSONEncoder.encode", 1, 90 * MS, 90 * MS, 0)
    [sentence] = explain(observation(route(), stalls=(stall,))).service
    assert sentence.text == "the event loop stood still once, for 90 ms, because of json.JSONEncoder.encode"


@pytest.mark.parametrize(
    ("cause", "loads", "said"),
    [
        ("Order.items", "collection", ", to load Order.items for one object at a time (20 ms in all): load it with the "
         "rest: select(…).options(selectinload(Order.items)); raiseload(Order.items) in tests finds the next"),
        ("Item.order", "reference", ", to load Item.order for one object at a time (20 ms in all): load it with the "
         "rest: select(…).options(joinedload(Item.order)); raiseload(Item.order) in tests finds the next"),
        ("", "", " (20 ms in all): ask once for all of them"),
    ],
)  # fmt: skip
def test_a_repeated_statement(cause: str, loads: str, said: str) -> None:
    repeated = StatementSum("SELECT …", LINE, 1_000, 100, 12, 2 * S, cause, loads)
    once = StatementSum("SELECT 1", LINE, 100, 100, 1, S)
    told = explain(observation(route(statements=(once, repeated))))
    assert lines(told)[1:] == [f"the same statement runs 10 times a request at /srv/shop/app.py:61{said}"]


def test_a_second_connection() -> None:
    told = explain(observation(route(twice=50, second=LINE, holders={POOL: 100}, holds=()), pools=(pool(),)))
    assert lines(told)[1:] == [
        "asks for a second connection at /srv/shop/app.py:61 while it holds one, in 50 % of its requests: as soon as "
        "15 of them run at once, each holds one and waits for another; let one session serve the whole request"
    ]


def test_what_is_unattributed_is_said_but_not_what_stood_on_the_loop() -> None:
    idle = times(unattributed=90 * S, database=10 * S)
    assert lines(explain(observation(route(times_ns=idle))))[1:] == [
        "unattributed 90 %: 900 ms a request in which neither a statement ran nor a connection was held or waited for"
    ]
    stall = Stall("code", LINE, "", 100, 85 * S, S, 0, "GET /slow")
    assert kinds(explain(observation(route(times_ns=idle), stalls=(stall,)))) == ["not saturated", "stall"]


def test_every_observation_is_explained_however_empty() -> None:
    assert explain(Observation(process(wall_ns=0, cpu_ns=0, loop_cpu_ns=0, threads=0))) == Explanation((), ())
    empty = route(count=1, times_ns=times(), latencies_ns=(), holders={POOL: 1}, holds=(hold(1, 0),))
    assert explain(observation(empty, pools=(pool(), pool(name="x", limit=None)), process=process(wall_ns=0)))


def test_how_figures_are_written() -> None:
    assert [seconds(one) for one in (2.0, 12.34, 0.1, 0.0031, 0.00002)] == [
        "2.00 s",
        "12.3 s",
        "100 ms",
        "3.1 ms",
        "20 µs",
    ]
    assert [rate(one) for one in (7.5, 50.0, 5_000.4, float("inf"))] == ["7.5", "50", "5,000", "any number of"]
    assert [share(one) for one in (0.0, 0.002, 0.34, 1.0)] == ["0 %", "0.2 %", "34 %", "100 %"]
    assert [many(one, "request") for one in (1, 2, 2_000)] == ["1 request", "2 requests", "2,000 requests"]
