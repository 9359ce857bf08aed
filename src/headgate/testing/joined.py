"""What a ``rolled_back`` block puts in the place of an engine's pool: every session joins the shared connection."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal, TypeVar

from sqlalchemy.pool import ConnectionPoolEntry, Pool, PoolProxiedConnection
from sqlalchemy.util.concurrency import in_greenlet

from headgate.errors import LeaseError
from headgate.testing import errors
from headgate.testing.shared_connection import SharedConnection
from headgate.testing.turns import Work

ResultT = TypeVar("ResultT")
TransactionWord = Literal["begin", "commit", "rollback"]

NOTHING = "SELECT 1 WHERE 1 = 0"

SETTINGS = frozenset({"autocommit", "deferrable", "isolation_level", "read_only", "readonly"})
"""What SQLAlchemy sets on a connection for an isolation level; it would end the block's transaction."""

AUTOCOMMIT_LEVELS: dict[bool, tuple[object, ...]] = {True: (None,), False: ("autocommit", 0)}
"""What SQLAlchemy sets for AUTOCOMMIT as isolation level of a driver's connection, in SQLite and elsewhere."""

WORKING_METHODS = frozenset({"callproc", "copy", "copy_expert", "copy_from", "copy_to", "stream"})
"""Other methods of the drivers' cursors that run something."""

_TWO_PHASE_TEXT = re.compile(r"\s*prepare\s+transaction\b", re.IGNORECASE)
_SAVEPOINT_TEXT = re.compile(r"\s*(?:savepoint|release|rollback)\b", re.IGNORECASE)
_TRANSACTION_TEXT = re.compile(
    r"\s*(?:(?P<begin>begin|(?:start|set)\s+transaction)|(?P<commit>commit|end)|(?P<rollback>rollback|abort))\b"
    r"(?!\s+prepared\b)(?!\s+(?:(?:work|transaction)\s+)?to\b)",
    re.IGNORECASE,
)


def transaction_word(statement: object) -> TransactionWord | None:
    """What a statement asks of the transaction itself, None if nothing.

    An app may say BEGIN, COMMIT or ROLLBACK in plain text, as SQLAlchemy's recipe for SQLite does; ``SET TRANSACTION``
    is as good as BEGIN, and as little possible in a transaction that has begun.
    """
    match = _TRANSACTION_TEXT.match(statement) if isinstance(statement, str) else None
    if match is None:
        return None
    return "begin" if match["begin"] else "commit" if match["commit"] else "rollback"


class JoinedConnection(PoolProxiedConnection):
    """What one session, or one Core connection, gets: the shared connection as if it were its own."""

    __slots__ = ("__weakref__", "_has_begun", "_info", "_is_closed", "_settings", "_shared", "_work")

    def __init__(self, shared: SharedConnection) -> None:
        self._shared = shared
        self._work = Work()
        self._settings: dict[str, Any] = {}
        self._info: dict[Any, Any] = {}
        self._is_closed = False
        self._has_begun = False  # by a BEGIN in plain text, which outweighs autocommit

    # statements

    def cursor(self, *args: Any, **kwargs: Any) -> Any:
        """A cursor whose statements stand behind this session's savepoint."""
        self._shared.require_open()
        if not args and not kwargs:
            return JoinedCursor(self, self._shared.dbapi.cursor())
        # A server-side cursor fetches from the transaction it began in, so that must stay.
        return JoinedCursor(self, self.begin(partial(self._shared.dbapi.cursor, *args, **kwargs)))

    def run(self, real: Any, method: str, statement: Any, args: Any, kwargs: Any) -> Any:
        """Run a statement of one of this connection's cursors.

        :raises LeaseError: it is the first phase of a two-phase commit.
        """
        if isinstance(statement, str) and _TWO_PHASE_TEXT.match(statement):
            raise errors.two_phase(self._shared.database)
        word = transaction_word(statement)
        if word is not None:
            statement = self._take_word(word)
        call = partial(getattr(real, method), statement, *args, **kwargs)
        is_read = method == "execute" and self._shared.is_read(statement)
        if is_read and not self._work.is_open:
            return self._shared.read(self._work, call)
        changes = not is_read and not (isinstance(statement, str) and _SAVEPOINT_TEXT.match(statement))
        with self._committing_by_itself():
            return self._shared.write(self._work, call, changes=changes)

    def _take_word(self, word: TransactionWord) -> str:
        """Begin, commit or roll back as a text says; returns what to send instead."""
        self._has_begun = word == "begin"
        if word != "begin":
            getattr(self, word)()
        return NOTHING

    @contextmanager
    def _committing_by_itself(self) -> Iterator[None]:
        """Each statement is a transaction if the session, or its engine, is in autocommit."""
        is_autocommit = self._is_autocommit() and not self._has_begun
        try:
            yield
        except Exception:
            if is_autocommit:
                self.rollback()
            raise
        if is_autocommit:
            self.commit()

    def begin(self, call: Callable[[], ResultT]) -> ResultT:
        """Do something of which no text tells what it does: as a write."""
        return self._shared.write(self._work, call)

    # the transaction

    def commit(self) -> None:
        """Release the savepoint, if something was written."""
        self._shared.commit(self._work)

    def rollback(self) -> None:
        """Go back to the savepoint, if something was written."""
        self._shared.roll_back(self._work)

    def close(self) -> None:
        """Roll back and end the checkout; the shared connection stays."""
        if not self._is_closed:
            self._is_closed = True
            self._shared.roll_back(self._work)

    def _close_special(self, transaction_reset: bool = False) -> None:
        self.close()

    def invalidate(self, e: BaseException | None = None, soft: bool = False) -> None:
        """End the checkout; whoever uses the shared connection next undoes what this one wrote."""
        if not soft:
            self._is_closed = self._work.is_abandoned = True

    def detach(self) -> None:
        """Nothing: the shared connection cannot leave."""

    # what SQLAlchemy asks

    @property
    def is_valid(self) -> bool:
        """False once closed."""
        return not self._is_closed

    @property
    def closed(self) -> bool:
        """True once closed, or if the shared connection has ended."""
        return self._is_closed or bool(getattr(self._shared.dbapi, "closed", False))

    @property
    def info(self) -> dict[Any, Any]:
        """A dictionary of this checkout."""
        return self._info

    @property
    def is_detached(self) -> bool:
        """Always False."""
        return False

    @property
    def dbapi_connection(self) -> Any:  # type: ignore[override]
        """This object, which keeps commits inside; None once closed."""
        return None if self._is_closed else self

    @property
    def driver_connection(self) -> Any:  # type: ignore[override]
        """The driver's own connection; what is committed on it is not undone."""
        self._shared.require_open()
        if not self._shared.is_async or in_greenlet():
            self.begin(lambda: None)
        return self._shared.raw.driver_connection

    @property
    def record_info(self) -> Any:
        """The dictionary of the shared connection."""
        return self._shared.raw.record_info

    @property
    def _connection_record(self) -> _NoRecord:
        return _NoRecord()

    # settings of the transaction: kept here, because the block's own transaction has begun

    def _is_autocommit(self) -> bool:
        autocommit = self._settings.get("autocommit")
        if autocommit is None and "isolation_level" in self._settings:
            autocommit = self._settings["isolation_level"] in AUTOCOMMIT_LEVELS[self._shared.dialect.name == "sqlite"]
        return self._shared.is_autocommit if autocommit is None else bool(autocommit)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in SETTINGS:
            self._settings[name] = value
        elif name in JoinedConnection.__slots__:
            object.__setattr__(self, name, value)
        else:
            setattr(self._shared.dbapi, name, value)

    def __getattr__(self, name: str) -> Any:
        if name in self._settings:
            return self._settings[name]
        if name.removeprefix("set_") in SETTINGS:
            return partial(self._settings.__setitem__, name.removeprefix("set_"))
        if name.startswith("tpc_"):
            raise errors.two_phase(self._shared.database)
        return getattr(self._shared.dbapi, name)

    def __repr__(self) -> str:
        return f"<JoinedConnection {self._shared.database!r}{' closed' if self._is_closed else ''}>"


