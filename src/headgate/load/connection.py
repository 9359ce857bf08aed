"""One HTTP/1.1 connection: writes a request, reads its answer, tells its client how it went."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol, cast

from headgate.errors import LoadError

if TYPE_CHECKING:
    import httptools

    from headgate.load.target import Origin, Request

_FRAMING = (b"content-length", b"transfer-encoding")


class Exchange:
    """One request on its way: what is asked, and what is known of the answer so far.

    ``handed_ns`` is when the client got it, ``started_ns`` when the client first did something about it.
    """

    __slots__ = (
        "body",
        "bytes_in",
        "connection",
        "handed_ns",
        "index",
        "request",
        "retried",
        "started_ns",
        "status",
    )

    def __init__(self, index: int, request: Request, handed_ns: int) -> None:
        self.index = index
        self.request = request
        self.handed_ns = self.started_ns = handed_ns
        self.connection: Connection | None = None
        self.retried = False
        self.status = 0
        self.bytes_in = 0
        self.body: list[bytes] | None = None if request.accept is None else []


class Owner(Protocol):
    """Whom a connection tells what happened to it."""

    def on_opened(self, connection: Connection) -> None: ...

    def on_answered(self, connection: Connection, exchange: Exchange, *, keep: bool) -> None: ...

    def on_broken(self, connection: Connection, exchange: Exchange, error: str) -> None: ...

    def on_lost(self, connection: Connection, exchange: Exchange | None, error: str) -> None: ...


class HttpParsing:
    """The HTTP parser and its errors, found when first needed because httptools is an optional extra."""

    def __init__(self) -> None:
        try:
            import httptools
        except ImportError as error:
            raise LoadError("the load generator needs httptools; pip install 'headgate[lab]'") from error
        self.new_parser = httptools.HttpResponseParser
        self.errors = (httptools.HttpParserError, httptools.HttpParserUpgrade)


class Connection(asyncio.Protocol):
    """At most one exchange at a time; the parser calls the ``on_…`` methods without exchange arguments."""

    __slots__ = (
        "_complete",
        "_framed",
        "_keep",
        "_owner",
        "_parser",
        "_parsing",
        "_transport",
        "answering",
        "exchange",
        "opening",
        "origin",
        "reused",
    )

    def __init__(self, owner: Owner, origin: Origin, parsing: HttpParsing) -> None:
        self.origin = origin
        self.exchange: Exchange | None = None
        self.opening: asyncio.Task[None] | None = None
        self.reused = False
        self.answering = False
        self._owner = owner
        self._parsing = parsing
        self._parser: httptools.HttpResponseParser | None = None
        self._transport: asyncio.Transport | None = None
        self._complete = False
        self._framed = False
        self._keep = False

    @property
    def is_open(self) -> bool:
        return self._transport is not None

    @property
    def is_queued(self) -> bool:
        """Not even its opening has begun."""
        return self._transport is None and self.opening is None

    def start(self, exchange: Exchange) -> None:
        """Send a request on an open, idle connection."""
        assert self._transport is not None
        self.exchange = exchange
        exchange.connection = self
        self.answering = self._complete = self._framed = False
        self._transport.write(exchange.request.wire)

    def abort(self) -> None:
        """Close now; an exchange under way is forgotten, not reported."""
        self.exchange = None
        if self._transport is not None:
            self._transport.abort()
        elif self.opening is not None:
            self.opening.cancel()

    # Called by the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._parser = self._parsing.new_parser(self)
        self._owner.on_opened(self)

    def data_received(self, data: bytes) -> None:
        exchange, parser = self.exchange, self._parser
        if exchange is None or parser is None:
            self.abort()  # nobody asked, so whatever comes next could be taken for the wrong answer
            return
        self.answering = True
        try:
            parser.feed_data(data)
        except self._parsing.errors:
            self._keep = False
            if not self._complete:
                self.exchange = None
                self._owner.on_broken(self, exchange, "malformed")
        if self._complete:
            self._finish(exchange)

    def connection_lost(self, exc: Exception | None) -> None:
        exchange, self.exchange = self.exchange, None
        # The parser holds methods of this object: this breaks the cycle, as the collector may be paused.
        self._parser = self._transport = None
        if exchange is not None and exc is None and self._ends_here(exchange):
            self._owner.on_answered(self, exchange, keep=False)
            exchange = None
        self._owner.on_lost(self, exchange, self._loss(exc))

    # Called by the parser.

    def on_header(self, name: bytes, _value: bytes) -> None:
        if len(name) in (14, 17) and name.lower() in _FRAMING:
            self._framed = True

    def on_headers_complete(self) -> None:
        exchange, parser = self.exchange, self._parser
        assert exchange is not None
        assert parser is not None
        status = parser.get_status_code()
        if self._complete:
            self._keep = False  # a second answer to one request
        elif status < 200:
            self._framed = False  # an interim answer: the real one follows
        else:
            exchange.status = status
            self._keep = parser.should_keep_alive()
            self._complete = exchange.request.head_only

    def on_body(self, body: bytes) -> None:
        exchange = self.exchange
        assert exchange is not None
        if self._complete:
            self._keep = False
            return
        exchange.bytes_in += len(body)
        if exchange.body is not None:
            exchange.body.append(body)

    def on_message_complete(self) -> None:
        exchange = self.exchange
        assert exchange is not None
        self._complete = exchange.status > 0

    def _finish(self, exchange: Exchange) -> None:
        self.exchange = None
        self.reused = True
        if exchange.request.head_only and self._keep:
            # The parser may wait for a body that never comes, and cannot be told of HEAD.
            self._parser = self._parsing.new_parser(self)
        self._owner.on_answered(self, exchange, keep=self._keep)

    def _ends_here(self, exchange: Exchange) -> bool:
        """An answer with neither a length nor chunks ends where the connection does (RFC 9112, 6.3)."""
        return exchange.status > 0 and not self._framed

    def _loss(self, exc: Exception | None) -> str:
        if exc is not None:
            return "reset"
        return "truncated" if self.answering else "closed"
