"""Every exception Headgate raises."""

from __future__ import annotations

from functools import partial

import sqlalchemy.exc


class HeadgateError(Exception):
    """Root of everything Headgate raises on its own account."""


class ConfigError(HeadgateError, ValueError):
    """An option has a value Headgate cannot work with; the message names option, value and remedy."""


class LoadError(HeadgateError):
    """The load generator cannot do what it was asked; the message is one line with a remedy."""


class HostingError(HeadgateError):
    """A service or server in a process of its own cannot be had; the message is one line with a remedy."""


class XrayError(HeadgateError):
    """The X-ray cannot run; the message is one line that names the value and the remedy."""


class LabError(HeadgateError):
    """The lab cannot run; the message is one line that names the value and the remedy."""


class LeaseError(HeadgateError, sqlalchemy.exc.InvalidRequestError, sqlalchemy.exc.DontWrapMixin):
    """A leased connection was asked for something that it cannot give, or not here."""


class Overloaded(HeadgateError, sqlalchemy.exc.TimeoutError, sqlalchemy.exc.DontWrapMixin):  # noqa: N818  # the field's word for it
    """No connection was granted: refused at once (shed) or after waiting (dropped).

    Also a ``sqlalchemy.exc.TimeoutError``, so code that already catches the pool's timeout keeps working.

    :ivar database: name of the database whose gate refused.
    :ivar reason: ``full`` (more wait than can be served in time), ``overload`` (a standing queue), ``deadline``
        (``max_wait``, or the request's own deadline, while it waited or while a statement ran), ``stalled`` (nobody
        gets a connection), ``gone`` (the client).
    :ivar retry_after_s: whole seconds after which a new attempt is sensible, at least 1.
    :ivar waited_ns: nanoseconds this caller waited before it was refused; 0 when shed.
    :ivar nothing_executed: the request has held no connection yet, so it is safe to send it again.
    """

    def __init__(
        self,
        message: str,
        *,
        database: str,
        reason: str,
        retry_after_s: int,
        waited_ns: int = 0,
        nothing_executed: bool = False,
    ) -> None:
        super().__init__(message)
        self.database = database
        self.reason = reason
        self.retry_after_s = retry_after_s
        self.waited_ns = waited_ns
        self.nothing_executed = nothing_executed

    def __reduce__(self) -> tuple[object, ...]:
        return partial(type(self), **{fact: getattr(self, fact) for fact in _FACTS}), self.args


_FACTS = ("database", "reason", "retry_after_s", "waited_ns", "nothing_executed")
