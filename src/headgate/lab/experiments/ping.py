"""Does a slow query delay requests that need no database?

A hundred counts over a million rows and a hundred pings are sent at once. Published in
«fastapi-sqlalchemy-slowness», which concluded that async SQLAlchemy blocks the event loop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy.engine import URL

from headgate.ceilings import Ceiling, places
from headgate.lab.experiment import (
    Answer,
    Arm,
    Ask,
    Experiment,
    Holds,
    Load,
    Parameters,
    Plan,
    Results,
    Value,
)
from headgate.lab.results import Distribution, Figure, Finding, Mode, Published, Stack
from headgate.lab.todos import ensure_todos
from headgate.load import pacer

SOURCE = "fastapi-sqlalchemy-slowness"

REQUESTS = 100
CLIENT_LIMIT = 100
"""Connections of the source's HTTP client, by its default."""

DEFAULT_CONNECTIONS = 15
TIMEOUT_S = 30.0
"""Of the client as published, and of the pool by SQLAlchemy's default; long enough in both modes."""

WARM_UPS = 3

PING = "/ping"
PAUSE = "/ping-with-async-sleep"
COUNT_ASYNC = "/count-todos-async"
COUNT_SYNC = "/count-todos-sync"

Row = tuple[float, float, float]
"""min, mean, max in seconds."""


@dataclass(frozen=True, slots=True)
class Scale:
    """What a mode scales; the requests are the same."""

    rows: int
    sleep_s: float


SCALES: Mapping[Mode, Scale] = {
    "full": Scale(rows=1_000_000, sleep_s=10.0),
    # The most rows that fit into three quarters of a minute: with fewer, connecting takes as long as counting.
    "quick": Scale(rows=600_000, sleep_s=1.0),
}


@dataclass(frozen=True, slots=True)
class Case:
    """An arm of this experiment; ``paths`` in the order their requests are handed to the client.

    :ivar connections: bound of the pool: a number, ``cores``, or None for a ``NullPool``.
    """

    name: str
    title: str
    stack: Stack
    paths: tuple[str, ...]
    connections: int | str | None
    limited: bool
    published: tuple[Row, ...] = ()


# Stock and Headgate in turn: a machine that grows slower does so for both.
CASES = (
    Case("ping", "ping alone", "stock", (PING,), None, True, ((0.02, 0.04, 0.05),)),
    Case(
        "pause",
        "ping + async sleep",
        "stock",
        (PING, PAUSE),
        None,
        True,
        ((0.11, 0.21, 0.25), (10.18, 10.23, 10.25)),
    ),
    Case(
        "async-limited",
        "async count + ping, NullPool, client limited to 100",
        "stock",
        (COUNT_ASYNC, PING),
        None,
        True,
        ((9.70, 12.18, 12.69), (9.70, 12.40, 12.61)),
    ),
    Case("async", "async count + ping, NullPool, client unlimited", "stock", (COUNT_ASYNC, PING), None, False),
    Case(
        "headgate-async",
        "async count + ping, a connection a core, client unlimited",
        "headgate",
        (COUNT_ASYNC, PING),
        "cores",
        False,
    ),
    Case(
        "async-15-limited",
        "async count + ping, pool of 15, client limited to 100",
        "stock",
        (COUNT_ASYNC, PING),
        DEFAULT_CONNECTIONS,
        True,
    ),
    Case(
        "async-15",
        "async count + ping, pool of 15, client unlimited",
        "stock",
        (COUNT_ASYNC, PING),
        DEFAULT_CONNECTIONS,
        False,
    ),
    Case(
        "async-cores",
        "async count + ping, pool of the cores, client unlimited",
        "stock",
        (COUNT_ASYNC, PING),
        "cores",
        False,
    ),
    Case(
        "sync-limited",
        "sync count + ping, pool of 15, client limited to 100",
        "stock",
        (COUNT_SYNC, PING),
        DEFAULT_CONNECTIONS,
        True,
        ((1.93, 7.78, 13.39), (1.93, 2.41, 2.65)),
    ),
    Case(
        "headgate-sync",
        "sync count + ping, a connection a core, client unlimited",
        "headgate",
        (COUNT_SYNC, PING),
        "cores",
        False,
    ),
    Case(
        "sync",
        "sync count + ping, pool of 15, client unlimited",
        "stock",
        (COUNT_SYNC, PING),
        DEFAULT_CONNECTIONS,
        False,
    ),
)


def plan_ping(mode: Mode, cores: int) -> Plan:
    """Return the published pairs, and the arms that tell their causes apart."""
    scale = SCALES[mode]
    return Plan(
        scaled=mode != "full",
        parameters={
            "requests_per_path": REQUESTS,
            "rows": scale.rows,
            "sleep_s": scale.sleep_s,
            "client_timeout_s": TIMEOUT_S,
            "pool_timeout_s": TIMEOUT_S,
            "cores": cores,
        },
        arms=tuple(_plan_arm(case, scale, cores) for case in CASES),
    )


