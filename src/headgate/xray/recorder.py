"""Adds up what has ended, route by route, in bounded memory."""

from __future__ import annotations

import copy
import threading
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Final

from headgate.ledger import Account
from headgate.names import PHASES
from headgate.xray.live import LiveHold, LiveRequest, LiveStatement
from headgate.xray.observation import NOWHERE, Awaited, HoldSum, RouteSum, Site, StatementSum
from headgate.xray.samples import Samples
from headgate.xray.shapes import statement_shape

MOST_ROUTES: Final = 500
"""Beyond them, requests are added up under ``OTHER``: a client chooses its paths."""

OTHER: Final = "other routes"
NO_REQUEST: Final = "outside of requests"

MOST_LATENCIES: Final = 5_000
"""Of one route; then every second one is forgotten, and of those to come only as many are kept."""

MOST_STATEMENTS: Final = 500
"""Different ones of one route."""

MOST_HOLDS: Final = 200
"""Different ones of one route."""

MOST_SAMPLED: Final = 50
"""Routes of which single requests are kept."""


@dataclass(slots=True)
class _Hold:
    count: int = 0
    held_ns: int = 0
    busy_ns: int = 0
    after_answer_ns: int = 0
    sending_ns: int = 0
    seen: Counter[tuple[Site, str]] = field(default_factory=Counter)

    def add(self, hold: LiveHold, until_ns: int) -> None:
        request = hold.request
        busy_ns = hold.busy_ns + (max(0, until_ns - hold.busy_since_ns) if hold.busy_since_ns else 0)
        self.count += 1
        self.held_ns += until_ns - hold.began_ns
        self.busy_ns += min(busy_ns, until_ns - hold.began_ns)
        if request is not None and request.answered_ns:
            self.after_answer_ns += max(0, until_ns - max(hold.began_ns, request.answered_ns))
            sent_ns = min(until_ns, request.answered_ns)
            if request.responding_ns:
                self.sending_ns += max(0, sent_ns - max(hold.began_ns, request.responding_ns))
        self.seen.update(hold.seen)

    def sum(self, pool: str, site: Site) -> HoldSum:
        seen = self.seen.total()
        awaited = tuple(Awaited(at, what, count / seen) for (at, what), count in self.seen.most_common())
        return HoldSum(
            pool, site, self.count, self.held_ns, self.busy_ns, self.after_answer_ns, awaited, self.sending_ns
        )


@dataclass(slots=True)
class _Statement:
    count: int = 0
    requests: int = 0
    most: int = 0
    time_ns: int = 0
    cause: str = ""
    loads: str = ""

    def add(self, executions: list[LiveStatement]) -> None:
        self.count += len(executions)
        self.requests += 1
        self.most = max(self.most, len(executions))
        self.time_ns += sum(max(0, one.ended_ns - one.began_ns) for one in executions)
        for one in executions if not self.cause else ():
            if one.cause:
                self.cause, self.loads = one.cause, one.loads


class _Latencies:
    """A sample of all, spread evenly over them."""

    __slots__ = ("_every", "_seen", "values")

    def __init__(self) -> None:
        self.values: list[int] = []
        self._every = 1
        self._seen = 0

    def add(self, value: int) -> None:
        self._seen += 1
        if self._seen % self._every:
            return
        self.values.append(value)
        if len(self.values) >= MOST_LATENCIES:
            del self.values[::2]
            self._every *= 2


