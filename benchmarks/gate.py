"""What the gate costs a request: one that is let in below capacity, and one that is refused early in overload.

Run it by hand: ``python benchmarks/gate.py``. No network and no database: the app asks the gate as a session does, and
gives back. The arms take turns in one process; a figure is the median of the rounds, with quartiles.
"""

from __future__ import annotations

import asyncio
import logging
import time

from interleaved import Arm, Comparison, Plan, compare

from headgate import Database
from headgate.admission import ORDINARY, current_admission
from headgate.asgi import App, DatabaseMiddleware, Message, Receive, Scope, Send
from headgate.config import DeadlineOptions, RefusalOptions
from headgate.gate import Gate
from headgate.problems import RefusalLog

PLAN = Plan(rounds=60, operations=2_000)
LEASES = 3
"""Of one request."""


async def receive() -> Message:
    """Nothing is read."""
    return {"type": "http.request"}


async def send(message: Message) -> None:
    """Nothing is looked at."""


def scope() -> Scope:
    """What a server makes for each request."""
    headers = [(b"host", b"localhost"), (b"accept", b"*/*"), (b"user-agent", b"benchmark")]
    return {"type": "http", "method": "GET", "path": "/users/123", "headers": headers}


def make_database() -> Database:
    """One that is never connected to."""
    return Database("postgresql+asyncpg://app@localhost/app")


def make_app(gate: Gate) -> App:
    """An app that leases a few times, as a session does, with the request's admission if there is one."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["endpoint"] = app
        scope["path_params"] = {"id": 123}
        for _ in range(LEASES):
            admission = current_admission.get()
            ask = ORDINARY if admission is None else admission.ask(gate, is_under_way=False)
            gate.acquire_nowait("async", ask.rank)
            if admission is not None:
                admission.admit(gate)
            gate.release(1, "async")

    return app


def make_asking_app(gate: Gate) -> App:
    """An app that asks and gets nothing: the one of many that is let in to be learned from."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["endpoint"] = app
        scope["path_params"] = {"id": 123}
        admission = current_admission.get()
        assert admission is not None
        admission.ask(gate, is_under_way=False)

    return app


def wrap(app: App, db: Database) -> App:
    """The middleware as ``install`` adds it."""
    return DatabaseMiddleware(
        app,
        db=db,
        check_on_startup=False,
        freezes_heap=False,
        refusals=RefusalOptions(),
        deadlines=DeadlineOptions(),
        log=RefusalLog(),
    )


def arm_of(app: App) -> Arm:
    """Requests one after the other, in one task."""

    async def run(operations: int) -> int:
        began = time.perf_counter_ns()
        for _ in range(operations):
            await app(scope(), receive, send)
        return time.perf_counter_ns() - began

    return lambda operations: asyncio.run(run(operations))


class OverloadedGate:
    """Keeps a gate overloaded: more wait than there is room for, for as long as the benchmark runs."""

    def __init__(self, gate: Gate) -> None:
        now_ns = gate.clock()
        rule = gate._line.overload
        rule.observe(rule.target_ns + 1, now_ns)
        rule.observe(rule.target_ns + 1, now_ns + 2 * rule.interval_ns)
        rule._window_ns = now_ns + 10**15  # its windows never end, as in an overload they all begin anew
        for _ in range(10):
            gate._line.join(_Waiting(), "async", now_ns)  # type: ignore[arg-type]


class _Waiting:
    """One that waits for ever."""


def refused_app() -> App:
    """A route that is known to need the database, of an overloaded gate."""
    db = make_database()
    app = wrap(make_asking_app(db.gate), db)

    async def learn() -> None:
        for _ in range(10):
            await app(scope(), receive, send)

    asyncio.run(learn())
    OverloadedGate(db.gate)
    return app


def main() -> None:
    """Measure and print."""
    logging.disable(logging.CRITICAL)
    db = make_database()
    bare = make_app(make_database().gate)
    arms = {"bare": arm_of(bare), "let in": arm_of(wrap(make_app(db.gate), db)), "refused": arm_of(refused_app())}
    show(compare(arms, PLAN))


def show(comparison: Comparison) -> None:
    """One line an arm, and what the admission adds."""
    print(f"µs a request of {LEASES} leases; median (quartiles) of {PLAN.rounds} rounds x {PLAN.operations}")
    for arm in ("bare", "let in", "refused"):
        spread = comparison.of(arm)
        print(f"{arm:10} {spread.median / 1e3:6.1f} ({spread.lower / 1e3:.1f} .. {spread.upper / 1e3:.1f})")
    added = comparison.of("let in").median - comparison.of("bare").median
    print(f"admission, deadline, memory of routes: {added / 1e3:.1f} µs a request; a refusal as above")


if __name__ == "__main__":
    main()
