"""What a lease asks of a driver: transaction status, the autocommit flip, buffering, isolation, the guard.

A driver works on what SQLAlchemy calls the DBAPI connection: the driver's own for the sync ones, SQLAlchemy's
adapter for the async ones. Its status is the truth about transactions; no flag of ours replaces it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from headgate.statements import Family

FINISHED_CURSOR_ATTRIBUTES = frozenset(
    {
        "closed",
        "format",
        "itersize",
        "messages",
        "nextset",
        "pgresult",
        "results",
        "row_factory",
        "rownumber",
        "scroll",
        "set_result",
        "statusmessage",
    }
)
"""What may be asked of a finished driver cursor without reaching its connection."""


class ReadOnlyDefault(NamedTuple):
    """What a server says about a new connection's ``default_transaction_read_only``.

    :ivar source: where its value comes from: ``client`` is a startup parameter, ``session`` a SET.
    :ivar resets_to_on: what RESET would make of it.
    :ivar is_standby: the server could not write anyway, until it is promoted.
    :ivar is_given: the role or the database has it on; hidden by a startup parameter.
    """

    is_on: bool
    source: str
    resets_to_on: bool
    is_standby: bool
    is_given: bool


class Facts(NamedTuple):
    """What a server says about a connection.

    :ivar can_lease: its effective isolation allows other connections between two statements.
    :ivar default: whether its transactions only read by default, and why; None if it could not be asked.
    :ivar enums: names of types in lower case that are enums whatever their schema.
    """

    can_lease: bool
    default: ReadOnlyDefault | None = None
    enums: tuple[str, ...] = ()


IdleWatch = Callable[[], object]
"""True if something has arrived on an idle connection that nobody has read."""


Cancel = Callable[[], object]
"""Asks the server to stop a statement and waits until it has been told; a server that runs none does nothing.

Called in a thread of its own, never the statement's or its event loop's.
"""


class Driver(Protocol):
    """One driver's answers to the questions a lease asks."""

    family: Family
    buffers: bool
    """True if a statement's rows are in memory when execute returns."""
    needs_finish: bool
    """True if a buffered cursor has to be detached from its connection."""

    def is_idle(self, dbapi: Any) -> bool:
        """True if no transaction is open and none has failed."""
        ...

    def is_dead(self, dbapi: Any) -> bool:
        """True if the driver knows that the connection has ended; no I/O."""
        ...

    def watch_idle(self, dbapi: Any) -> IdleWatch:
        """A question to be asked of an idle connection again and again: has it anything to say? No I/O."""
        ...

    def has_ended(self, dbapi: Any) -> bool:
        """True if an idle connection has provably ended: looks for a farewell that nobody has read yet."""
        ...

    def is_autocommit(self, dbapi: Any) -> bool:
        """True if the application has set the connection to autocommit itself."""
        ...

    def enter_autocommit(self, dbapi: Any) -> None:
        """Make the next statement run without a BEGIN; no I/O."""
        ...

    def leave_autocommit(self, dbapi: Any) -> None:
        """Undo ``enter_autocommit``; no I/O."""
        ...

    def learn(self, dbapi: Any) -> Facts:
        """What is true of a new connection as long as it lives; one round trip at most."""
        ...

    def ask_for_guard(self, options: dict[str, Any]) -> bool:
        """Change the arguments of a connect so that the server refuses writes outside of transactions we begin.

        False, and nothing is changed, where that would not be what the application asked for.
        """
        ...

    def drop_guard(self, options: dict[str, Any]) -> None:
        """Undo ``ask_for_guard``."""
        ...

    def raise_guard(self, dbapi: Any) -> bool:
        """If a new connection came up read-only, make its transactions read and write; False if it did not. No I/O."""
        ...

    def begin_read_write(self, dbapi: Any) -> None:
        """Make a guarded connection's transactions read and write, unless the application says READ ONLY. No I/O."""
        ...

    def begin_as_given(self, dbapi: Any) -> None:
        """Undo ``begin_read_write``: transactions are what the session's default says. No I/O."""
        ...

    def set_guard(self, dbapi: Any, *, on: bool) -> None:
        """Make an idle connection that was started guarded refuse or allow writes by default; one round trip."""
        ...

    def reads_by_default(self, dbapi: Any) -> bool:
        """True if the server has reported that the session's transactions only read by default; no I/O."""
        ...

    def has_set_default(self, dbapi: Any) -> bool:
        """True if a SET decides that in this session, and not what it was started with; one round trip."""
        ...

    def is_read_only_violation(self, error: Exception) -> bool:
        """True if the server refused a statement because it would have written."""
        ...

    def finish(self, cursor: Any) -> None:
        """Detach a buffered cursor from its connection, so that closing it later does not touch it."""
        ...

    def abort(self, dbapi: Any) -> int | None:
        """End an idle connection at once, from any thread, with or without an event loop.

        Returns a descriptor that becomes readable when the server has let go of it, to be closed by the caller;
        None if there is no server.
        """
        ...

    def has_lost_transaction(self, dbapi: Any) -> bool:
        """True if the driver goes on as in a transaction that a statement of the application has ended."""
        ...

    def was_never_sent(self, error: Exception) -> bool:
        """True if the statement provably did not reach the server, because the connection was ending."""
        ...

    def watch_end(self, dbapi: Any) -> int | None:
        """A descriptor that becomes readable when the server has let go of a connection; closed by the caller."""
        ...

    def is_stale_plan(self, error: Exception) -> bool:
        """True if the server refused a cached plan before running it; the next attempt plans anew."""
        ...

    def forget_plan(self, dbapi: Any, cursor: Any) -> None:
        """Make the next execute of this cursor plan anew."""
        ...

    def canceller(self, dbapi: Any) -> Cancel:
        """What asks the server to stop what a new connection will run, also when that has been closed; no I/O."""
        ...

    def was_cancelled(self, error: Exception) -> bool:
        """True if the statement failed because somebody asked for that."""
        ...

    def cut(self, dbapi: Any) -> bool:
        """End a connection under whoever waits for its answer, because the server cannot be reached; no I/O.

        False if there is no server.
        """
        ...
