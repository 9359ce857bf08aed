"""The documented differences, each with its sentence and the narrowest rule for it; all else is a defect."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sqlalchemy import Connection

from .grounds import ArmName, Sight
from .player import Moment, Player, backend, has_lost_isolation, is_reading
from .settings import ONE_SNAPSHOT
from .steps import Step, step

REFUSED = "str 'refused 55P03: could not obtain lock"
DONE = "str '-1 rows'"
"""What ``lock_outside`` tells."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One sentence of ``docs/runtime.md``, «What a program could notice»."""

    sentence: str


FAILED_READ = Difference("A failed read does not abort the session's transaction.")
CLOCK = Difference(
    "Two reads of one session may see two committed states, as READ COMMITTED allows anyway; "
    "`now()` moves between them."
)
DDL = Difference("DDL of somebody else may run between two reads.")
DIFFERENCES = (FAILED_READ, CLOCK, DDL)


class StockFailedError(Exception):
    """Stock SQLAlchemy went wrong where ours did not; there is nothing to compare with any more.

    The only case: after a COMMIT that was refused, by SQLite for a lock or by PostgreSQL as not serializable, stock's
    pool takes the connection back with whatever transaction is open on it, and whoever gets it next goes on in it.
    On PostgreSQL that is one a raw cursor has opened after the refusal.
    """


def expect_no_flaw_of_stock(stock: Player, sights: Mapping[ArmName, Sight]) -> None:
    """Raise where a difference is stock's fault.

    :raises StockFailedError: it has had a COMMIT refused before, and more transactions write on its side.
    """
    if stock.commit_was_refused and sights["stock"].writing > sights["leased"].writing:
        raise StockFailedError


def _may_lease(stock: Player, connection: Connection) -> bool:
    """False where ours has nothing to excuse: REPEATABLE READ and higher keep one connection, as stock does.

    An engine option is not the level of new DBAPI connections: one that has followed an invalidated one does without.
    """
    isolation = stock.setting.isolation
    if isolation.level not in ONE_SNAPSHOT:
        return True
    return isolation.source == "engine option" and has_lost_isolation(connection)


def failed_reads(stock: Player, leased: Player, sight: Sight) -> Iterator[Step]:
    """``FAILED_READ``: where only stock's transaction has failed, both roll back; nothing was written in it.

    Any other pair of transactions must fail alike: a stock one that failed beside one of ours that holds a
    connection is left as it is, and shows in the next step.
    """
    if not sight.aborted:
        return
    for number in (0, 1):
        pairs = zip(stock.connections_of(number), leased.connections_of(number), strict=True)
        if any(_only_stock_failed(one, two, sight) and _may_lease(stock, one) for one, two in pairs):
            yield step("rollback", session=number)
    for number, one in stock.open_connections().items():
        if _only_stock_failed(one, leased.connections[number], sight) and _may_lease(stock, one):
            yield step("core_rollback", connection=number)


def _only_stock_failed(stock: Connection, leased: Connection, sight: Sight) -> bool:
    return is_reading(leased) and backend(stock) in sight.aborted


def may_excuse(step: Step, stock: Player) -> bool:
    """Tell whether leases are allowed on a connection that decides a step's outcome."""
    return any(_may_lease(stock, connection) for connection in _deciding(step, stock))


def _deciding(step: Step, stock: Player) -> list[Connection]:
    """The connection that a session has read the clock on, else all that may hold a lock."""
    if step.name == "read_clock":
        return stock.connections_of(dict(step.arguments)["session"])[-1:]
    return [*stock.connections_of(0), *stock.connections_of(1), *stock.open_connections().values()]


def excuse(step: Step, stock: Moment, leased: Moment, is_anybody_reading: bool) -> Difference | None:
    """The difference that explains two outcomes of a step where leases are allowed; None if there is none."""
    outcomes = (stock.outcome, leased.outcome)
    if step.name == "read_clock" and outcomes == ("bool True", "bool False") and is_anybody_reading:
        return CLOCK
    # What ours has read before it was pinned is not locked any more, so that nobody needs to be reading now.
    if step.name == "lock_outside" and stock.outcome.startswith(REFUSED) and leased.outcome == DONE:
        return DDL
    return None
