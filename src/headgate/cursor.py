"""The virtual cursor: what SQLAlchemy executes on; it reaches for a connection only when it executes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from headgate.cursor_connection import CursorConnection
from headgate.drivers import FINISHED_CURSOR_ATTRIBUTES
from headgate.errors import LeaseError
from headgate.executing import execute, fetch

if TYPE_CHECKING:
    from headgate.lease import VirtualConnection
    from headgate.lent import Lease


class VirtualCursor:
    """A DBAPI cursor that reaches for a connection only when it executes.

    What is set on it before that is kept in ``__dict__`` and handed to the driver's cursor.
    """

    __slots__ = ("__dict__", "__weakref__", "_is_finished", "_lease", "_owner", "_real")

    def __init__(self, owner: VirtualConnection) -> None:
        self._owner = owner
        self._lease: Lease | None = None
        self._real: Any = None
        self._is_finished = False  # closed on its connection, its rows in memory

    def on(self, lease: Lease) -> Any:
        """The driver's cursor on this lease's connection."""
        if self._lease is not lease or self._is_finished:
            self._is_finished = False
            self._real = lease.dbapi.cursor()
            self._lease = lease
        for name, value in self.__dict__.items():
            setattr(self._real, name, value)
        return self._real

    def finish(self) -> None:
        """Close the driver's cursor on its connection, which is about to be left; its rows stay."""
        self._is_finished = True
        self._owner.finish(self._real)

    def went_back(self, lease: Lease | None) -> bool:
        """True if this cursor's statement ran on a connection that is not, or no longer, the one of ``lease``."""
        return self._lease is not None and (self._lease is not lease or self._is_finished)

    def execute(self, statement: Any, *args: Any, **kwargs: Any) -> Any:
        """DBAPI: run one statement."""
        result = self._owner.run(self, "execute", statement, args, kwargs)
        return self if result is self._real else result

    def executemany(self, statement: Any, *args: Any, **kwargs: Any) -> Any:
        """DBAPI: run one statement with many parameter sets."""
        return self._owner.run(self, "executemany", statement, args, kwargs)

    def fetchone(self) -> Any:
        """DBAPI: the next row."""
        return self._executed().fetchone()

    def fetchmany(self, *args: Any, **kwargs: Any) -> Any:
        """DBAPI: the next rows."""
        return self._executed().fetchmany(*args, **kwargs)

    def fetchall(self) -> Any:
        """DBAPI: the remaining rows."""
        return self._real.fetchall() if self._real is not None else self._executed().fetchall()

    def close(self) -> None:
        """DBAPI: done with the rows."""
        real = self._real
        if real is None:
            return
        real.close()
        if not self._owner.buffers:
            self._owner.cursor_closed(self)

    async def _async_soft_close(self) -> None:
        # SQLAlchemy's async results call this; a finished cursor has been closed on its own connection already.
        if self._real is not None and not self.went_back(self._owner.held):
            close = getattr(self._real, "_async_soft_close", None)
            if close is not None:
                await close()

    @property
    def description(self) -> Any:
        """DBAPI: the columns of the result; None before execute."""
        return None if self._real is None else self._real.description

    @property
    def arraysize(self) -> int:
        """DBAPI: how many rows ``fetchmany`` gives by default."""
        return int(self.__dict__.get("arraysize", 1) if self._real is None else self._real.arraysize)

    @arraysize.setter
    def arraysize(self, value: int) -> None:
        self.__dict__["arraysize"] = value
        if self._real is not None:
            self._real.arraysize = value

    @property
    def rowcount(self) -> int:
        """DBAPI: rows found or changed; -1 before execute."""
        return -1 if self._real is None else self._real.rowcount

    @property
    def lastrowid(self) -> Any:
        """DBAPI: the key of the row inserted last, where the driver knows it."""
        return None if self._real is None else self._real.lastrowid

    @property
    def connection(self) -> CursorConnection:
        """DBAPI: the connection this cursor was made on; SQLAlchemy's adapters have none."""
        if not self._owner.may_have("connection"):
            raise AttributeError("connection")
        return CursorConnection(self._owner, self._lease)

    def _escape(self) -> Any:
        """The driver's cursor for somebody who wants more of it than the DBAPI's verbs.

        :raises LeaseError: its connection has been given back already.
        """
        if self.went_back(self._owner.held):
            raise LeaseError(
                "this cursor's statement was a read, and its connection has been given back.\n"
                "Remedy: call session.pin() or use connection.connection.dbapi_connection before the statement, "
                "so that the connection stays."
            )
        return self.on(self._owner.escape("the driver's cursor was reached for"))

    def _executed(self) -> Any:
        return self._escape() if self._real is None else self._real

    def __iter__(self) -> Any:
        return iter(self._executed())

    def __enter__(self) -> VirtualCursor:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __getattr__(self, name: str) -> Any:
        # Instrumentation asks for attributes that may be there or not; that must not cost a connection.
        if name.startswith("_") or not self._owner.may_have(name):
            raise AttributeError(name)
        if self._real is None or name not in FINISHED_CURSOR_ATTRIBUTES:
            return getattr(self._escape(), name)
        return getattr(self._real, name)


class UnbufferedCursor(VirtualCursor):
    """For a driver that works for the rows as they are fetched."""

    __slots__ = ()

    def fetchone(self) -> Any:
        """DBAPI: the next row."""
        return self._fetch(self._executed().fetchone)

    def fetchmany(self, *args: Any, **kwargs: Any) -> Any:
        """DBAPI: the next rows."""
        return self._fetch(self._executed().fetchmany, *args, **kwargs)

    def fetchall(self) -> Any:
        """DBAPI: the remaining rows."""
        return self._fetch(self._executed().fetchall)

    def _fetch(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return call(*args, **kwargs) if self._lease is None else fetch(self._lease, call, *args, **kwargs)


class ServerCursor:
    """A server-side cursor of the driver's own: the server works for the rows as they are fetched."""

    __slots__ = ("__weakref__", "_lease", "_real")

    def __init__(self, real: Any, lease: Lease) -> None:
        object.__setattr__(self, "_real", real)
        object.__setattr__(self, "_lease", lease)

    def execute(self, statement: Any, *args: Any, **kwargs: Any) -> Any:
        """DBAPI: run one statement."""
        result = execute(self._lease, self._real.execute, statement, args, kwargs)
        return self if result is self._real else result

    def fetchone(self) -> Any:
        """DBAPI: the next row."""
        return fetch(self._lease, self._real.fetchone)

    def fetchmany(self, *args: Any, **kwargs: Any) -> Any:
        """DBAPI: the next rows."""
        return fetch(self._lease, self._real.fetchmany, *args, **kwargs)

    def fetchall(self) -> Any:
        """DBAPI: the remaining rows."""
        return fetch(self._lease, self._real.fetchall)

    def __iter__(self) -> Any:
        return iter(self._real)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._real, name, value)
