"""What the console shows, as plain values of JSON; counters are since the start, and the page takes the differences."""

from __future__ import annotations

import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any, Final

from headgate.names import PHASES
from headgate.version import __version__
from headgate.xray.figures import Figures
from headgate.xray.live import LiveHold, LiveRequest
from headgate.xray.observation import RUNS, Site, Stall
from headgate.xray.pools import PoolNow
from headgate.xray.sampling import where_held
from headgate.xray.sums import CLASSES, RouteFigures, route_label

MOST_ROUTES: Final = 100
MOST_HOLDS: Final = 50
"""The oldest: to look at one takes some five microseconds."""
MOST_REQUESTS: Final = 20
MOST_STALLS: Final = 30

STATEMENT: Final = "a statement"


def take_snapshot(figures: Figures) -> dict[str, Any]:
    """Everything, now; from the event loop's thread, because it looks at suspended tasks."""
    now_ns = figures.clock()
    requests, holds = figures.requests(), figures.holds()
    stalls = sorted(figures.stalls(), key=lambda stall: -stall.total_ns)
    routes = sorted(figures.routes(), key=lambda route: -sum(route.times_ns))
    return {
        "process": _process(now_ns - figures.began_ns),
        "phases": PHASES,
        "routes": [_route(one) for one in routes[:MOST_ROUTES]],
        "in_flight": dict(Counter(route_label(one.scope) for one in requests)),
        "pools": [_pool(one) for one in figures.pools()],
        "holds": [_hold(one, now_ns) for one in holds[:MOST_HOLDS]],
        "requests": [_request(one, now_ns) for one in requests[:MOST_REQUESTS]],
        "stalls": [_stall(one) for one in stalls[:MOST_STALLS]],
        "more": {
            "routes": _beyond(routes, MOST_ROUTES),
            "holds": _beyond(holds, MOST_HOLDS),
            "requests": _beyond(requests, MOST_REQUESTS),
            "stalls": _beyond(stalls, MOST_STALLS),
        },
    }


def _beyond(items: list[Any], most: int) -> int:
    return max(0, len(items) - most)


def _process(watched_ns: int) -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        "python": ".".join(map(str, sys.version_info[:3])),
        "headgate": __version__,
        "watched_ms": _ms(watched_ns),
    }


def _route(route: RouteFigures) -> dict[str, Any]:
    return {
        "route": route.route,
        "count": route.requests,
        "times_ms": [_ms(time_ns) for time_ns in route.times_ns],
        "statuses": {name: count for name, count in zip(CLASSES, route.statuses, strict=True) if count},
    }


def _pool(pool: PoolNow) -> dict[str, Any]:
    gate = pool.gate
    shown: dict[str, Any] = {
        "pool": pool.label,
        "limit": pool.limit,
        "in_use": pool.in_use,
        "idle": pool.idle if gate is None else gate.idle,
        "pending": pool.pending,
        "timeouts": pool.timeouts,
        "gate": None,
    }
    if gate is not None:
        shown["gate"] = {
            "warm": gate.warm,
            "oldest_wait_ms": _ms(gate.oldest_wait_ns),
            "mean_use_ms": _ms(gate.mean_use_ns),
            "acquired": gate.acquired,
            "waited": gate.waited,
            "shed": dict(gate.shed),
            "dropped": dict(gate.dropped),
            "overloaded": gate.overloaded,
        }
    return shown


def _hold(hold: LiveHold, now_ns: int) -> dict[str, Any]:
    if hold.busy_since_ns:
        site, what = hold.at, STATEMENT
    else:
        site, what = where_held(hold)
    return {
        "age_ms": _ms(now_ns - hold.began_ns),
        "route": "" if hold.request is None else route_label(hold.request.scope),
        "acquired": show_site(hold.site),
        "at": show_site(site),
        "awaits": what or RUNS,
        "pool": hold.pool.name,
    }


def _request(request: LiveRequest, now_ns: int) -> dict[str, Any]:
    account = request.account(now_ns)
    return {
        "age_ms": _ms(account.total_ns),
        "route": route_label(request.scope),
        "times_ms": [_ms(time_ns) for time_ns in account.times_ns],
        "statements": len(request.statements),
        "holds": sum(not hold.ended_ns for hold in request.holds),
    }


def _stall(stall: Stall) -> dict[str, Any]:
    return {
        "verdict": stall.verdict,
        "at": show_site(stall.site),
        "what": stall.what,
        "route": stall.route,
        "count": stall.count,
        "total_ms": _ms(stall.total_ns),
        "longest_ms": _ms(stall.longest_ns),
        "victims": stall.victims,
    }


def show_site(site: Site) -> str:
    """``app/orders.py:41 in list_orders``; '' if the line is unknown."""
    if not site.file:
        return ""
    file = Path(site.file)
    shown = file.relative_to(_HERE) if file.is_relative_to(_HERE) else file
    return f"{shown}:{site.line} in {site.function}"


def _here() -> Path:
    try:
        return Path.cwd()
    except OSError:  # it has been removed
        return Path("/nowhere")


_HERE: Final = _here()


def _ms(time_ns: int) -> float:
    return round(time_ns / 1e6, 2)
