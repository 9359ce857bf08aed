"""Of what there is only so much, how much of it was in use, and what that allows: Little's law. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final, Literal

from headgate.ceilings import ceiling
from headgate.names import GATE_WAIT, STALLED, THREAD_WAIT
from headgate.xray.observation import BEAT_NS, HoldSum, Observation, PoolFacts, ProcessFacts, RouteSum

SATURATED: Final = 0.7
"""The share of a resource in use from which waits are its own doing rather than chance."""

CORE_SATURATED: Final = 0.85
"""Likewise of a core or an event loop even if nobody is seen to wait: other processes take their part of a core."""

LEAST_WAIT_S: Final = 0.000_5
LEAST_WAIT: Final = 0.05
"""Of the time a place is held; it takes some time to be given a free one too."""

OWN_SHARE: Final = 0.3
"""Of a resource's use: a route that uses less of it waits for others."""

BLOCKED: Final = 0.2
"""Of the event loop's busy time: with less of it in calls that use no CPU, it is the core that is short."""

ON_LOOP: Final = ("code", "import", "thread")
"""Verdicts of stalls that are the app's own doing."""

Resource = Literal["connections", "threads", "core", "loop", "server"]


@dataclass(frozen=True, slots=True)
class Constraint:
    """A resource, and what it allows one route.

    :ivar hold_s: seconds a request keeps one of ``limit``.
    :ivar used: share of it that was in use, over all routes.
    :ivar wait_s: seconds a request waited for one, on average.
    :ivar own_share: of that use, this route's; ``main_user`` is the route that uses most.
    :ivar pool: which connections.
    :ivar given: the share of a core that the machine gave, of what was asked for.
    """

    kind: Resource
    limit: int
    hold_s: float
    used: float
    wait_s: float
    own_share: float = 1.0
    main_user: str = ""
    main_share: float = 1.0
    pool: str = ""
    given: float = 1.0

    @property
    def rate(self) -> float:
        """Requests per second it allows, if they are all of this route (Little's law)."""
        return ceiling(self.limit, self.hold_s)

    @property
    def binds(self) -> bool:
        """True if it is used up and waited for."""
        if self.kind in ("core", "loop"):
            return self.used > CORE_SATURATED or (self.used > SATURATED and self.wait_s > BEAT_NS / 1e9)
        return self.used > SATURATED and self.wait_s > max(LEAST_WAIT_S, LEAST_WAIT * self.hold_s)

    @property
    def is_others_doing(self) -> bool:
        """Whether another route uses it up."""
        return self.own_share < OWN_SHARE and self.main_share > self.own_share


def constraints(observation: Observation, route: RouteSum) -> list[Constraint]:
    """Everything a route needs of which there is only so much."""
    return [
        *_of_pools(observation, route),
        *([_threads(observation, route)] if route.thread_runs and observation.process.threads else []),
        *_of_core(observation, route),
    ]


def binding_constraint(found: Iterable[Constraint]) -> Constraint | None:
    """The one that allows least of those that are used up."""
    return min((one for one in found if one.binds), key=lambda one: one.rate, default=None)


def holds_of(route: RouteSum, pool: PoolFacts) -> list[HoldSum]:
    """A route's holds of one pool's connections."""
    return [hold for hold in route.holds if hold.pool == pool.name]


def held_s(route: RouteSum, pool: PoolFacts) -> float:
    """Seconds that a request which holds connections of a pool holds them."""
    return _held_ns(route, pool) / max(1, route.holders.get(pool.name, 0)) / 1e9


def _held_ns(route: RouteSum, pool: PoolFacts) -> int:
    return sum(hold.held_ns for hold in holds_of(route, pool))


def _of_pools(observation: Observation, route: RouteSum) -> Iterator[Constraint]:
    for pool in observation.pools:
        if pool.refusals and pool.most:
            yield _server(route, pool)
        elif pool.limit and (pool.name in route.holders or (route.times_ns[GATE_WAIT] and not route.holders)):
            yield _connections(observation, route, pool, pool.limit)


def _connections(observation: Observation, route: RouteSum, pool: PoolFacts, limit: int) -> Constraint:
    hold_s = held_s(route, pool)
    by_route = {one.route: _held_ns(one, pool) for one in observation.routes}
    return Constraint(
        "connections",
        limit,
        hold_s,
        _used(pool.held_ns, limit, observation.process.wall_ns + hold_s * 1e9),
        route.times_ns[GATE_WAIT] / route.count / 1e9,
        *_own_and_main(by_route, route),
        pool=pool.name,
    )