def _plan_arm(case: Case, scale: Scale, cores: int) -> Arm:
    connections = cores if case.connections == "cores" else case.connections
    assert not isinstance(connections, str)
    counts = [path for path in case.paths if path in (COUNT_ASYNC, COUNT_SYNC)]
    return Arm(
        name=case.name,
        title=case.title,
        stack=case.stack,
        setup=_describe_setup(case, connections),
        configuration={
            "stack": case.stack,
            "connections": connections,
            "pool_timeout_s": TIMEOUT_S,
            "sleep_s": scale.sleep_s,
        },
        parameters={"connections": connections, "client_connections": CLIENT_LIMIT if case.limited else None},
        load=_load(case, scale),
        warm_up=(PING, *counts * WARM_UPS),
        ceilings=lambda holds: _ceilings(counts, cores, holds),
        published=_published(case),
    )


def _describe_setup(case: Case, connections: int | None) -> str:
    lease = "; headgate.lease(engine)" if case.stack == "headgate" else ""
    driver = "sqlite3" if COUNT_SYNC in case.paths else "aiosqlite"
    if connections is None:
        pool = "NullPool (SQLAlchemy's default for aiosqlite files up to 2.0.37)"
    elif connections == DEFAULT_CONNECTIONS:
        pool = "a pool of 5 + 10 (SQLAlchemy's default)"
    else:
        pool = f"a pool of {connections}"
    return f"SQLAlchemy over {driver}, {pool}{lease}; one uvicorn worker"


def _load(case: Case, scale: Scale) -> Load:
    half = scale.rows // 2
    counts = {"completed": half, "not_completed": scale.rows - half}
    answers = {path: {"ping": "pong"} for path in (PING, PAUSE)} | dict.fromkeys((COUNT_ASYNC, COUNT_SYNC), counts)
    return Load(
        asks=tuple(Ask(path, answers[path]) for path in case.paths),
        schedule=pacer.together([pacer.burst(REQUESTS)] * len(case.paths)),
        timeout_s=TIMEOUT_S,
        max_connections=CLIENT_LIMIT if case.limited else None,
    )


def _ceilings(counts: Sequence[str], cores: int, holds: Holds) -> Sequence[Ceiling]:
    """A count keeps one core busy for as long as it took alone; SQLite works without Python's lock."""
    return [places(cores, "cores", holds[path]) for path in counts]


def _published(case: Case) -> Published | None:
    if not case.published:
        return None
    return Published(
        SOURCE,
        tuple(
            Figure(f"{path} {name}", value, "s")
            for path, row in zip(case.paths, case.published, strict=True)
            for name, value in zip(("min", "mean", "max"), row, strict=True)
        ),
    )


def prepare_ping(plan: Plan, url: URL | None) -> Mapping[str, Value]:
    """Make the file of todos, unless an earlier run has left it in the cache."""
    rows = plan.parameters["rows"]
    assert isinstance(rows, int)
    return {"path": str(ensure_todos(rows=rows))}


def judge_ping(parameters: Parameters, results: Results) -> Answer:
    """Return what the arms show."""
    limited, unlimited = (_latency(results, arm, PING) for arm in ("async-15-limited", "async-15"))
    late, early = (_latency(results, arm, COUNT_ASYNC) for arm in ("async", "async-cores"))
    starved, free = (_latency(results, arm, PING) for arm in ("async", "async-cores"))
    return Answer(
        findings=(
            _find_client_queue(results),
            _find_free_loop(results),
            _find_unbounded_database(results),
            _find_bound(results),
        ),
        verdict=(
            f"Async SQLAlchemy does not block the event loop. The client was the queue: /ping {limited.mean:.2f} s "
            f"with 100 connections, {unlimited.mean:.2f} s without a limit (pool of {DEFAULT_CONNECTIONS}). "
            f"And nothing bounded the database: a count {late.mean:.2f} s and a ping beside it {starved.mean:.2f} s, "
            f"with a pool of the cores {early.mean:.2f} s and {free.mean:.2f} s (means)."
        ),
    )


def _latency(results: Results, arm: str, path: str) -> Distribution:
    return next(result.latency for result in results[arm].paths if result.path == path)


