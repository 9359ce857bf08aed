"""The belt: PostgreSQL itself refuses to write where the proof has said that a statement only reads.

Connections start with ``default_transaction_read_only=on``, as a startup parameter, so that no pooler can leak it to
somebody else; the transactions we begin say READ WRITE.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Dialect

from headgate.drivers import driver_for

REFUSED_STATES = frozenset({"08P01", "0A000"})


def ask_for_guard(dialect: Any) -> None:
    """From now on this dialect's connections ask for the guard as they start."""
    driver = driver_for(dialect)
    if driver is not None and driver.family == "postgresql" and not event.contains(dialect, "do_connect", _add_option):
        event.listen(dialect, "do_connect", _add_option, insert=True)


def stop_asking_for_guard(dialect: Any) -> bool:
    """The other end forbids the parameter; False if it was not asked for."""
    if not event.contains(dialect, "do_connect", _add_option):
        return False
    event.remove(dialect, "do_connect", _add_option)
    return True


def _add_option(dialect: Dialect, record: Any, arguments: list[Any], options: dict[str, Any]) -> None:
    driver = driver_for(dialect)
    if driver is not None:
        driver.ask_for_guard(options)


def is_refused_parameter(error: BaseException) -> bool:
    """True if a connect failed because a pooler does not take parameters at the start of a session."""
    message = str(error)
    return (
        getattr(error, "sqlstate", None) in REFUSED_STATES
        or "startup parameter" in message
        or "command-line options" in message
    )
