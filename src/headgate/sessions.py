"""Session and AsyncSession: SQLAlchemy's own, plus what only makes sense with leased connections."""

from __future__ import annotations

from typing import Any

import sqlalchemy.ext.asyncio
import sqlalchemy.orm
from sqlalchemy import event
from sqlalchemy.util import greenlet_spawn

from headgate.lease import VirtualConnection


class Session(sqlalchemy.orm.Session):
    """SQLAlchemy's ``Session``."""

    _begun: tuple[Any, list[Any]] = (None, [])

    def pin(self) -> None:
        """Keep one connection, in one transaction, from here to the next commit, rollback or close."""
        raw = self.connection().connection
        if isinstance(raw, VirtualConnection):
            raw.pin()

    @property
    def holds_connection(self) -> bool:
        """True if a connection is kept for this session, so that closing it has something to send."""
        if not self.in_transaction():
            return False
        _, connections = self._begun
        return not all(isinstance(raw, VirtualConnection) and raw.holds_nothing for raw in connections)


class AsyncSession(sqlalchemy.ext.asyncio.AsyncSession):
    """SQLAlchemy's ``AsyncSession``."""

    sync_session_class: type[sqlalchemy.orm.Session] = Session

    async def pin(self) -> None:
        """Keep one connection, in one transaction, from here to the next commit, rollback or close."""
        await self.run_sync(Session.pin)  # type: ignore[arg-type]  # our sync_session_class

    async def __aexit__(self, type_: Any, value: Any, traceback: Any) -> None:
        session = self.sync_session
        if isinstance(session, Session) and not session.holds_connection:
            # Nothing is sent, so nothing can be cancelled half-way: SQLAlchemy's task would protect nothing.
            await greenlet_spawn(session.close)
        else:
            await super().__aexit__(type_, value, traceback)


@event.listens_for(Session, "after_begin")
def _note_connection(session: Session, transaction: Any, connection: sqlalchemy.Connection) -> None:
    if transaction.nested:
        return
    begun, connections = session._begun
    if begun is not transaction:
        session._begun = (transaction, [connection.connection])
    else:
        connections.append(connection.connection)
