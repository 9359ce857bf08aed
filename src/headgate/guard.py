"""The belt: PostgreSQL itself refuses to write where the proof has said that a statement only reads.

Connections start with ``default_transaction_read_only=on``, as a startup parameter, so that no pooler can leak it to
somebody else; the transactions we begin say READ WRITE.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from sqlalchemy import event
from sqlalchemy.engine import Dialect

from headgate.drivers import ReadOnlyDefault, driver_for
from headgate.executing import interruptible

if TYPE_CHECKING:
    from headgate.lent import Lease

REFUSED_STATES = frozenset({"08P01", "0A000"})

ASKED = "headgate.asked_for_guard"
"""Key in a pool entry's ``info``: the connect that is going on has asked for the guard."""

GUARD = "headgate.guard"
"""Key in a physical connection's ``info``: it came up with the server's guard."""

GUARD_TOUCHED = "headgate.guard_touched"
"""Key in a pool entry's ``info``: an escape has lowered the guard, or the application may have set the default."""

WITHOUT_LEASES = frozenset({"AUTOCOMMIT", "REPEATABLE READ", "SERIALIZABLE"})
"""Isolation levels of an engine whose reads never run outside of a transaction, so that there is nothing to guard."""

_asking: WeakSet[Dialect] = WeakSet()


def ask_for_guard(dialect: Any) -> None:
    """From now on this dialect's connections ask for the guard as they start."""
    driver = driver_for(dialect)
    if driver is None or driver.family != "postgresql":
        return
    if getattr(dialect, "_on_connect_isolation_level", None) in WITHOUT_LEASES:
        return
    _asking.add(dialect)
    if not event.contains(dialect, "do_connect", _change_options):
        event.listen(dialect, "do_connect", _change_options, insert=True)


def stop_asking_for_guard(dialect: Any) -> None:
    """From now on this dialect's connections start as they would without us."""
    _asking.discard(dialect)


def _change_options(dialect: Dialect, record: Any, arguments: list[Any], options: dict[str, Any]) -> None:
    driver = driver_for(dialect)
    if driver is None:
        return
    if dialect in _asking:
        has_asked = driver.ask_for_guard(options)
        if record is not None:
            record.info[ASKED] = has_asked
    else:
        driver.drop_guard(options)  # SQLAlchemy 2.0 has kept what was added before


def is_refused_parameter(error: BaseException) -> bool:
    """True if a connect failed because a pooler does not take parameters at the start of a session."""
    message = str(error)
    return (
        getattr(error, "sqlstate", None) in REFUSED_STATES
        or "startup parameter" in message
        or "command-line options" in message
    )


# a new connection


class Verdict(Enum):
    """What to make of a connection that has just come up."""

    ABSENT = "no guard"
    UP = "guarded"
    RAISE = "to be guarded as soon as what a connect listener has set is undone"
    LOWER = "the parameter has come through, but is no guard here"
    AS_GIVEN = "the application wants its transactions to only read"
    WITHOUT = "to be closed, and made anew without asking"


def judge_default(found: ReadOnlyDefault | None, *, has_asked: bool, is_up: bool, flips: bool) -> Verdict:
    """What a connection's ``default_transaction_read_only`` makes of the guard it has asked for, and seemed to get.

    :param flips: its driver begins transactions by itself; otherwise it writes outside of them.
    """
    if not has_asked:
        return Verdict.ABSENT
    if found is None or not flips:
        return Verdict.WITHOUT
    if found.source == "session":
        return _judge_set_default(found, is_up=is_up)
    if found.source != "client":
        return Verdict.ABSENT  # a pooler has ignored the parameter
    if found.is_given:
        return Verdict.AS_GIVEN
    if is_up:
        return Verdict.UP
    return Verdict.LOWER if found.is_standby else Verdict.WITHOUT


def _judge_set_default(found: ReadOnlyDefault, *, is_up: bool) -> Verdict:
    if not found.is_on:  # a connect listener allows what is allowed anyway
        return Verdict.RAISE if found.resets_to_on and is_up else Verdict.ABSENT
    # What a listener has set comes on top of the parameter; a pooler has made a SET of it.
    return Verdict.AS_GIVEN if found.resets_to_on else Verdict.WITHOUT


# a connection that is lent


def may_touch_default(statement: Any, args: Iterable[Any]) -> bool:
    """Whether a statement could change ``default_transaction_read_only``; the server knows whether it did."""
    if type(statement) is not str:
        return True  # composed by the driver
    text = statement.lower()
    if not any(word in text for word in _TOUCHING_WORDS):
        return False
    return bool(_TOUCHING.search(text)) or (("set_config" in text or "pg_settings" in text) and _name_default(args))


