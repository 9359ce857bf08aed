"""How many connections and threads a service needs, and whether its server has that many.

Little's law says how many are busy on average; some more keep the waits short, each worker for itself. Where all
workers together want more than the server has, a pooler between them needs only what the whole service needs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

from headgate.ceilings import Ceiling, binding_constraint, places
from headgate.errors import ConfigError

UTILISATION = 0.75
"""How busy connections and threads may be on average: above 70 to 80 %, waits grow like 1 ÷ (1 - utilisation)."""

LEAST_CONNECTIONS = 2
"""With one connection, a transaction that waits would stop every other request of its worker."""

ANYIO_THREADS = 40
"""anyio's default limit of worker threads a process, in which FastAPI runs ``def`` endpoints and dependencies."""


@dataclass(frozen=True, slots=True)
class Work:
    """What is asked of the service.

    :ivar rate: requests a second that use the database, over all workers.
    :ivar hold_s: mean seconds a lease keeps its connection: ``mean_use_ns`` of ``db.gate.statistics()``.
    :ivar leases: leases a request, on average.
    :ivar thread_s: mean seconds a ``def`` endpoint keeps its thread; None if all are ``async def``.
    """

    rate: float
    hold_s: float
    leases: float = 1.0
    thread_s: float | None = None

    def __post_init__(self) -> None:
        _require(self.rate > 0, "rate", self.rate, "give requests a second, more than 0")
        _require(self.hold_s > 0, "hold", self.hold_s, "give a time above 0, as db.gate.statistics() has it")
        _require(self.leases > 0, "leases", self.leases, "give leases a request, more than 0")
        if self.thread_s is not None:
            remedy = f"its leases alone keep a request for {self.request_s:g} s; give the handler's whole time"
            _require(self.thread_s >= self.request_s, "seconds in a thread", self.thread_s, remedy)

    @property
    def request_s(self) -> float:
        """Seconds of a connection that one request needs."""
        return self.leases * self.hold_s


@dataclass(frozen=True, slots=True)
class Server:
    """What the server has.

    :ivar max_connections: of ``postgresql.conf``.
    :ivar reserved: ``superuser_reserved_connections`` and ``reserved_connections`` together.
    :ivar others: what other clients use: other services, migrations, monitoring, a psql at night.
    :ivar limit: ``CONNECTION LIMIT`` of the service's role or database; None if there is none.
    """

    max_connections: int = 100
    reserved: int = 3
    others: int = 2
    limit: int | None = None

    def __post_init__(self) -> None:
        _require(self.max_connections >= 1, "max_connections", self.max_connections, "give at least 1")
        _require(self.reserved >= 0, "reserved", self.reserved, "give 0 or more")
        _require(self.others >= 0, "others", self.others, "give 0 or more")
        if self.limit is not None:
            _require(self.limit >= 1, "connection limit", self.limit, "let the role and the database connect")
        remedy = f"reserved ({self.reserved}) and others ({self.others}) leave no connection; raise max_connections"
        _require(self.room > 0, "max_connections", self.max_connections, remedy)

    @property
    def room(self) -> int:
        """Connections left for this service."""
        shared = self.max_connections - self.reserved - self.others
        return shared if self.limit is None else min(shared, self.limit)


class Fit(Enum):
    """How a service gets along with its server."""

    DIRECT = "direct"
    """Every worker may have its connections."""
    POOLED = "pooled"
    """The service as a whole has enough; its workers need a pooler between them and the server."""
    TIGHT = "tight"
    """The connections there are would be busier than they should be."""
    IMPOSSIBLE = "impossible"
    """The server cannot answer that many requests, however they queue."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to configure.

    :ivar workers: processes, over all machines.
    :ivar busy: connections busy on average, over all workers.
    :ivar connections: the budget of one worker.
    :ivar pool: server connections of a pooler; None if none is needed.
    :ivar busy_threads: threads busy on average in one worker.
    :ivar threads: what one worker's limit of threads must be; None if no endpoint needs one.
    :ivar ceiling: what binds once this is configured.
    """

    work: Work
    server: Server
    fit: Fit
    workers: int
    busy: float
    connections: int
    pool: int | None
    busy_threads: float
    threads: int | None
    ceiling: Ceiling

    @property
    def all_connections(self) -> int:
        """The budgets of all workers together."""
        return self.workers * self.connections

    @property
    def max_connections_wanted(self) -> int:
        """What ``max_connections`` must be for this work, through a pooler."""
        return count_needed(self.busy) + self.server.reserved + self.server.others

    @property
    def utilisation(self) -> float:
        """How busy the server's connections are; above 1 there are too few."""
        return self.busy / (self.pool or self.all_connections)

    @property
    def can_restart_rolling(self) -> bool:
        """Whether the old workers and the new ones may be connected at the same time."""
        return self.pool is not None or 2 * self.all_connections <= self.server.room


def make_plan(work: Work, server: Server, workers: int) -> Plan:
    """Size connections, pool and threads.

    :raises ConfigError: fewer than one worker.
    """
    _require(workers >= 1, "workers", workers, "give at least 1")
    busy, room = count_busy(work.rate, work.request_s), server.room
    each = count_needed(busy / workers, least=LEAST_CONNECTIONS)
    fit = _fit(busy, each * workers, room)
    if fit in (Fit.TIGHT, Fit.IMPOSSIBLE):
        # More than there are would only move the queue from the gate, which sees it, to the pooler.
        each = max(LEAST_CONNECTIONS, math.ceil(room / workers))
    pool = min(count_needed(busy), room) if each * workers > room else None
    answered = min(work.rate, room / work.request_s)  # threads do not help against a server that is too small
    busy_threads = count_busy(answered / workers, work.thread_s or 0.0)
    threads = None if work.thread_s is None else max(ANYIO_THREADS, count_needed(busy_threads), each)
    ceiling = _ceiling(work, pool or each * workers, threads and threads * workers)
    return Plan(work, server, fit, workers, busy, each, pool, busy_threads, threads, ceiling)


def count_busy(rate: float, hold_s: float) -> float:
    """How many places are taken on average if ``rate`` a second take one for ``hold_s`` each.

    Little's law, L = λ W: J. D. C. Little, Operations Research 9 (3), 1961.
    """
    return rate * hold_s


def count_needed(busy: float, *, least: int = 1) -> int:
    """How many places to have if ``busy`` are taken on average.

    The larger of two rules: at most ``UTILISATION`` of them busy, L ÷ 0.75, which binds for many; and room for chance,
    L + √L, which binds for few (square-root staffing: S. Halfin, W. Whitt, Operations Research 29 (3), 1981; with a
    factor of 1 some 22 % have to wait).
    """
    wanted = max(busy / UTILISATION, busy + math.sqrt(busy))
    return max(least, math.ceil(wanted - 1e-9))  # 0.1 + 0.2 is no reason for one more


def _fit(busy: float, all_connections: int, room: int) -> Fit:
    if busy >= room:
        return Fit.IMPOSSIBLE
    if all_connections <= room:
        return Fit.DIRECT
    return Fit.POOLED if count_needed(busy) <= room else Fit.TIGHT


def _ceiling(work: Work, connections: int, threads: int | None) -> Ceiling:
    ceilings = [places(connections, "connections", work.request_s)]
    if work.thread_s is not None and threads is not None:
        ceilings.append(places(threads, "threads", work.thread_s))
    return binding_constraint(ceilings)


def _require(holds: bool, name: str, value: float, remedy: str) -> None:
    if not holds:
        raise ConfigError(f"{name} {value:g} cannot work: {remedy}")
