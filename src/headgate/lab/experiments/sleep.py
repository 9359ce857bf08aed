"""What does holding a session across a slow call cost?

Each request reads one row and sleeps 2 s, inside its session or after it, as a service does that asks a model
or another API. Published in «Test FastAPI with SQLAlchemy and session usage».
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import create_engine, insert
from sqlalchemy.engine import URL
from sqlalchemy.pool import NullPool

from headgate.ceilings import Ceiling, offered, places
from headgate.lab.apps.sleep import Base, User
from headgate.lab.experiment import (
    Answer,
    Arm,
    Ask,
    Experiment,
    Load,
    Parameters,
    Plan,
    Results,
    Value,
)
from headgate.lab.results import ArmResult, Figure, Finding, Mode, Published, Stack
from headgate.load import pacer

SOURCE = "Test FastAPI with SQLAlchemy and session usage"
NAME = "buffy"

CONNECTIONS = 15
THREADS = 40
REQUESTS = 500
"""In both modes: ``--quick`` runs the same 500 requests in less time, so that the shape stays the same."""

LATE_S = 0.1
"""How much longer than its sleep an answer may take for the 99th percentile of Headgate's arm."""

SYNC_OUTSIDE = "/sync_session_sleep_outside_session"
SYNC_INSIDE = "/sync_session_sleep_inside_session"
ASYNC_OUTSIDE = "/async_session_sleep_outside_session"
ASYNC_INSIDE = "/async_session_sleep_inside_session"


@dataclass(frozen=True, slots=True)
class Scale:
    """The durations of a mode, in seconds."""

    sleep_s: float
    duration_s: float
    timeout_s: float


SCALES: Mapping[Mode, Scale] = {
    "full": Scale(sleep_s=2.0, duration_s=5.0, timeout_s=30.0),
    # Four times as fast: 400 requests a second, which one worker still serves.
    "quick": Scale(sleep_s=0.5, duration_s=1.25, timeout_s=7.5),
}


@dataclass(frozen=True, slots=True)
class Case:
    """An arm of this experiment; ``held`` are the places a request holds while it sleeps.

    :ivar published: throughput, success in per cent, p50 and p99 in seconds.
    """

    name: str
    title: str
    stack: Stack
    path: str
    held: tuple[tuple[int, str], ...] = ()
    published: tuple[float, float, float, float] | None = None


A_THREAD = (THREADS, "threads")
A_CONNECTION = (CONNECTIONS, "connections")

# Stock and Headgate in turn: a machine that grows slower does so for both.
CASES = (
    Case(
        "async-inside",
        "async, sleep inside the session",
        "stock",
        ASYNC_INSIDE,
        (A_CONNECTION,),
        (6.86, 48.0, 30.0, 30.0),
    ),
    Case("headgate-async-inside", "async, sleep inside the session", "headgate", ASYNC_INSIDE),
    Case(
        "async-outside",
        "async, sleep outside the session",
        "stock",
        ASYNC_OUTSIDE,
        (),
        (71.49, 100.0, 2.00, 2.10),
    ),
    Case(
        "sync-inside",
        "sync, sleep inside the session",
        "stock",
        SYNC_INSIDE,
        (A_CONNECTION, A_THREAD),
        (6.80, 47.6, 30.0, 30.0),
    ),
    Case("headgate-sync-inside", "sync, sleep inside the session", "headgate", SYNC_INSIDE, (A_THREAD,)),
    Case(
        "sync-outside",
        "sync, sleep outside the session",
        "stock",
        SYNC_OUTSIDE,
        (A_THREAD,),
        (19.03, 100.0, 11.6, 21.3),
    ),
)


def plan_sleep(mode: Mode, cores: int) -> Plan:
    """Return all published arms and Headgate's; nothing here depends on the cores."""
    scale = SCALES[mode]
    return Plan(
        scaled=mode != "full",
        parameters={
            "requests": REQUESTS,
            "rate": REQUESTS / scale.duration_s,
            "duration_s": scale.duration_s,
            "sleep_s": scale.sleep_s,
            "client_timeout_s": scale.timeout_s,
            "pool_timeout_s": scale.timeout_s,
            "connections": CONNECTIONS,
            "threads": THREADS,
        },
        arms=tuple(_plan_arm(case, scale) for case in CASES),
    )


def _plan_arm(case: Case, scale: Scale) -> Arm:
    lease = "; headgate.lease(engine)" if case.stack == "headgate" else ""
    driver = "asyncpg" if case.path.startswith("/async") else "psycopg"
    load = _load(case.path, scale)
    return Arm(
        name=case.name,
        title=case.title,
        stack=case.stack,
        setup=f"SQLAlchemy over {driver}, its default pool (5 + 10){lease}; one uvicorn worker",
        configuration={
            "stack": case.stack,
            "sleep_s": scale.sleep_s,
            "pool_timeout_s": scale.timeout_s,
        },
        parameters={"path": case.path, "driver": driver, "pool_size": 5, "max_overflow": 10},
        load=load,
        warm_up=(case.path,),
        ceilings=lambda holds: _ceilings(case, load, scale),
        published=_published(case),
    )


