"""The four parts of a refusal."""

from __future__ import annotations

from headgate.errors import LeaseError, Overloaded
from headgate.queueing import Reason
from headgate.tallies import GateStatistics


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
