"""From an observation to sentences: what binds each route, what that allows, which lines to change. Pure.

A sentence carries the figures it speaks of; where nothing is saturated, nothing is advised.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from headgate.names import UNATTRIBUTED
from headgate.xray.constraints import ON_LOOP, Constraint, binding_constraint, constraints, holds_of
from headgate.xray.explain_holds import held_beyond, held_idle, is_idle_long, remedies
from headgate.xray.explain_service import about_service, stalls_of, told_of_stall
from headgate.xray.observation import HoldSum, Observation, Offer, PoolFacts, RouteSum, StatementSum
from headgate.xray.sentences import Sentence, many, rate, seconds, share

__all__ = ["Explanation", "RouteReport", "Sentence", "explain", "rate", "seconds"]

SAME_STATEMENT = 5
"""Executions in one request from which a statement counts as repeated."""

MUCH_UNATTRIBUTED = 0.2
FEW_NS = 1_000_000

MOST_GIVEN = 0.9
"""Of a core: with less of it, whoever measures is told that others had the rest."""

CURES = {
    "collection": "load it with the rest: select(…).options(selectinload({0})); raiseload({0}) in tests finds the next",
    "reference": "load it with the rest: select(…).options(joinedload({0})); raiseload({0}) in tests finds the next",
    "deferred": "ask for it where it is needed: select(…).options(undefer({0}))",
    "expired": "a commit has expired what was loaded before: expire_on_commit=False keeps it, one select refreshes all",
    "": "ask once for all of them",
}
"""By what a repeated statement loads."""


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


def explain(observation: Observation) -> Explanation:
    """Say what limits a service, route by route."""
    routes = sorted(observation.routes, key=lambda route: -sum(route.times_ns))
    return Explanation(
        (
            *(_Route(observation, route).report() for route in routes if route.count),
            *_never_arrived(observation),
        ),
        tuple(about_service(observation)),
    )


class _Route:
    """What is to be said of one route."""

    def __init__(self, observation: Observation, route: RouteSum) -> None:
        self.observation = observation
        self.route = route
        self.offer = next((one for one in observation.offers if one.route == route.route), None)
        self.constraints = constraints(observation, route)
        self.binding = binding_constraint(self.constraints)

    def report(self) -> RouteReport:
        """All of it."""
        return RouteReport(
            self.route.route,
            _headline(self.route, self.offer),
            (
                self._what_binds(),
                *self._holds(),
                *self._twice(),
                *self._stalls(),
                *self._repeats(),
                *self._unattributed(),
                *self._unfinished(),
            ),
        )

    def _what_binds(self) -> Sentence:
        binding = self.binding
        if binding is None:
            return _client_sentence(self.route, self.offer) or self._not_saturated()
        if binding.kind == "connections" and (leaked := self._leaked(binding)):
            return leaked
        if binding.is_others_doing:
            return _others_sentence(binding)
        return self._binding_sentence(binding)

    def _binding_sentence(self, binding: Constraint) -> Sentence:
        offered = "" if self.offer is None else f"  (offered {rate(self.offer.rate)}/s)"
        figures = {"limit": float(binding.limit), "hold_s": binding.hold_s, "rate": binding.rate, "used": binding.used}
        text = f"binding constraint: {_resource(binding)} = {rate(binding.rate)} requests/s at most{offered}"
        pool = next((one for one in self.observation.pools if one.name == binding.pool), None)
        if pool is not None and pool.timeouts and binding.kind == "connections":
            text += f"; {many(pool.timeouts, 'request')} got none before the pool's timeout"
            figures["timeouts"] = float(pool.timeouts)
        if binding.kind == "core":
            figures["given"] = binding.given
            text += _about_core(binding)
        return Sentence(binding.kind, text, figures)

    def _leaked(self, binding: Constraint) -> Sentence | None:
        """Connections that never come back leave fewer to wait for."""
        leaks = [leak for leak in self.observation.leaks if leak.pool == binding.pool]
        lost = sum(leak.count for leak in leaks)
        if not lost:
            return None
        return Sentence(
            "connections",
            f"binding constraint: {many(binding.limit, 'connection')}, of which {lost} {'is' if lost == 1 else 'are'} "
            f"never given back (acquired at {leaks[0].site}); waits {seconds(binding.wait_s)} for one",
            {"limit": float(binding.limit), "lost": float(lost), "wait_s": binding.wait_s},
            leaks[0].site,
        )

    def _not_saturated(self) -> Sentence:
        process = self.observation.process
        used = process.cpu_ns / max(1, process.wall_ns)
        others = [one for one in self.constraints if one.kind != "core"]
        nearest = max(others, key=lambda one: one.used, default=None)
        if nearest is None or nearest.used <= used:
            return Sentence("not saturated", f"not saturated: the process uses {share(used)} of a core", {"used": used})
        busy = f"the event loop is kept {share(nearest.used)} of the time"
        if nearest.kind != "loop":
            busy = f"the {nearest.limit} {nearest.kind} are in use {share(nearest.used)} of the time"
        return Sentence("not saturated", f"not saturated: {busy}", {"used": nearest.used})

    def _holds(self) -> Iterator[Sentence]:
        for pool in self.observation.pools:
            holds = holds_of(self.route, pool)
            if holds and (self._is_bound_by(pool) or is_idle_long(self.route, holds)):
                yield from held_idle(self.route, pool, holds)
                yield from self._remedies(pool, holds)
        yield from held_beyond(self.route)

    def _is_bound_by(self, pool: PoolFacts) -> bool:
        binding = self.binding
        return binding is not None and binding.pool == pool.name and not binding.is_others_doing

    def _remedies(self, pool: PoolFacts, holds: list[HoldSum]) -> Iterator[Sentence]:
        if self._is_bound_by(pool) and self.binding is not None:
            others = [one for one in self.constraints if one is not self.binding and one.hold_s > 0]
            yield from remedies(self.route, pool, holds, self.binding.limit, others)

    def _twice(self) -> Iterator[Sentence]:
        route = self.route
        if not route.twice:
            return
        pools = [one for one in self.observation.pools if one.limit and one.name in route.holders]
        limit = min((one.limit for one in pools if one.limit), default=0)
        stuck = f": as soon as {limit} of them run at once, each holds one and waits for another" if limit else ""
        yield Sentence(
            "twice",
            f"asks for a second connection at {route.second} while it holds one, in {share(route.twice / route.count)} "
            f"of its requests{stuck}; let one session serve the whole request",
            {"share": route.twice / route.count, "limit": float(limit)},
            route.second,
        )

    def _stalls(self) -> Iterator[Sentence]:
        for stall in stalls_of(self.observation, self.route.route):
            yield told_of_stall(stall, "keeps the event loop to itself")

    def _repeats(self) -> Iterator[Sentence]:
        for statement in sorted(self.route.statements, key=lambda one: -one.count):
            if statement.most >= SAME_STATEMENT and statement.count >= SAME_STATEMENT * statement.requests:
                yield _repeat_sentence(statement)

    def _unattributed(self) -> Iterator[Sentence]:
        total_ns = sum(self.route.times_ns)
        own = stalls_of(self.observation, self.route.route)
        rest_ns = self.route.times_ns[UNATTRIBUTED] - sum(stall.total_ns for stall in own if stall.verdict in ON_LOOP)
        if total_ns and rest_ns > MUCH_UNATTRIBUTED * total_ns and rest_ns / self.route.count > 5 * FEW_NS:
            yield Sentence(
                "unattributed",
                f"unattributed {share(rest_ns / total_ns)}: {seconds(rest_ns / self.route.count / 1e9)} a request in "
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
        return f"{many(route.count, 'request')}, p50 {seconds(_median(route.latencies_ns) / 1e9)} in the service"
    refused = "".join(f", {count} with status {status}" for status, count in route.statuses.items() if status >= "400")
    return _headline_of(offer, refused)


def _headline_of(offer: Offer, refused: str = "") -> str:
    failed = "".join(f", {count} failed ({word})" for word, count in offer.failed.items())
    if not offer.answered:
        return f"{offer.sent} sent, none answered{failed}{refused}"
    return f"{offer.sent} sent, {offer.answered} answered{failed}{refused}, p50 {seconds(offer.latency_ns / 1e9)}"


def _resource(binding: Constraint) -> str:
    """``15 connections ÷ 2.00 s held``."""
    hold = seconds(binding.hold_s)
    if binding.kind == "core":
        return f"{'one core' if binding.limit == 1 else f'{binding.limit} cores'} ÷ {hold} of CPU a request"
    if binding.kind == "loop":
        return f"one event loop ÷ {hold} on it"
    if binding.kind == "server":
        return f"{many(binding.limit, 'connection')}, all that the server allows, ÷ {hold} held"
    return f"{binding.limit} {binding.kind} ÷ {hold} {'held' if binding.kind == 'connections' else 'kept'}"


def _about_core(binding: Constraint) -> str:
    if binding.given < MOST_GIVEN:
        return f"; the machine was busy with something else too and gave {share(binding.given)} of that"
    return "; only more workers bring more cores" if binding.limit == 1 else ""


def _others_sentence(binding: Constraint) -> Sentence:
    used = {
        "connections": f"waits {seconds(binding.wait_s)} for one of {binding.limit} connections, because of another "
        f"route: {binding.main_user} holds them {share(binding.main_share)} of the time they are held",
        "threads": f"waits {seconds(binding.wait_s)} for one of {binding.limit} threads, because of another route: "
        f"{binding.main_user} keeps them {share(binding.main_share)} of the time they are kept",
    }
    busy = "the event loop" if binding.kind == "loop" else "the core"
    text = used.get(
        binding.kind, f"waits for {busy}, because of another route: {share(binding.main_share)} of it goes to "
    )
    return Sentence(
        binding.kind,
        text if binding.kind in used else text + binding.main_user,
        {"wait_s": binding.wait_s, "share": binding.main_share},
    )


def _client_sentence(route: RouteSum, offer: Offer | None) -> Sentence | None:
    """Whether requests waited for a connection of the client's before they were sent."""
    if offer is None or offer.connections is None or not offer.answered:
        return None
    inside_s, outside_s = _median(route.latencies_ns) / 1e9, offer.latency_ns / 1e9
    if outside_s < 2 * inside_s + 0.01:
        return None
    return Sentence(
        "client",
        f"the client is the limit: its {many(offer.connections, 'connection')} make requests wait before they are "
        f"sent (p50 {seconds(outside_s)} for the client, {seconds(inside_s)} in the service)",
        {"client_s": outside_s, "service_s": inside_s, "connections": float(offer.connections)},
    )


def _repeat_sentence(statement: StatementSum) -> Sentence:
    each = statement.count / statement.requests
    all_s = statement.time_ns / statement.requests / 1e9
    cure = CURES.get(statement.loads, CURES[""])
    loading = f", to load {statement.cause} for one object at a time" if statement.cause else ""
    return Sentence(
        "repeat",
        f"the same statement runs {each:.0f} times a request at {statement.site}{loading} ({seconds(all_s)} in all): "
        f"{cure.format(statement.cause)}",
        {"times": each, "s": all_s},
        statement.site,
    )


def _median(values: tuple[int, ...]) -> int:
    return values[(len(values) - 1) // 2] if values else 0
