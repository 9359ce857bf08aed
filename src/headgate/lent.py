"""What is lent: a physical connection with its permit, from one check-out to its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from headgate.checkouts import fairy_for
from headgate.queueing import Kind
from headgate.standing import STANDING, Standing

if TYPE_CHECKING:
    from headgate.lending import Lender


class Lease:
    """One physical connection, lent: a permit of the gate and a checked-out pool entry that belong together.

    :ivar guarded: as in ``Standing``, and no escape has lowered the guard.
    :ivar asks_default: a statement may have touched that default; the server is asked when its transaction has ended.
    :ivar began_ns: when its holder got it, went on with it, or left it warm.
    :ivar is_reserved: its permit is of the gate's reserve, which nothing is left warm of.
    :ivar is_suspect: interrupted in mid-statement; nobody may have the connection next.
    """

    __slots__ = (
        "asks_default",
        "began_ns",
        "dbapi",
        "fairy",
        "guarded",
        "is_reserved",
        "is_suspect",
        "kind",
        "lender",
        "record",
        "site",
        "standing",
        "used_ns",
    )
    standing: Standing
    guarded: bool
    record: Any
    fairy: Any

    def __init__(self, lender: Lender, record: Any, fairy: Any, began_ns: int) -> None:
        self.lender = lender
        self.kind: Kind = lender.kind
        self.record = record
        self.fairy = fairy
        self.dbapi: Any = record.dbapi_connection
        self.began_ns = began_ns
        self.used_ns = 0
        self.is_suspect = False
        self.asks_default = False
        self.is_reserved = False
        self.site = ""

    def passed_on(self, now_ns: int) -> Lease:
        """The same connection for its next holder; this lease is over."""
        new = Lease(self.lender, self.record, self.fairy, now_ns)
        new.standing, new.guarded = self.standing, self.guarded
        self.record = self.fairy = None
        return new

    def give_back(self) -> None:
        """Give connection and permit back; for a revoked lease whose new holder is gone."""
        self.lender.release(self)

    @property
    def info(self) -> dict[str, Any]:
        """What is remembered of the physical connection as long as it is in its pool."""
        info: dict[str, Any] = {} if self.is_detached else self.record.info
        return info

    def settle(self, *, guarded: bool) -> None:
        """Whether the connection is guarded from now on, whoever has it."""
        self.guarded = guarded
        self.info[STANDING] = self.standing = self.standing._replace(guarded=guarded)

    def with_fairy(self) -> Any:
        """SQLAlchemy's own handle of the checkout, for what only that can do."""
        if self.fairy is None:
            self.fairy = fairy_for(self.lender.pool, self.record)
        return self.fairy

    @property
    def is_over(self) -> bool:
        """True once the physical connection was given back or passed on."""
        return self.record is None and self.fairy is None

    @property
    def is_valid(self) -> bool:
        """False once the physical connection was closed under the lease."""
        if self.fairy is not None:
            return bool(self.fairy.is_valid)
        return self.record is not None and self.record.dbapi_connection is not None

    @property
    def is_detached(self) -> bool:
        """True if the physical connection was taken out of its pool."""
        # A fairy that somebody has checked in behind our back has no entry either, but no connection any more.
        return self.fairy is not None and bool(self.fairy.is_detached and self.fairy.is_valid)


class Surface(NamedTuple):
    """What a driver's objects are made of, known from the pool's first connection on.

    :ivar cursor_type: the class of its cursors.
    :ivar connection_names: the attributes of its connections.
    """

    cursor_type: type
    connection_names: frozenset[str]
