"""Session and AsyncSession: SQLAlchemy's own, plus what only makes sense with leased connections."""

from __future__ import annotations

import sqlalchemy.ext.asyncio
import sqlalchemy.orm

from headgate.lease import VirtualConnection


class Session(sqlalchemy.orm.Session):
    """SQLAlchemy's ``Session``."""

    def pin(self) -> None:
        """Keep one connection, in one transaction, from here to the next commit, rollback or close."""
        raw = self.connection().connection
        if isinstance(raw, VirtualConnection):
            raw.pin()


class AsyncSession(sqlalchemy.ext.asyncio.AsyncSession):
    """SQLAlchemy's ``AsyncSession``."""

    sync_session_class: type[sqlalchemy.orm.Session] = Session

    async def pin(self) -> None:
        """Keep one connection, in one transaction, from here to the next commit, rollback or close."""
        await self.run_sync(Session.pin)  # type: ignore[arg-type]  # our sync_session_class
