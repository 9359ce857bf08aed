"""Sessions that see one picture of the database, whatever others commit meanwhile."""

from __future__ import annotations

from typing import TypeVar

from sqlalchemy import Connection, Engine, event
from sqlalchemy.orm import Session, SessionTransaction

from headgate.errors import ConfigError
from headgate.lease import VirtualConnection

SessionT = TypeVar("SessionT", bound=Session)

BEGINNINGS = {"postgresql": "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY", "sqlite": "BEGIN"}
"""Sent first in each transaction, by dialect; SQLite's driver would begin at the first write only."""


def see_snapshots(session: SessionT) -> SessionT:
    """Make each transaction of a new session see one picture, taken at its first statement.

    :raises ConfigError: its database cannot give one.
    """
    engine = session.get_bind()
    if engine.dialect.name not in BEGINNINGS or not hasattr(getattr(engine, "pool", None), "checkedout"):
        raise ConfigError(
            f"snapshot=True cannot work with {engine.dialect.name} here: use PostgreSQL, or SQLite in a file"
        )
    if "AUTOCOMMIT" in (getattr(engine.dialect, "_on_connect_isolation_level", None), _isolation_option(engine)):
        raise ConfigError("snapshot=True cannot work on an engine in AUTOCOMMIT: it has no transactions")
    event.listen(session, "after_begin", _begin)
    return session


def _isolation_option(engine: Engine | Connection) -> object:
    return engine.get_execution_options().get("isolation_level")


def _begin(session: Session, transaction: SessionTransaction, connection: Connection) -> None:
    if transaction.nested:
        return
    raw = connection.connection
    if isinstance(raw, VirtualConnection):
        raw.pin()  # ``on_pin`` need not report what is meant
    connection.exec_driver_sql(BEGINNINGS[connection.dialect.name])
