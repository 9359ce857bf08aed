"""From an observation to sentences: what binds each route, what that allows, which lines to change. Pure.

A sentence carries the figures it speaks of; where nothing is saturated, nothing is advised.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from headgate.ceilings import ceiling
from headgate.names import GATE_WAIT, THREAD_WAIT, UNATTRIBUTED
from headgate.xray.observation import HoldSum, Observation, Offer, PoolFacts, RouteSum, Site, Stall, StatementSum

SATURATED = 0.7
"""The share of a resource in use from which waits are its own doing rather than chance."""

OWN_SHARE = 0.3
"""Of the time that connections are held: a route that holds them less waits for others'."""

SAME_STATEMENT = 5
"""Executions in one request from which a statement counts as repeated."""

MUCH_UNATTRIBUTED = 0.2
FEW_NS = 1_000_000

Kind = Literal[
    "connections",
    "threads",
    "core",
    "client",
    "server",
    "not saturated",
    "hold",
    "remedy",
    "stall",
    "repeat",
    "twice",
    "after answer",
    "leak",
    "unattributed",
    "unfinished",
    "note",
]


@dataclass(frozen=True, slots=True)
class Sentence:
    """One thing that was found, with the figures in it: seconds, shares, counts and requests per second."""

    kind: Kind
    text: str
    figures: dict[str, float] = field(default_factory=dict)
    site: Site | None = None


