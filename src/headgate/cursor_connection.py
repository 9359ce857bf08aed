"""What a cursor calls its connection: the virtual one, except that ``info`` is the driver's.

``connection.info`` is SQLAlchemy's dictionary, ``cursor.connection.info`` tells of the server. Instrumentation asks it
for each statement, so what is the same for every connection of a pool is answered without keeping one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headgate.lease import VirtualConnection
    from headgate.lent import Lease

SAME_FOR_ALL = frozenset(
    {
        "dbname",
        "dsn",
        "full_protocol_version",
        "get_parameters",
        "host",
        "hostaddr",
        "options",
        "password",
        "port",
        "server_version",
        "user",
        "vendor",
    }
)
"""What psycopg tells of each connection of one pool alike."""

OF_ITS_LIFE = SAME_FOR_ALL | {"backend_pid"}
"""What stays true of a connection whoever has it."""


class CursorConnection:
    """The virtual connection of one cursor; all but ``info`` is done to that."""

    __slots__ = ("_owner", "_ran_on")
    _owner: VirtualConnection
    _ran_on: Lease | None

    def __init__(self, owner: VirtualConnection, ran_on: Lease | None) -> None:
        object.__setattr__(self, "_owner", owner)
        object.__setattr__(self, "_ran_on", ran_on)

    @property
    def info(self) -> Any:
        """The driver's account of its connection, where it has one."""
        if not self._owner.driver_has("info"):
            raise AttributeError("info")
        return _ServerInfo(self._owner, self._ran_on)

    def __getattr__(self, name: str) -> Any:
        if name == "info":
            raise AttributeError(name)
        return getattr(self._owner, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._owner, name, value)

    def __repr__(self) -> str:
        return f"<CursorConnection of {self._owner!r}>"


class _ServerInfo:
    """psycopg's ``ConnectionInfo`` of the connection that the statement has run on, or is about to run on."""

    __slots__ = ("_owner", "_ran_on")

    def __init__(self, owner: VirtualConnection, ran_on: Lease | None) -> None:
        self._owner = owner
        self._ran_on = ran_on

    def __getattr__(self, name: str) -> Any:
        return getattr(self._lease_for(name).dbapi.info, name)

    def _lease_for(self, name: str) -> Lease:
        if self._ran_on is not None and name in OF_ITS_LIFE:
            return self._ran_on
        return self._owner.connected() if name in SAME_FOR_ALL else self._owner.pin()
