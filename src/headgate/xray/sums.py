"""Running sums by route and by pool, since the process began and in bounded memory: what metrics are made of."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Callable, MutableMapping
from typing import Any, Final, NamedTuple, TypeVar

from headgate.names import PHASES
from headgate.tallies import WAIT_BOUNDS_NS
from headgate.xray.live import LiveHold, LiveRequest, PoolTally, declared_route

MOST_ROUTES: Final = 500
"""Beyond them, requests are added up under ``OTHER``."""

MOST_POOLS: Final = 50
"""By name; beyond them, likewise."""

OTHER: Final = "other"
NO_ROUTE: Final = "(no route)"

METHODS: Final = frozenset(
    {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY", "TRACE", "CONNECT", "PROPFIND"}
)
"""A client chooses its method; any other is called ``OTHER``."""

CLASSES: Final = ("none", "1xx", "2xx", "3xx", "4xx", "5xx")
"""Of statuses; ``none`` where no answer was sent."""


class Counts(NamedTuple):
    """How many values were up to each of ``WAIT_BOUNDS_NS``, the last number of those beyond them, and their sum."""

    counts: tuple[int, ...]
    sum_ns: int

    def plus(self, other: Counts) -> Counts:
        """Both together."""
        return Counts(
            tuple(one + another for one, another in zip(self.counts, other.counts, strict=True)),
            self.sum_ns + other.sum_ns,
        )


class RouteFigures(NamedTuple):
    """All requests of one route so far.

    :ivar times_ns: by phase, until the answer; their sum is the time of all requests together.
    :ivar statuses: how many answers were of each of ``CLASSES``.
    """

    route: str
    requests: int
    times_ns: tuple[int, ...]
    statuses: tuple[int, ...]


class PoolFigures(NamedTuple):
    """All connections of the pools of one name so far.

    :ivar waits: until a connection was had, by those who had one; ``uses``: until it was given back.
    :ivar creations: of those that were opened.
    """

    label: str
    waits: Counts
    uses: Counts
    creations: Counts


def route_label(scope: MutableMapping[str, Any]) -> str:
    """``GET /items/{id}``: nothing in it is of a client's choice, so there are as many as the app has routes."""
    method = scope["method"] if scope["method"] in METHODS else OTHER.upper()
    path = getattr(declared_route(scope), "path", None)
    if path is None:
        endpoint = scope.get("endpoint")
        path = getattr(endpoint, "__qualname__", NO_ROUTE)
    return f"{method} {path}"


class _Histogram:
    __slots__ = ("_counts", "_sum_ns")

    def __init__(self) -> None:
        self._counts = [0] * (len(WAIT_BOUNDS_NS) + 1)
        self._sum_ns = 0

    def add(self, value_ns: int) -> None:
        self._counts[bisect_left(WAIT_BOUNDS_NS, value_ns)] += 1
        self._sum_ns += value_ns

    def read(self) -> Counts:
        return Counts(tuple(self._counts), self._sum_ns)


class _Route:
    __slots__ = ("count", "known_by", "label", "statuses", "times_ns")

    def __init__(self, label: str) -> None:
        self.label = label
        self.known_by: list[object] = []
        self.count = 0
        self.times_ns = [0] * len(PHASES)
        self.statuses = [0] * len(CLASSES)


class _Pool:
    __slots__ = ("creations", "label", "uses", "waits")

    def __init__(self, label: str) -> None:
        self.label = label
        self.waits, self.uses, self.creations = _Histogram(), _Histogram(), _Histogram()

    def add(self, hold: LiveHold) -> None:
        self.uses.add(max(0, hold.ended_ns - hold.began_ns))
        if hold.waited_ns >= 0:
            self.waits.add(hold.waited_ns)

    def read(self) -> PoolFigures:
        return PoolFigures(self.label, self.waits.read(), self.uses.read(), self.creations.read())


class Sums:
    """Every method may be called from any thread.

    :param label_of: the name that a pool is shown by.
    """

    def __init__(self, label_of: Callable[[PoolTally], str]) -> None:
        self._label_of = label_of
        self.start_anew()

    def start_anew(self) -> None:
        """Also in a forked child, where a thread of the parent may hold the lock."""
        self._routes: dict[str, _Route] = {}
        self._routes_by_identity: dict[tuple[str, int], _Route] = {}
        self._pools: dict[str, _Pool] = {}
        self._pools_by_tally: dict[PoolTally, _Pool] = {}
        self._lock = threading.Lock()

    def add_request(self, request: LiveRequest, until_ns: int) -> None:
        """Add up a request that has ended, until its answer, and its holds that have."""
        scope, status = request.scope, request.status
        # To make the label costs more than all the rest, and a route is the same object every time.
        known_by = declared_route(scope) or scope.get("endpoint")
        with self._lock:
            route = self._routes_by_identity.get((scope["method"], id(known_by)))
            if route is None:
                route = self._route_of(scope, known_by)
            route.count += 1
            route.statuses[status // 100 if 100 <= status < 600 else 0] += 1
            request.charge(route.times_ns, until_ns)
            for hold in request.holds:
                if hold.ended_ns:
                    self._pool_of(hold.pool).add(hold)

    def add_hold(self, hold: LiveHold) -> None:
        """Add up a hold that no request has, or that has outlasted its request."""
        with self._lock:
            self._pool_of(hold.pool).add(hold)

    def add_creation(self, pool: PoolTally, took_ns: int) -> None:
        """Add up a connection that was opened."""
        with self._lock:
            self._pool_of(pool).creations.add(took_ns)

    def label(self, pool: PoolTally) -> str:
        """The name that a pool is known by here, also when it has gone."""
        with self._lock:
            return self._pool_of(pool).label

    def routes(self) -> list[RouteFigures]:
        """A sum for each route."""
        with self._lock:
            return [
                RouteFigures(one.label, one.count, tuple(one.times_ns), tuple(one.statuses))
                for one in self._routes.values()
            ]

    def pools(self) -> list[PoolFigures]:
        """A sum for each name of pools."""
        with self._lock:
            return [one.read() for one in self._pools.values()]

    def _route_of(self, scope: MutableMapping[str, Any], known_by: object) -> _Route:
        found = _get_bounded(self._routes, route_label(scope), _Route, MOST_ROUTES)
        if len(self._routes_by_identity) < MOST_ROUTES and scope["method"] in METHODS:
            self._routes_by_identity[scope["method"], id(known_by)] = found
            found.known_by.append(known_by)  # so that no other object gets its identity
        return found

    def _pool_of(self, pool: PoolTally) -> _Pool:
        found = self._pools_by_tally.get(pool)
        if found is None:
            found = _get_bounded(self._pools, self._label_of(pool), _Pool, MOST_POOLS)
            if len(self._pools_by_tally) >= MOST_POOLS:
                self._pools_by_tally.clear()
            self._pools_by_tally[pool] = found
        return found


T = TypeVar("T")


def _get_bounded(known: dict[str, T], label: str, make: Callable[[str], T], most: int) -> T:
    if label not in known and len(known) >= most:
        label = OTHER
    found = known.get(label)
    if found is None:
        found = known[label] = make(label)
    return found