_DEFAULT = "default_transaction_read_only"
_TOUCHING_WORDS = (_DEFAULT, "characteristics", "reset", "discard", "set_config", "pg_settings")
_TOUCHING = re.compile(rf"{_DEFAULT}|\b(?:characteristics|reset|discard)\b")


def _name_default(values: Iterable[Any]) -> bool:
    return any(map(_names_default, values))


def _names_default(value: Any) -> bool:
    if isinstance(value, str):
        return value.lower() == _DEFAULT
    if isinstance(value, dict):
        return _name_default(value.values())
    return isinstance(value, list | tuple) and _name_default(value)


def mind_guard(lease: Lease, statement: Any, args: Any, *, is_escaped: bool) -> None:
    """Before a statement that may be anything: lower the guard where it would refuse what stock does, or doubt it."""
    driver = lease.lender.driver
    if lease.guarded and driver.has_lost_transaction(lease.dbapi):
        # After a COMMIT or ROLLBACK as text, asyncpg's adapter sends no BEGIN any more, and stock would go on
        # writing.
        lower_guard(lease)
    elif is_escaped and driver.is_idle(lease.dbapi):
        tend_guard(lease, is_escaped=True)  # an escapee's own ROLLBACK may have undone that it was lowered
    if lease.standing.has_guard and not lease.asks_default and may_touch_default(statement, args):
        doubt_guard(lease)


def tend_guard_afterwards(lease: Lease, *, is_escaped: bool) -> None:
    """As ``tend_guard``, when its holder's transaction has ended."""
    # A statement or a commit has succeeded and must be told so; what is left to ask is asked next time.
    with suppress(Exception):
        interruptible(lease, partial(tend_guard, lease, is_escaped=is_escaped))


def tend_guard(lease: Lease, *, is_escaped: bool) -> None:
    """Find out whether the application has set the default itself, and lower the guard for an escape."""
    driver, dbapi = lease.lender.driver, lease.dbapi
    if not lease.standing.has_guard or driver.is_dead(dbapi):
        return
    is_idle = driver.is_idle(dbapi)
    if is_idle and (lease.asks_default or _has_come_back(lease)):
        settle_guard(lease)
    # Whoever has the connection itself may write outside of the transactions that we begin.
    if lease.guarded and is_escaped:
        (lower_guard if is_idle else lower_guard_in_transaction)(lease)


def _has_come_back(lease: Lease) -> bool:
    """Whether the guard had been lowered, and is up: by an escapee's RESET, or as the application's own wish."""
    return lease.standing.guarded and not lease.guarded and lease.lender.driver.reads_by_default(lease.dbapi)


def doubt_guard(lease: Lease) -> None:
    """A statement that may touch the default is about to run; what came of it is asked when it counts."""
    lease.info[GUARD_TOUCHED] = lease.asks_default = True


def settle_guard(lease: Lease) -> None:
    """Ask an idle connection whose the default is by now: ours, or the application's own."""
    driver, dbapi = lease.lender.driver, lease.dbapi
    is_own, reads = driver.has_set_default(dbapi), driver.reads_by_default(dbapi)
    lease.asks_default = False
    if is_own and not reads:
        lease.guarded = False  # until it is lent anew
        lease.info[GUARD_TOUCHED] = True
        return
    _settle(lease, is_own=is_own)


def raise_guard_again(lease: Lease) -> None:
    """The connection is lent anew, and its last holder has touched the default, or may have."""
    driver = lease.lender.driver
    if driver.reads_by_default(lease.dbapi):
        settle_guard(lease)
        return
    driver.set_guard(lease.dbapi, on=True)
    _settle(lease, is_own=False)


def _settle(lease: Lease, *, is_own: bool) -> None:
    driver = lease.lender.driver
    if is_own:
        driver.begin_as_given(lease.dbapi)
    else:
        driver.begin_read_write(lease.dbapi)
    lease.settle(guarded=not is_own)
    lease.info.pop(GUARD_TOUCHED, None)


def lower_guard(lease: Lease) -> None:
    """Let an idle connection write outside of transactions, until it is lent anew."""
    lease.info[GUARD_TOUCHED] = True
    lease.lender.driver.set_guard(lease.dbapi, on=False)
    lease.guarded = False


def lower_guard_in_transaction(lease: Lease) -> None:
    """The same from within an open transaction: it counts when that is committed."""
    lease.info[GUARD_TOUCHED] = True
    if lease.asks_default or not lease.lender.driver.reads_by_default(lease.dbapi):
        return  # the application may have set it in this transaction, and that must not be overwritten
    with suppress(Exception):  # a transaction that has failed takes nothing any more, and is rolled back anyway
        cursor = lease.dbapi.cursor()
        cursor.execute(f"SET {_DEFAULT} = off")
        cursor.close()