class _NoRecord:
    """Where SQLAlchemy notes what to do when a pooled connection comes back: this one never does."""

    def __init__(self) -> None:
        self.finalize_callback: deque[Any] = deque()


class JoinedCursor:
    """A driver's cursor that executes through its joined connection."""

    __slots__ = ("__weakref__", "_owner", "_real")
    _owner: JoinedConnection
    _real: Any

    def __init__(self, owner: JoinedConnection, real: Any) -> None:
        object.__setattr__(self, "_owner", owner)
        object.__setattr__(self, "_real", real)

    def execute(self, statement: Any, *args: Any, **kwargs: Any) -> Any:
        """DBAPI: run one statement."""
        result = self._owner.run(self._real, "execute", statement, args, kwargs)
        return self if result is self._real else result

    def executemany(self, statement: Any, *args: Any, **kwargs: Any) -> Any:
        """DBAPI: run one statement with many parameter sets."""
        return self._owner.run(self._real, "executemany", statement, args, kwargs)

    def executescript(self, script: str) -> Any:
        """sqlite3's own; it would commit first.

        :raises LeaseError: always.
        """
        raise LeaseError("executescript() commits, which cannot be undone: execute its statements one by one")

    @property
    def connection(self) -> JoinedConnection:
        """DBAPI: the connection this cursor was made on."""
        return self._owner

    def __iter__(self) -> Any:
        return iter(self._real)

    def __enter__(self) -> JoinedCursor:
        return self

    def __exit__(self, *exc: object) -> None:
        self._real.close()

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._real, name, value)

    def __getattr__(self, name: str) -> Any:
        if name in WORKING_METHODS:
            self._owner.begin(lambda: None)
        return getattr(self._real, name)


class JoinedPool(Pool):
    """Stands in an engine's place of its pool; ``dispose`` leaves the block's connection alone."""

    def __init__(self, origin: Pool, shared: SharedConnection) -> None:
        self.origin = origin
        self.shared = shared
        super().__init__(origin._creator, dialect=origin._dialect)
        # A listener that is added inside the block stays when the block has ended.
        self.__dict__["dispatch"] = origin.dispatch

    def connect(self) -> PoolProxiedConnection:
        """The shared connection, as one session's own."""
        self.shared.open()
        return JoinedConnection(self.shared)

    def dispose(self) -> None:
        """Nothing: an app that shuts down inside the block must not end it."""

    def recreate(self) -> JoinedPool:
        """Itself."""
        return self

    def status(self) -> str:
        """One line for people."""
        return f"JoinedPool over {self.origin.status()}"

    def _invalidate(self, connection: Any, exception: BaseException | None = None, _checkin: bool = True) -> None:
        connection.invalidate(exception)

    def _do_get(self) -> ConnectionPoolEntry:
        raise NotImplementedError

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        raise NotImplementedError

    def __getattr__(self, name: str) -> Any:
        return getattr(self.origin, name)


def pool_behind(pool: Pool) -> Pool:
    """The engine's own pool, which it gets back when the blocks around it have ended."""
    while isinstance(pool, JoinedPool):
        pool = pool.origin
    return pool