def _load(path: str, scale: Scale) -> Load:
    offsets_ns = pacer.constant(REQUESTS / scale.duration_s, scale.duration_s)
    return Load(
        asks=(Ask(path, {"name": NAME}),),
        schedule=pacer.in_turn(offsets_ns, 1),
        timeout_s=scale.timeout_s,
    )


def _ceilings(case: Case, load: Load, scale: Scale) -> Sequence[Ceiling]:
    last_s = load.schedule.offsets_ns[-1] / pacer.NS_PER_S
    held = (places(limit, kind, scale.sleep_s) for limit, kind in case.held)
    return (offered(REQUESTS, last_s, scale.sleep_s), *held)


def _published(case: Case) -> Published | None:
    if case.published is None:
        return None
    throughput, success, p50, p99 = case.published
    return Published(
        SOURCE,
        (
            Figure("throughput", throughput, "req/s"),
            Figure("success ratio", success, "%"),
            Figure("p50", p50, "s"),
            Figure("p99", p99, "s"),
        ),
    )


def prepare_sleep(plan: Plan, url: URL | None) -> Mapping[str, Value]:
    """Make the table with its one row. The article's name for it is a reserved word; SQLAlchemy quotes it."""
    assert url is not None
    engine = create_engine(url.set(drivername="postgresql+psycopg"), poolclass=NullPool)
    with engine.begin() as connection:
        Base.metadata.create_all(connection)
        connection.execute(insert(User).values(name=NAME))
    return {"url": url.render_as_string(hide_password=False)}


def judge_sleep(parameters: Parameters, results: Results) -> Answer:
    """Return what the arms show."""
    stock, leased = results["async-inside"], results["headgate-async-inside"]
    before, after = stock.paths[0], leased.paths[0]
    return Answer(
        findings=(
            _find_held_connections(results),
            _find_answers(float(parameters["sleep_s"] or 0), stock, leased),
            _find_threads(results),
        ),
        verdict=(
            f"The same async handler, sleeping inside its session: {before.throughput:.2f} → {after.throughput:.2f} "
            f"req/s, {before.success_ratio:.1%} → {after.success_ratio:.1%} answered, "
            f"p99 {before.latency.p99:.2f} → {after.latency.p99:.2f} s."
        ),
    )


def _find_held_connections(results: Results) -> Finding:
    stock = [_held(results[name]) for name in ("async-inside", "sync-inside")]
    leased = [_held(results[name]) for name in ("headgate-async-inside", "headgate-sync-inside")]
    return Finding(
        statement="Stock holds every connection of its pool idle in transaction while handlers sleep; Headgate none",
        holds=all(held == CONNECTIONS for held in stock) and not any(leased),
        evidence=(
            f"at most {stock[0]} (async) and {stock[1]} (sync) of {CONNECTIONS} idle in transaction; "
            f"with Headgate {leased[0]} and {leased[1]}"
        ),
    )


def _held(result: ArmResult) -> int:
    return result.connections.max_idle_in_transaction if result.connections else -1


def _find_answers(sleep_s: float, stock: ArmResult, leased: ArmResult) -> Finding:
    before, after = stock.paths[0], leased.paths[0]
    wanted_s = sleep_s + LATE_S
    return Finding(
        statement=f"Leasing answers every request of the same handler, 99 % of them within {wanted_s:g} s",
        holds=after.successes == after.requests and after.latency.p99 <= wanted_s,
        evidence=(
            f"{after.successes} of {after.requests} answered, p99 {after.latency.p99:.2f} s; "
            f"stock {before.successes} of {before.requests}, p99 {before.latency.p99:.2f} s"
        ),
    )


def _find_threads(results: Results) -> Finding:
    stock = results["sync-inside"].paths[0].throughput
    leased = results["headgate-sync-inside"].paths[0].throughput
    outside = results["sync-outside"].paths[0].throughput
    return Finding(
        statement="In sync handlers, leasing moves the limit from the connections to the threads, where stock has it "
        "when its handlers sleep outside",
        holds=leased >= 2 * stock and leased >= 0.9 * outside,
        evidence=f"{stock:.2f} → {leased:.2f} req/s; stock outside the session {outside:.2f}; n {REQUESTS} each",
    )


EXPERIMENT = Experiment(
    name="sleep",
    question="What does holding a session across a slow call cost?",
    source=SOURCE,
    explanation=(
        "Each request reads one row from PostgreSQL and then sleeps, as a service does that asks a model or another "
        "API. While it sleeps inside its session, stock SQLAlchemy keeps the connection, idle in transaction.\n\n"
        "Fifteen connections, each held two seconds, serve 7.5 requests a second, whatever the database could do. "
        "A leased connection goes back after the read, so the sleep costs nobody anything: the very same handler is "
        "bound by the offered load alone, or by FastAPI's 40 threads where it is sync.\n\n"
        "--quick runs the same 500 requests four times as fast: sleep, load and both timeouts are a quarter."
    ),
    factory="headgate.lab.apps.sleep:create_app",
    needs_postgres=True,
    plan=plan_sleep,
    prepare=prepare_sleep,
    judge=judge_sleep,
)