@dataclass(frozen=True, slots=True)
class RouteReport:
    """What is said of one route: ``headline``, then what binds it, then what to change, the greatest gain first."""

    route: str
    headline: str
    sentences: tuple[Sentence, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """What is said of a service."""

    routes: tuple[RouteReport, ...]
    service: tuple[Sentence, ...]


@dataclass(frozen=True, slots=True)
class Constraint:
    """A resource, and what it allows one route.

    :ivar hold_s: seconds a request keeps one of ``limit``.
    :ivar used: share of it that was in use, over all routes.
    :ivar wait_s: seconds a request waited for one, on average.
    :ivar own_share: of that use, this route's.
    :ivar pool: which connections.
    """

    kind: Literal["connections", "threads", "core"]
    limit: int
    hold_s: float
    used: float
    wait_s: float
    own_share: float = 1.0
    pool: str = ""

    @property
    def rate(self) -> float:
        """Requests per second it allows, if they are all of this route (Little's law)."""
        return ceiling(self.limit, self.hold_s)

    @property
    def binds(self) -> bool:
        """True if it is used up and waited for."""
        return self.used > SATURATED and self.wait_s > 0


def explain(observation: Observation) -> Explanation:
    """Say what limits a service, route by route."""
    routes = sorted(observation.routes, key=lambda route: -sum(route.times_ns))
    return Explanation(
        (
            *(_Route(observation, route).report() for route in routes if route.count),
            *_never_arrived(observation),
        ),
        tuple(_of_service(observation)),
    )


def constraints(observation: Observation, route: RouteSum) -> list[Constraint]:
    """Everything a route needs of which there is only so much."""
    return [
        *(_connections(observation, route, pool) for pool in observation.pools if pool.limit and _holds(route, pool)),
        *([_threads(observation, route)] if route.thread_runs and observation.process.threads else []),
        _core(observation),
    ]


def _connections(observation: Observation, route: RouteSum, pool: PoolFacts) -> Constraint:
    assert pool.limit is not None
    own_ns, held_ns = _held_ns(route, pool.name), sum(_held_ns(one, pool.name) for one in observation.routes)
    return Constraint(
        "connections",
        pool.limit,
        own_ns / max(1, route.holders.get(pool.name, 0)) / 1e9,
        held_ns / (pool.limit * observation.process.wall_ns),
        route.times_ns[GATE_WAIT] / route.count / 1e9,
        own_ns / max(1, held_ns),
        pool.name,
    )


def _held_ns(route: RouteSum, pool: str) -> int:
    return sum(hold.held_ns for hold in route.holds if hold.pool == pool)


def _greatest_holder(observation: Observation, pool: str) -> tuple[str, float]:
    held = {route.route: _held_ns(route, pool) for route in observation.routes}
    name = max(held, key=lambda one: held[one])
    return name, held[name] / max(1, sum(held.values()))


def _threads(observation: Observation, route: RouteSum) -> Constraint:
    # While it waits in a thread for a connection, it is the connections that are too few.
    run_ns = max(0, route.thread_run_ns - min(route.times_ns[GATE_WAIT], route.thread_run_ns))
    used_ns = sum(one.thread_run_ns for one in observation.routes)
    threads = observation.process.threads
    return Constraint(
        "threads",
        threads,
        run_ns / route.count / 1e9,
        used_ns / (threads * observation.process.wall_ns),
        route.times_ns[THREAD_WAIT] / route.count / 1e9,
    )


def _core(observation: Observation) -> Constraint:
    process = observation.process
    requests = sum(route.count for route in observation.routes)
    return Constraint(
        "core",
        1,
        process.cpu_ns / max(1, requests) / 1e9,
        process.cpu_ns / process.wall_ns,
        1.0,  # whoever waits for the interpreter's lock does not know it
    )


def _holds(route: RouteSum, pool: PoolFacts) -> list[HoldSum]:
    return [hold for hold in route.holds if hold.pool == pool.name]


class _Route:
    """What is to be said of one route."""

    def __init__(self, observation: Observation, route: RouteSum) -> None:
        self.observation = observation
        self.route = route
        self.offer = next((one for one in observation.offers if one.route == route.route), None)
        self.constraints = constraints(observation, route)
        self.binding = min((one for one in self.constraints if one.binds), key=lambda one: one.rate, default=None)

    def report(self) -> RouteReport:
        """All of it."""
        return RouteReport(
            self.route.route,
            _headline(self.route, self.offer),
            (
                *self._what_binds(),
                *self._hold(),
                *self._repeats(),
                *self._after_answer(),
                *self._unattributed(),
                *self._unfinished(),
            ),
        )

    def _what_binds(self) -> Iterator[Sentence]:
        if _is_client_the_limit(self.route, self.offer):
            yield _client_sentence(self.route, self.offer)
        elif self.binding is None:
            yield self._not_saturated()
        elif self.binding.kind == "connections" and self.binding.own_share < OWN_SHARE:
            yield self._others_hold(self.binding)
        else:
            yield _binding_sentence(self.binding, self.offer)

    def _others_hold(self, binding: Constraint) -> Sentence:
        other, share = _greatest_holder(self.observation, binding.pool)
        return Sentence(
            "connections",
            f"waits {seconds(binding.wait_s)} for one of {binding.limit} connections, because of another route: "
            f"{other} holds them {share:.0%} of the time they are held",
            {"wait_s": binding.wait_s, "share": share},
        )

    def _not_saturated(self) -> Sentence:
        nearest = max(self.constraints, key=lambda one: one.used)
        return Sentence(
            "not saturated",
            f"not saturated: the {_name(nearest)} nearest to being used up are used {nearest.used:.0%}"
            if nearest.kind != "core"
            else f"not saturated: the process uses {nearest.used:.0%} of a core",
            {"used": nearest.used},
        )

    def _hold(self) -> Iterator[Sentence]:
        for pool in self.observation.pools:
            holds = _holds(self.route, pool)
            binding = self.binding
            binds = binding is not None and binding.kind == "connections" and binding.own_share >= OWN_SHARE
            if holds and (binds or self._idles_long(holds)):
                yield from _hold_sentences(self.route, pool, holds)

    def _idles_long(self, holds: list[HoldSum]) -> bool:
        idle_ns = sum(hold.held_ns - hold.busy_ns for hold in holds)
        return idle_ns > 0.5 * sum(hold.held_ns for hold in holds) and idle_ns / self.route.count > 10 * FEW_NS

    def _repeats(self) -> Iterator[Sentence]:
        for statement in sorted(self.route.statements, key=lambda one: -one.count):
            if statement.most >= SAME_STATEMENT and statement.count >= SAME_STATEMENT * statement.requests:
                yield _repeat_sentence(statement)

    def _after_answer(self) -> Iterator[Sentence]:
        for hold in self.route.holds:
            late_ns = hold.after_answer_ns / hold.count
            if late_ns > 10 * FEW_NS and hold.after_answer_ns > 0.1 * hold.held_ns:
                yield Sentence(
                    "after answer",
                    f"the connection acquired at {hold.site} is held for {seconds(late_ns / 1e9)} after the response "
                    f"is complete{_during(hold)}",
                    {"held_s": late_ns / 1e9},
                    hold.site,
                )

    def _unattributed(self) -> Iterator[Sentence]:
        total_ns = sum(self.route.times_ns)
        rest_ns = self.route.times_ns[UNATTRIBUTED]
        if total_ns and rest_ns > MUCH_UNATTRIBUTED * total_ns and rest_ns / self.route.count > 5 * FEW_NS:
            yield Sentence(
                "unattributed",
                f"unattributed {rest_ns / total_ns:.0%}: {seconds(rest_ns / self.route.count / 1e9)} a request in "
                "which neither a statement ran nor a connection was held or waited for",
                {"share": rest_ns / total_ns, "s": rest_ns / self.route.count / 1e9},
            )

    def _unfinished(self) -> Iterator[Sentence]:
        if count := self.route.unfinished:
            yield Sentence(
                "unfinished",
                f"{count} of {self.route.count} requests had not ended; they count as far as they had come",
                {"count": float(count)},
            )


def _never_arrived(observation: Observation) -> Iterator[RouteReport]:
    """What was asked for and never began: a service that stands still takes no request."""
    begun = {route.route for route in observation.routes if route.count}
    for offer in observation.offers:
        if offer.sent and offer.route not in begun:
            sentence = Sentence("unfinished", "none of them reached the app", {"count": float(offer.sent)})
            yield RouteReport(offer.route, _headline_of(offer), (sentence,))


def _headline(route: RouteSum, offer: Offer | None) -> str:
    if offer is None:
        return f"{route.count} requests, p50 {seconds(_median(route.latencies_ns) / 1e9)} in the service"
    return _headline_of(offer)


def _headline_of(offer: Offer) -> str:
    if not offer.answered:
        return f"{offer.sent} sent, none answered"
    return f"{offer.sent} sent, {offer.answered} answered, p50 {seconds(offer.latency_ns / 1e9)}"


def _binding_sentence(binding: Constraint, offer: Offer | None) -> Sentence:
    offered = "" if offer is None else f"  (offered {rate(offer.rate)}/s)"
    figures = {"limit": float(binding.limit), "hold_s": binding.hold_s, "rate": binding.rate, "used": binding.used}
    if binding.kind == "core":
        text = f"one core ÷ {seconds(binding.hold_s)} of CPU a request = {rate(binding.rate)} requests/s at most"
    else:
        verb = "held" if binding.kind == "connections" else "kept"
        text = (
            f"{binding.limit} {binding.kind} ÷ {seconds(binding.hold_s)} {verb} = {rate(binding.rate)} requests/s "
            "at most"
        )
    return Sentence(binding.kind, f"binding constraint: {text}{offered}", figures)


def _name(constraint: Constraint) -> str:
    return f"{constraint.limit} {constraint.kind}"


def _is_client_the_limit(route: RouteSum, offer: Offer | None) -> bool:
    """Whether requests waited for a connection of the client's before they were sent."""
    if offer is None or offer.connections is None or not offer.answered:
        return False
    inside_ns = _median(route.latencies_ns)
    return offer.latency_ns > 2 * inside_ns + 10 * FEW_NS


def _client_sentence(route: RouteSum, offer: Offer | None) -> Sentence:
    assert offer is not None
    inside_s, outside_s = _median(route.latencies_ns) / 1e9, offer.latency_ns / 1e9
    return Sentence(
        "client",
        f"the client is the limit: its {offer.connections} connections make requests wait before they are sent "
        f"(p50 {seconds(outside_s)} for the client, {seconds(inside_s)} in the service)",
        {"client_s": outside_s, "service_s": inside_s, "connections": float(offer.connections or 0)},
    )


def _hold_sentences(route: RouteSum, pool: PoolFacts, holds: list[HoldSum]) -> Iterator[Sentence]:
    requests = max(1, route.holders.get(pool.name, 0))
    held_s = sum(hold.held_ns for hold in holds) / requests / 1e9
    busy_s = sum(hold.busy_ns for hold in holds) / requests / 1e9
    if not held_s:
        return
    found = _idle_by_place(holds)
    named = ", ".join(f"{what} at {site} ({share:.0%})" for (site, what), share in found[:3])
    rest = f"; the rest is {_plain(found)}" if found else ""
    yield Sentence(
        "hold",
        f"of the {seconds(held_s)} a connection is held, the database works {seconds(busy_s)} "
        f"({busy_s / held_s:.1%}){rest}",
        {"held_s": held_s, "busy_s": busy_s},
        found[0][0][0] if found else None,
    )
    left_s = held_s
    for (site, what), share in found[:3]:
        gain_s = (held_s - busy_s) * share
        left_s -= gain_s
        if gain_s > 0.1 * held_s and pool.limit:
            yield _remedy(site, what, pool.limit, held_s, max(left_s, busy_s), named)


def _remedy(site: Site, what: str, limit: int, held_s: float, left_s: float, named: str) -> Sentence:
    new = ceiling(limit, left_s)
    return Sentence(
        "remedy",
        f"release before {site} → the ceiling becomes {rate(new)} requests/s. "
        "headgate.AsyncSession does this by itself.",
        {"rate": new, "gain": new / ceiling(limit, held_s), "left_s": left_s},
        site,
    )


def _idle_by_place(holds: list[HoldSum]) -> list[tuple[tuple[Site, str], float]]:
    """What holders waited for while no statement ran, as shares of all their idle time, the largest first."""
    idle: Counter[tuple[Site, str]] = Counter()
    for hold in holds:
        for awaited in hold.awaited:
            idle[awaited.site, awaited.what] += round((hold.held_ns - hold.busy_ns) * awaited.share)
    total = sum(hold.held_ns - hold.busy_ns for hold in holds)
    return [(place, time_ns / total) for place, time_ns in idle.most_common()] if total else []


def _plain(found: list[tuple[tuple[Site, str], float]]) -> str:
    (site, what), share = found[0]
    if share > 0.95:
        return f"{what} at {site}"
    return ", ".join(f"{what} at {site} ({share:.0%})" for (site, what), share in found[:3])


def _during(hold: HoldSum) -> str:
    if not hold.awaited:
        return ""
    first = hold.awaited[0]
    return f", during {first.what} at {first.site}"


def _repeat_sentence(statement: StatementSum) -> Sentence:
    each = statement.count / statement.requests
    loading = f", to load {statement.cause} one by one" if statement.cause else ""
    cure = (
        f": load it with the rest, select(…).options(selectinload({statement.cause}))"
        if statement.cause
        else ": ask once for all of them"
    )
    return Sentence(
        "repeat",
        f"the same statement runs {each:.0f} times a request at {statement.site}{loading} "
        f"({seconds(statement.time_ns / statement.requests / 1e9)} in all){cure}",
        {"times": each, "s": statement.time_ns / statement.requests / 1e9},
        statement.site,
    )


def _of_service(observation: Observation) -> Iterator[Sentence]:
    for stall in sorted(observation.stalls, key=lambda one: -one.total_ns):
        yield _stall_sentence(stall)
    for pool in observation.pools:
        if pool.refused:
            yield Sentence("server", f"the server refused connections: {pool.refused}")
    for leak in observation.leaks:
        yield Sentence(
            "leak",
            f"never given back: {leak.count} connections acquired at {leak.site}; their requests are over",
            {"count": float(leak.count)},
            leak.site,
        )
    for note in observation.notes:
        yield Sentence("note", note)


def _stall_sentence(stall: Stall) -> Sentence:
    figures = {"count": float(stall.count), "total_s": stall.total_ns / 1e9, "longest_s": stall.longest_ns / 1e9}
    times = f"{stall.count} times, {seconds(stall.total_ns / 1e9)} in all, {seconds(stall.longest_ns / 1e9)} at most"
    what = stall.what or (f"«{stall.site.text}»" if stall.site.text else "code")
    what = f"{what} at {stall.site}"
    because = {
        "code": f"because of {what}" + (f" ({stall.route})" if stall.route else ""),
        "collection": "for the garbage collector, not because of a line of the app",
        "import": f"for the import of {stall.what} at {stall.site}: import it when the service starts",
        "thread": f"waiting for another thread at {stall.site}",
        "descheduled": "because the process was not allowed to run: the machine was busy with something else",
        "suspended": "because the process was suspended",
    }[stall.verdict]
    return Sentence(
        "stall",
        f"the event loop stood still {times}, {because}; {stall.victims} other requests waited",
        figures,
        stall.site,
    )


def _median(values: tuple[int, ...]) -> int:
    return values[(len(values) - 1) // 2] if values else 0


def seconds(value: float) -> str:
    """A time as people read it: ``2.00 s``, ``3 ms``, ``0.4 ms``."""
    if value >= 0.995:
        return f"{value:.2f} s" if value < 9.995 else f"{value:.1f} s"
    if value >= 0.00995:
        return f"{value * 1e3:.0f} ms"
    return f"{value * 1e3:.1f} ms" if value >= 0.000_95 else f"{value * 1e6:.0f} µs"


def rate(value: float) -> str:
    """Requests per second as people read them: ``7.5``, ``5,000``."""
    if math.isinf(value):
        return "any number of"
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}".removesuffix(".0")
