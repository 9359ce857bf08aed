"""Observations as tests need them, with defaults for what they do not speak of."""

from __future__ import annotations

from typing import Any

from headgate.names import PHASES
from headgate.xray.observation import Awaited, HoldSum, Observation, Offer, PoolFacts, ProcessFacts, RouteSum, Site

MS = 1_000_000
S = 1_000_000_000
LINE = Site("/srv/shop/app.py", 61, "read", "await asyncio.sleep(2)")
ACQUIRED = Site("/srv/shop/app.py", 60, "read", "await session.execute(…)")
POOL = "AsyncAdaptedQueuePool"


def times(**of_ns: int) -> tuple[int, ...]:
    return tuple(of_ns.get(phase, 0) for phase in PHASES)


def process(**changes: Any) -> ProcessFacts:
    facts: dict[str, Any] = {"cores": 2, "threads": 40, "wall_ns": 10 * S, "cpu_ns": S, "loop_cpu_ns": S}
    return ProcessFacts(**{**facts, **changes})


def pool(**changes: Any) -> PoolFacts:
    return PoolFacts(**{"name": POOL, "kind": POOL, "limit": 15, **changes})


def hold(count: int, held_ns: int, busy_ns: int = 0, *awaited: Awaited, **changes: Any) -> HoldSum:
    facts: dict[str, Any] = {"pool": POOL, "site": ACQUIRED, "after_answer_ns": 0}
    return HoldSum(**{**facts, "count": count, "held_ns": held_ns, "busy_ns": busy_ns, "awaited": awaited, **changes})


def route(name: str = "GET /slow", count: int = 100, **changes: Any) -> RouteSum:
    facts: dict[str, Any] = {
        "times_ns": times(database=count * MS),
        "statuses": {"200": count},
        "latencies_ns": (MS,) * 5,
        "thread_runs": 0,
        "thread_wait_ns": 0,
        "thread_run_ns": 0,
    }
    return RouteSum(**{**facts, "route": name, "count": count, **changes})


def offer(name: str = "GET /slow", **changes: Any) -> Offer:
    facts: dict[str, Any] = {
        "label": name,
        "route": name,
        "sent": 100,
        "answered": 100,
        "failed": {},
        "rate": 100.0,
        "throughput": 50.0,
        "latency_ns": MS,
    }
    return Offer(**{**facts, **changes})


def held_route(count: int = 75, held_s: float = 2.0, busy_s: float = 0.003, *, wait_s: float = 5.0) -> RouteSum:
    """A route whose requests hold a connection and mostly sleep meanwhile."""
    held_ns, busy_ns = round(count * held_s * S), round(count * busy_s * S)
    return route(
        count=count,
        times_ns=times(gate_wait=round(count * wait_s * S), held_idle=held_ns - busy_ns, database=busy_ns),
        holds=(hold(count, held_ns, busy_ns, Awaited(LINE, "asyncio.sleep", 1.0)),),
        holders={POOL: count},
    )


def observation(*routes: RouteSum, **changes: Any) -> Observation:
    return Observation(**{"process": process(), "routes": routes, **changes})
