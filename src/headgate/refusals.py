"""What a gate says of itself: its statistics, its status line, and the four parts of a refusal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from headgate.errors import LeaseError, Overloaded
from headgate.queueing import Reason


@dataclass(frozen=True, slots=True)
class GateStatistics:
    """A snapshot of the gate; times in nanoseconds, counters since the start.

    Of the ``connections`` of the budget ``in_use`` run a statement or are pinned, ``warm`` are left with their
    holders between two statements, ``idle`` are open and nobody's.

    :ivar pending: how many wait.
    :ivar acquired: how many got a connection, at once or after having waited.
    :ivar waited: how many of those had waited.
    :ivar wait_time_ns: how long, all together.
    :ivar mean_use_ns: how long a lease uses its connection, as a mean of the latest.
    :ivar revoked: warm leases that somebody else got.
    :ivar waits: how many of those who got a connection had waited up to each bound of ``WAIT_BOUNDS_NS``; the last
        number counts those who had waited longer.
    :ivar shed: refused at once, by reason.
    :ivar dropped: refused after having waited, by reason.
    :ivar overloaded: only as many newcomers may wait as are served soon.
    """

    connections: int
    in_use: int
    warm: int
    idle: int
    pending: int
    oldest_wait_ns: int
    acquired: int
    waited: int
    wait_time_ns: int
    waits: tuple[int, ...]
    mean_use_ns: int
    revoked: int
    shed: dict[str, int]
    dropped: dict[str, int]
    overloaded: bool

    def __str__(self) -> str:
        overloaded = ", overloaded" if self.overloaded else ""
        return (
            f"in use {self.in_use} of {self.connections}, warm {self.warm}, idle {self.idle}, pending {self.pending}, "
            f"oldest wait {self.oldest_wait_ns / 1e6:.0f} ms{overloaded}"
        )


WAIT_BOUNDS_NS: Final = tuple(round(milliseconds * 1e6) for milliseconds in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000))
"""Upper bounds of the classes that waits are counted in, in nanoseconds."""


def refuse(
    reason: Reason,
    *,
    database: str,
    state: GateStatistics,
    holders: str,
    waited_ns: int,
    retry_after_s: int,
    nothing_executed: bool,
) -> Overloaded:
    """Return the error for somebody who gets no connection."""
    return Overloaded(
        f"database {database!r}: {_fact(reason, state, waited_ns)}.\n"
        f"State: {state}.\n"
        f"Held by: {holders or 'statements that are running now'}.\n"
        "Remedies: 1. end transactions sooner: commit before slow calls, so that the connection goes back. "
        "2. make the statements above faster. "
        "3. raise connections= if the server has room. "
        "4. raise max_wait= or max_pending= if callers can wait longer.",
        database=database,
        reason=reason,
        retry_after_s=retry_after_s,
        waited_ns=waited_ns,
        nothing_executed=nothing_executed,
    )


def _fact(reason: Reason, state: GateStatistics, waited_ns: int) -> str:
    waited = f"{waited_ns / 1e9:.2f} s"
    facts: dict[Reason, str] = {
        "full": f"{state.pending} callers already wait for a connection, more than can be served in time "
        "(max_wait, max_pending)",
        "overload": "it is overloaded: more is asked of it than it can do, and callers who waited longest are "
        "turned away for new ones",
        "deadline": f"no connection became free within {waited} (max_wait, or the request's own deadline)",
        "stalled": f"nobody has got a connection for {waited}: the server, or what holds the connections, stands still",
        "gone": "the client has gone, and nobody waits for the answer",
    }
    return facts[reason]


def refuse_to_block(*, database: str, state: GateStatistics, holders: str) -> LeaseError:
    """Return the error for a sync session that would stop an event loop."""
    return LeaseError(
        f"database {database!r}: a sync session would have to wait for a connection on a thread that runs "
        f"an event loop, and stop every other request there.\n"
        f"State: {state}.\n"
        f"Held by: {holders or 'statements that are running now'}.\n"
        "Remedies: 1. use the async session in `async def` code. "
        "2. make the endpoint a plain `def`, so that it runs in a worker thread. "
        "3. call the sync code through `await run_in_threadpool(...)`."
    )