def _find_client_queue(results: Results) -> Finding:
    """Told by the pool of 15: without any bound, a hundred threads may starve the loop, limited client or not."""
    count, ping = (_latency(results, "async-15-limited", path) for path in (COUNT_ASYNC, PING))
    published_count, published_ping = (_latency(results, "async-limited", path) for path in (COUNT_ASYNC, PING))
    free, starved = (_latency(results, arm, PING) for arm in ("async-15", "async"))
    return Finding(
        statement="The client was the queue: its 100 connections are all taken by counts, so the first ping starts "
        f"when the first count ends; with as many connections as it takes, and a pool of {DEFAULT_CONNECTIONS}, no "
        "ping waits for a count",
        holds=(
            ping.min >= 0.95 * count.min
            and published_ping.min >= 0.95 * published_count.min
            and free.mean <= ping.mean / 2
        ),
        evidence=(
            f"limited: first count {count.min:.2f} s, first ping {ping.min:.2f} s, mean ping {ping.mean:.2f} s; "
            f"unlimited: mean ping {free.mean:.2f} s; with NullPool, limited as published: first count "
            f"{published_count.min:.2f} s, first ping {published_ping.min:.2f} s, mean ping "
            f"{published_ping.mean:.2f} s; NullPool unlimited: mean ping {starved.mean:.2f} s; n {ping.count} each"
        ),
    )


def _find_free_loop(results: Results) -> Finding:
    count, ping = (_latency(results, "async-15", path) for path in (COUNT_ASYNC, PING))
    return Finding(
        statement=f"Async SQLAlchemy does not block the event loop: with a pool of {DEFAULT_CONNECTIONS}, every ping "
        "is answered before the first count, while all of them are under way",
        holds=ping.max < count.min,
        evidence=f"last ping {ping.max:.2f} s, first count {count.min:.2f} s; n {ping.count} each",
    )


def _find_unbounded_database(results: Results) -> Finding:
    arms = ("async", f"async-{DEFAULT_CONNECTIONS}", "async-cores")
    late, middle, early = (_latency(results, arm, COUNT_ASYNC) for arm in arms)
    starved, fed, free = (_latency(results, arm, PING) for arm in arms)
    return Finding(
        statement="Nothing bounded the database: a hundred counts at once all end last; through a pool of the cores "
        "the first ends early, and the mean is half of the last",
        holds=_ends_late(late) and _ends_early(early) and early.min <= late.min / 3,
        evidence=(
            f"min / mean / max: NullPool {_row(late)}, pool of {DEFAULT_CONNECTIONS} {_row(middle)}, "
            f"pool of the cores {_row(early)}; of a ping beside them {_row(starved)}, {_row(fed)}, {_row(free)}; "
            f"n {late.count} each"
        ),
    )


def _find_bound(results: Results) -> Finding:
    late, leased = (_latency(results, arm, COUNT_ASYNC) for arm in ("async", "headgate-async"))
    ping = _latency(results, "headgate-async", PING)
    return Finding(
        statement="A budget of the cores does the same for Headgate's service",
        holds=_ends_late(late) and _ends_early(leased) and leased.min <= late.min / 3,
        evidence=(
            f"min / mean / max of a count: {_row(leased)}, without a bound {_row(late)}; of a ping {_row(ping)}; "
            f"n {leased.count} each"
        ),
    )


def _ends_late(latency: Distribution) -> bool:
    """Nearly all of the work ends with its last; held against the arm's own last answer, not another's.

    The time the whole work takes changes with whatever else the machine does meanwhile; its shape does not.
    """
    return latency.mean >= 0.75 * latency.max


def _ends_early(latency: Distribution) -> bool:
    """The answers come evenly from the start on, so their mean is half of the last, or little more."""
    return latency.mean <= 0.65 * latency.max


def _row(latency: Distribution) -> str:
    return f"{latency.min:.2f} / {latency.mean:.2f} / {latency.max:.2f} s"


EXPLANATION = (
    "A hundred counts over a million rows and a hundred pings are sent at once. The source measured pings as slow as "
    "counts and concluded that async SQLAlchemy blocks the event loop. It does not; two other things happen.\n\n"
    "The client was the queue. It opens a hundred connections at most; the counts come first in the list and take "
    "them all, so the first ping starts when the first count ends. With as many connections as it takes, the same "
    "server answers the pings while it counts.\n\n"
    "Nothing bounded the database. Up to version 2.0.37, SQLAlchemy gave aiosqlite files a pool without a bound: a "
    "hundred threads count at once and all end last. With no more connections than cores, the first answers come "
    "early and the mean wait is half. A hundred busy threads also starve the event loop: its thread has little to "
    "compute and waits for a processor, so pings may take seconds there whatever the client does, and the client's "
    "limit alone does not explain the published figures. A bound ends that as well.\n\n"
    "--quick counts 600,000 rows and sleeps 1 s; the requests and timeouts are the published ones. What connecting "
    "costs is not scaled, so a quick run may miss what a full one shows."
)

EXPERIMENT = Experiment(
    name="ping",
    question="Does a slow query delay requests that need no database?",
    source=SOURCE,
    explanation=EXPLANATION,
    factory="headgate.lab.apps.ping:create_app",
    needs_postgres=False,
    plan=plan_ping,
    prepare=prepare_ping,
    judge=judge_ping,
)
