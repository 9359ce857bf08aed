"""The belt: PostgreSQL itself refuses to write where the proof has said that a statement only reads.

Connections start with ``default_transaction_read_only=on``, as a startup parameter, so that no pooler can leak it to
somebody else; the transactions we begin say READ WRITE.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakSet

from sqlalchemy import event
from sqlalchemy.engine import Dialect

from headgate.drivers import driver_for

REFUSED_STATES = frozenset({"08P01", "0A000"})

ASKED = "headgate.asked_for_guard"
"""Key in a pool entry's ``info``: the connect that is going on has asked for the guard."""

_asking: WeakSet[Dialect] = WeakSet()


def ask_for_guard(dialect: Any) -> None:
    """From now on this dialect's connections ask for the guard as they start."""
    driver = driver_for(dialect)
    if driver is None or driver.family != "postgresql":
        return
    if getattr(dialect, "_on_connect_isolation_level", None) == "AUTOCOMMIT":
        return  # it writes outside of transactions
    _asking.add(dialect)
    if not event.contains(dialect, "do_connect", _change_options):
        event.listen(dialect, "do_connect", _change_options, insert=True)


def stop_asking_for_guard(dialect: Any) -> bool:
    """The other end forbids the parameter; False if it was not asked for."""
    if dialect not in _asking:
        return False
    _asking.discard(dialect)
    return True


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
