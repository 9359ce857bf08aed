"""Streams: the driver's server-side cursors, which must not reach for a connection that is somebody else's by then."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from headgate.cursor_connection import CursorConnection

if TYPE_CHECKING:
    from headgate.lease import VirtualConnection

READING_METHODS = frozenset({"__iter__", "execute", "executemany", "fetchall", "fetchmany", "fetchone", "scroll"})

ENDED = (
    "this stream ended with its transaction, and its connection has gone back. "
    "Remedy: commit or close when it has been read to its end, or read all of its rows at once."
)


class VirtualStream:
    """A driver's server-side cursor, until the lease it streams from ends."""

    __slots__ = ("__weakref__", "_owner", "_real")
    _owner: VirtualConnection
    _real: Any

    def __init__(self, owner: VirtualConnection, real: Any) -> None:
        object.__setattr__(self, "_owner", owner)
        object.__setattr__(self, "_real", real)

    def execute(self, *args: Any, **kwargs: Any) -> Any:
        """DBAPI: run one statement."""
        result = self._real.execute(*args, **kwargs)
        return self if result is self._real else result

    def close(self) -> None:
        """DBAPI: done with the rows."""
        self._real.close()
        self._owner.cursor_closed(self)

    @property
    def connection(self) -> CursorConnection:
        """DBAPI: the connection this cursor was made on; SQLAlchemy's adapters have none."""
        return CursorConnection(self._owner, None) if self._owner.may_have("connection") else self._real.connection

    def end(self, dialect: Any) -> None:
        """Close the driver's cursor while the connection is still its own; whoever goes on gets the DBAPI's error."""
        real = self._real
        object.__setattr__(self, "_real", _EndedStream(real, dialect.loaded_dbapi.ProgrammingError))
        real.close()

    def __iter__(self) -> Any:
        return iter(self._real)

    def __enter__(self) -> VirtualStream:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._real, name, value)


class _EndedStream:
    """What is left of a stream: the rows that asyncpg's adapter had fetched ahead."""

    description = None
    rowcount = -1
    arraysize = 1

    def __init__(self, real: Any, error: type[Exception]) -> None:
        self._fetched: deque[Any] = deque(getattr(real, "_rowbuffer", ()))
        self._error = error

    def fetchone(self) -> Any:
        return self.fetchmany(1)[0]

    def fetchmany(self, size: int | None = None) -> list[Any]:
        wanted = self.arraysize if size is None else size
        if wanted > len(self._fetched):
            raise self._error(ENDED)
        return [self._fetched.popleft() for _ in range(wanted)]

    def close(self) -> None:
        pass

    def __iter__(self) -> Any:
        raise self._error(ENDED)

    def __getattr__(self, name: str) -> Any:
        if name in READING_METHODS:
            raise self._error(ENDED)
        raise AttributeError(name)
