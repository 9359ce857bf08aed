"""How the pools of this process are at this instant, Headgate's and SQLAlchemy's own alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy.pool import Pool, QueuePool

from headgate.gate import Gate
from headgate.tallies import GateStatistics
from headgate.xray.databases import Databases
from headgate.xray.live import LiveHold, PoolTally, pool_name
from headgate.xray.sql_hooks import LEASING


@dataclass(frozen=True, slots=True)
class PoolNow:
    """The pools of one name.

    :ivar limit: None where they set none.
    :ivar in_use: connections that run a statement or are kept for somebody; ``idle``: open, and nobody's.
    :ivar pending: how many wait; ``timeouts``: how many have waited in vain, since the start.
    :ivar gate: of leased pools what their gate says, else None.
    """

    label: str
    limit: int | None
    in_use: int
    idle: int
    pending: int
    timeouts: int
    gate: GateStatistics | None = None

    def plus(self, other: PoolNow) -> PoolNow:
        """Two pools of one name, taken together."""
        return PoolNow(
            self.label,
            None if self.limit is None or other.limit is None else self.limit + other.limit,
            self.in_use + other.in_use,
            self.idle + other.idle,
            self.pending + other.pending,
            self.timeouts + other.timeouts,
            _both(self.gate, other.gate),
        )


def label_of(tally: PoolTally, databases: Databases) -> str:
    """The name a pool is shown by: its gate's, the one given to it, or the database it leads to, without the user."""
    pool = tally.pool()
    if pool is None:
        return tally.name
    if isinstance(pool, LEASING):
        return pool.gate.name
    named = getattr(pool, "logging_name", None)
    return str(named) if named else databases.place_of(pool) or pool_name(pool)


def look_at_pools(
    gates: Iterable[Gate], tallies: Iterable[tuple[str, PoolTally]], holds: Iterable[LiveHold]
) -> list[PoolNow]:
    """Each name once: gates, and the pools that have none.

    :param gates: those that are known without a pool.
    :param tallies: every pool that was seen, with the name it is shown by.
    """
    known = {id(gate): gate for gate in gates}
    held = Counter(hold.pool for hold in holds)
    found: list[PoolNow] = []
    for label, tally in tallies:
        pool = tally.pool()
        if isinstance(pool, LEASING):
            known.setdefault(id(pool.gate), pool.gate)
        elif tally.kind not in _LEASING_KINDS:
            found.append(_look_at_pool(label, tally, pool, held[tally]))
    by_label: dict[str, PoolNow] = {}
    for one in (*map(look_at_gate, known.values()), *found):
        by_label[one.label] = by_label[one.label].plus(one) if one.label in by_label else one
    return list(by_label.values())


_LEASING_KINDS = tuple(kind.__name__ for kind in LEASING)


def look_at_gate(gate: Gate) -> PoolNow:
    """The pools behind a gate."""
    now = gate.statistics()
    idle = now.warm + now.idle
    return PoolNow(gate.name, now.connections, now.in_use, idle, now.pending, _in_vain(now), now)


def _in_vain(now: GateStatistics) -> int:
    """Whoever has hung up has not waited in vain."""
    return sum(count for reason, count in now.dropped.items() if reason != "gone")


def _look_at_pool(label: str, tally: PoolTally, pool: Pool | None, held: int) -> PoolNow:
    in_use, idle = held, 0
    if isinstance(pool, QueuePool):
        in_use, idle = pool.checkedout(), pool.checkedin()
    limit = None if pool is None else tally.limit
    return PoolNow(label, limit, in_use, idle, tally.pending, tally.timeouts)


def gates_of(pools: Iterable[PoolNow]) -> list[tuple[str, GateStatistics]]:
    """Of those that have one."""
    return [(one.label, one.gate) for one in pools if one.gate is not None]


def _both(one: GateStatistics | None, other: GateStatistics | None) -> GateStatistics | None:
    """Two gates of one name, taken together."""
    if one is None or other is None:
        return one or other
    return GateStatistics(
        connections=one.connections + other.connections,
        in_use=one.in_use + other.in_use,
        warm=one.warm + other.warm,
        idle=one.idle + other.idle,
        pending=one.pending + other.pending,
        oldest_wait_ns=max(one.oldest_wait_ns, other.oldest_wait_ns),
        acquired=one.acquired + other.acquired,
        waited=one.waited + other.waited,
        wait_time_ns=one.wait_time_ns + other.wait_time_ns,
        waits=tuple(map(sum, zip(one.waits, other.waits, strict=True))),
        mean_use_ns=max(one.mean_use_ns, other.mean_use_ns),
        revoked=one.revoked + other.revoked,
        shed=dict(Counter(one.shed) + Counter(other.shed)),
        dropped=dict(Counter(one.dropped) + Counter(other.dropped)),
        overloaded=one.overloaded or other.overloaded,
    )