class _Route:
    def __init__(self, *, is_sampled: bool = True) -> None:
        self.count = 0
        self.unfinished = 0
        self.samples = Samples() if is_sampled else None
        self.times_ns = [0] * len(PHASES)
        self.statuses: Counter[str] = Counter()
        self.latencies = _Latencies()
        self.thread_runs = self.thread_wait_ns = self.thread_run_ns = 0
        self.holds: dict[tuple[str, Site], _Hold] = {}
        self.statements: dict[tuple[str, Site], _Statement] = {}
        self.holders: Counter[str] = Counter()
        self.twice = 0
        self.second = NOWHERE

    def add(self, request: LiveRequest, account: Account, until_ns: int = 0) -> None:
        """Add up a request; ``until_ns`` is given for one that has not ended, whose holds count until then."""
        self.count += 1
        self.unfinished += until_ns > 0 and not request.answered_ns
        if self.samples is not None:
            self.samples.add(request, account)
        self.statuses[str(request.status)] += 1
        self.latencies.add(account.total_ns)
        for phase, time_ns in enumerate(account.times_ns):
            self.times_ns[phase] += time_ns
        for wait_ns, run_ns in request.threads:
            self.thread_runs += 1
            self.thread_wait_ns += wait_ns
            self.thread_run_ns += run_ns
        for hold in request.holds:
            if hold.ended_ns or until_ns:
                self.add_hold(hold, hold.ended_ns or until_ns)
        self.holders.update({hold.pool.name for hold in request.holds})
        if request.second is not None:
            self.twice += 1
            self.second = request.second
        self._add_statements(request.statements)

    def add_hold(self, hold: LiveHold, until_ns: int) -> None:
        key = (hold.pool.name, hold.site)
        if key in self.holds or len(self.holds) < MOST_HOLDS:
            self.holds.setdefault(key, _Hold()).add(hold, until_ns)

    def _add_statements(self, statements: list[LiveStatement]) -> None:
        by_key: dict[tuple[str, Site], list[LiveStatement]] = {}
        for statement in statements:
            by_key.setdefault((statement_shape(statement.text), statement.site), []).append(statement)
        for key, executions in by_key.items():
            if key in self.statements or len(self.statements) < MOST_STATEMENTS:
                self.statements.setdefault(key, _Statement()).add(executions)

    def sum(self, route: str, since_ns: int) -> RouteSum:
        return RouteSum(
            route=route,
            count=self.count,
            times_ns=tuple(self.times_ns),
            statuses=dict(sorted(self.statuses.items())),
            latencies_ns=tuple(sorted(self.latencies.values)),
            thread_runs=self.thread_runs,
            thread_wait_ns=self.thread_wait_ns,
            thread_run_ns=self.thread_run_ns,
            holds=tuple(one.sum(*key) for key, one in self.holds.items()),
            statements=tuple(
                StatementSum(text, site, one.count, one.requests, one.most, one.time_ns, one.cause, one.loads)
                for (text, site), one in self.statements.items()
            ),
            holders=dict(self.holders),
            twice=self.twice,
            second=self.second,
            unfinished=self.unfinished,
            samples=() if self.samples is None else self.samples.chosen(since_ns),
        )


def sum_holds(holds: Iterable[LiveHold], now_ns: int) -> tuple[HoldSum, ...]:
    """Holds that have not ended, added up until now by where they began."""
    sums: dict[tuple[str, Site], _Hold] = {}
    for hold in holds:
        sums.setdefault((hold.pool.name, hold.site), _Hold()).add(hold, now_ns)
    return tuple(one.sum(*key) for key, one in sums.items())


class Recorder:
    """The sums so far."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._routes: dict[str, _Route] = {}
        self._paths: dict[str, str] = {}

    def add(self, request: LiveRequest) -> None:
        """Add up a request that has ended."""
        account = request.account(request.answered_ns or request.ended_ns)
        with self._lock:
            self._route(request.route).add(request, account)
            if len(self._paths) < MOST_ROUTES:
                self._paths[f"{request.scope['method']} {request.scope['path']}"] = request.route

    def add_hold(self, hold: LiveHold) -> None:
        """Add up a hold outside of requests, or of one that had ended before."""
        with self._lock:
            self._route(NO_REQUEST if hold.request is None else hold.request.route).add_hold(hold, hold.ended_ns)

    def _route(self, name: str) -> _Route:
        return _route_of(self._routes, name)

    def routes(
        self, unfinished: Collection[LiveRequest] = (), now_ns: int = 0, since_ns: int = 0
    ) -> tuple[RouteSum, ...]:
        """A sum for each route.

        :param unfinished: requests that have not ended, which count as far as they have come.
        :param since_ns: when the watch began.
        """
        with self._lock:
            routes = copy.deepcopy(self._routes) if unfinished else self._routes
            for request in unfinished:
                account = request.account(request.answered_ns or now_ns)
                _route_of(routes, request.route).add(request, account, now_ns)
            return tuple(route.sum(name, since_ns) for name, route in routes.items())

    def paths(self) -> dict[str, str]:
        """The route that each of some paths led to."""
        with self._lock:
            return dict(self._paths)

    def start_anew(self) -> None:
        """Forget everything in a forked child, where the lock may be held by a thread of the parent."""
        self._lock = threading.Lock()
        self._routes.clear()
        self._paths.clear()

    def forget(self) -> None:
        """Begin anew, as after a warm-up."""
        with self._lock:
            self._routes.clear()


def _route_of(routes: dict[str, _Route], name: str) -> _Route:
    found = routes.get(name)
    if found is None and len(routes) >= MOST_ROUTES:
        name = OTHER
        found = routes.get(name)
    if found is None:
        found = routes[name] = _Route(is_sampled=len(routes) < MOST_SAMPLED)
    return found