def _server(route: RouteSum, pool: PoolFacts) -> Constraint:
    """What the server allows: the connections it had given when it refused more."""
    hold_s = held_s(route, pool)
    return Constraint("server", pool.most, hold_s, used=1.0, wait_s=1.0 + hold_s, pool=pool.name)


def _threads(observation: Observation, route: RouteSum) -> Constraint:
    run_ns = sum(one.thread_run_ns for one in observation.routes)
    threads = observation.process.threads
    own_ns = route.thread_run_ns / route.count
    return Constraint(
        "threads",
        threads,
        (route.thread_run_ns - _waits_in_threads_ns(observation, route)) / route.count / 1e9,
        _used(run_ns, threads, observation.process.wall_ns + own_ns),
        route.times_ns[THREAD_WAIT] / route.count / 1e9,
        *_own_and_main({one.route: one.thread_run_ns for one in observation.routes}, route),
    )


def _waits_in_threads_ns(observation: Observation, route: RouteSum) -> int:
    """Time that threads waited for connections: those are too few then, not the threads."""
    if not any(pool.name in route.holders and not pool.kind.startswith("Async") for pool in observation.pools):
        return 0
    return min(route.times_ns[GATE_WAIT], route.thread_run_ns)


def _of_core(observation: Observation, route: RouteSum) -> Iterator[Constraint]:
    """The one core that Python runs on, or the event loop if it is kept by what uses no core."""
    process = observation.process
    wall_ns = max(1, process.wall_ns)
    on_loop_ns = process.loop_cpu_ns + process.blocked_ns
    kept_ns = on_loop_ns + process.kept_waiting_ns
    if process.blocked_ns > BLOCKED * on_loop_ns:
        yield _shared(observation, route, "loop", 1, on_loop_ns, kept_ns / wall_ns)
    if not (route.thread_runs or route.times_ns[STALLED] or 2 * kept_ns > wall_ns):
        return  # what keeps the core busy is in other threads, and leaves the loop free
    limit = (
        1 if process.cpu_ns < 1.05 * wall_ns else max(1, process.cores)
    )  # more only outside of the interpreter's lock
    wanted_ns = process.cpu_ns + process.kept_waiting_ns
    core = _shared(observation, route, "core", limit, process.cpu_ns, wanted_ns / wall_ns / limit)
    yield replace(core, given=process.cpu_ns / max(1, wanted_ns))


def _shared(
    observation: Observation, route: RouteSum, kind: Resource, limit: int, total_ns: int, used: float
) -> Constraint:
    """What nobody measures by request: stalls belong to their routes, the rest to all requests alike."""
    stalled = {one.route: 0 for one in observation.routes}
    for stall in observation.stalls:
        if stall.verdict in ON_LOOP and stall.route in stalled:
            stalled[stall.route] += stall.total_ns
    requests = sum(one.count for one in observation.routes)
    part = min(1.0, total_ns / max(1, sum(stalled.values())))  # they last longer where the machine is busy
    each_ns = max(0, total_ns - sum(stalled.values())) / max(1, requests)
    by_route = {one.route: round(stalled[one.route] * part + each_ns * one.count) for one in observation.routes}
    return Constraint(
        kind,
        limit,
        by_route[route.route] / route.count / 1e9,
        min(1.0, used),
        _lateness_s(observation.process),
        *_own_and_main(by_route, route),
    )


def _lateness_s(process: ProcessFacts) -> float:
    """Of a beat, on average: as long waits whoever wants something done on the event loop."""
    beats = max(1.0, (process.wall_ns - process.late_ns) / BEAT_NS)
    return process.late_ns / beats / 1e9


def _used(busy_ns: float, limit: int, wall_ns: float) -> float:
    return min(1.0, busy_ns / max(1.0, limit * wall_ns))


def _own_and_main(by_route: dict[str, int], route: RouteSum) -> tuple[float, str, float]:
    """This route's share, the route with the largest, and that."""
    total = max(1, sum(by_route.values()))
    main = max(by_route, key=lambda one: by_route[one])
    return by_route[route.route] / total, main, by_route[main] / total
