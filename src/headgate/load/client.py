"""Keeps connections, gives each request one, and answers for every request exactly once.

Timeouts count from the moment a request is handed to the client, as they do in aiohttp's total timeout and in
vegeta: with ``max_connections`` they include the wait for a connection. Latency counts from the intended
start, so that wait is in it too.
"""

from __future__ import annotations

import asyncio
import errno
import ssl
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from headgate.load.connection import Connection, Exchange, HttpParsing
from headgate.load.pacer import NS_PER_S
from headgate.load.target import Origin, Request

OnDone = Callable[[Exchange, int, str], None]
"""Called once for each request: the exchange, when it ended, and the error word (empty: answered)."""

OPENINGS_PER_TURN = 50
"""Connections opened in one turn of the event loop. With half of the system's ports in use, Linux takes a
millisecond and more to find a free one: opening all that are wanted would keep timeouts and answers waiting."""

_CONNECT_WORDS = {
    errno.ECONNREFUSED: "refused",
    errno.ECONNRESET: "reset",
    errno.EHOSTUNREACH: "unreachable",
    errno.ENETUNREACH: "unreachable",
    errno.ETIMEDOUT: "unreachable",
    errno.EMFILE: "descriptors",
    errno.ENFILE: "descriptors",
    errno.EADDRNOTAVAIL: "ports",
}


def connect_word(error: OSError) -> str:
    """One short word for why no connection came about."""
    if isinstance(error, ssl.SSLError):
        return "tls"
    return _CONNECT_WORDS.get(error.errno or 0, "connect")


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """:ivar addresses: the IP address to use for each origin, looked up before the run.

    :ivar max_connections: open connections over all origins; None: as many as it takes. At the limit,
        requests wait in the order they were handed over.
    """

    addresses: Mapping[Origin, str]
    timeout_ns: int
    max_connections: int | None
    clock: Callable[[], int]
    tls: ssl.SSLContext | None = field(default=None)


class Client:
    """Must be made and used inside a running event loop; ``close`` leaves nothing running."""

    def __init__(self, options: ClientOptions, on_done: OnDone) -> None:
        self._options = options
        self._clock = options.clock
        self._on_done = on_done
        self._parsing = HttpParsing()
        self._loop = asyncio.get_running_loop()
        self._idle: defaultdict[Origin, dict[Connection, None]] = defaultdict(dict)
        self._open: set[Connection] = set()  # what counts against the limit
        self._live: set[Connection] = set()  # and those still closing
        self._to_open: deque[Connection] = deque()
        self._all_gone = asyncio.Event()
        self._all_gone.set()
        self._waiting: deque[Exchange] = deque()
        # In the order they were handed over, which is that of their deadlines: one timer serves them all.
        self._in_flight: dict[Exchange, None] = {}
        self._sweeper: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        idle = sum(map(len, self._idle.values()))
        return (
            f"<Client open={len(self._open)} idle={idle} in_flight={len(self._in_flight)} waiting={len(self._waiting)}>"
        )

    def send(self, index: int, request: Request) -> None:
        """Hand over request number ``index``; ``on_done`` is called for it later, never within this call."""
        exchange = Exchange(index, request, self._clock())
        self._in_flight[exchange] = None
        if self._sweeper is None:
            self._schedule_sweep(self._options.timeout_ns)
        idle = self._idle[request.origin]
        if idle:
            idle.popitem()[0].start(exchange)
        elif self._has_room() or self._evict_idle():
            self._connect(exchange)
        else:
            self._waiting.append(exchange)

    async def close(self) -> None:
        """Forget what is in flight, close every connection and wait until all are gone."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        self._in_flight.clear()
        self._waiting.clear()
        for connection in list(self._live):
            connection.abort()
        while self._to_open:
            self._bury(self._to_open.popleft())
        await self._all_gone.wait()

    # Called by connections.

    def on_opened(self, connection: Connection) -> None:
        exchange = connection.exchange
        if exchange is None:
            connection.abort()  # given up while it was opening
        else:
            connection.start(exchange)

    def on_answered(self, connection: Connection, exchange: Exchange, *, keep: bool) -> None:
        self._finish(exchange, "")
        if keep:
            self._reuse(connection)
        else:
            self._drop(connection)

    def on_broken(self, connection: Connection, exchange: Exchange, error: str) -> None:
        self._finish(exchange, error)
        self._drop(connection)

    def on_lost(self, connection: Connection, exchange: Exchange | None, error: str) -> None:
        self._bury(connection)
        self._forget(connection)
        if exchange is not None and self._may_retry(connection, exchange):
            exchange.retried = True
            self._connect(exchange)
        elif exchange is not None:
            self._finish(exchange, error)
        self._serve_waiting()

    @staticmethod
    def _may_retry(connection: Connection, exchange: Exchange) -> bool:
        """A server may close a kept connection just as it is used again: that is nobody's failure."""
        unanswered = connection.reused and not connection.answering
        return unanswered and exchange.request.repeatable and not exchange.retried

    # Connections.

    def _has_room(self) -> bool:
        limit = self._options.max_connections
        return limit is None or len(self._open) < limit

    def _connect(self, exchange: Exchange) -> None:
        connection = Connection(self, exchange.request.origin, self._parsing)
        connection.exchange = exchange
        exchange.connection = connection
        self._open.add(connection)
        self._live.add(connection)
        self._all_gone.clear()
        self._to_open.append(connection)
        if len(self._to_open) == 1:
            self._loop.call_soon(self._open_some)

    def _open_some(self) -> None:
        for _ in range(min(OPENINGS_PER_TURN, len(self._to_open))):
            self._start_opening(self._to_open.popleft())
        if self._to_open:
            self._loop.call_soon(self._open_some)

    def _start_opening(self, connection: Connection) -> None:
        exchange = connection.exchange
        if exchange is None:  # it timed out before its turn came
            self._bury(connection)
            return
        connection.opening = self._loop.create_task(self._open_connection(connection, exchange))
        connection.opening.add_done_callback(lambda task: self._on_opening_ended(connection, task))

    async def _open_connection(self, connection: Connection, exchange: Exchange) -> None:
        if not exchange.retried:
            exchange.started_ns = self._clock()  # this task may have waited for its turn on the loop
        origin = connection.origin
        try:
            await self._loop.create_connection(
                lambda: connection,
                self._options.addresses[origin],
                origin.port,
                ssl=self._options.tls if origin.tls else None,
                server_hostname=origin.host if origin.tls else None,
            )
        except OSError as error:
            if connection.exchange is not None:
                connection.exchange = None
                self.on_broken(connection, exchange, connect_word(error))

    def _on_opening_ended(self, connection: Connection, opening: asyncio.Task[None]) -> None:
        # Not at the end of the task's own code: a task cancelled before its first step runs none of it.
        connection.opening = None
        # uvloop tells nobody that a connection is lost whose opening was cancelled in the turn it was made in.
        if opening.cancelled() or not connection.is_open:
            self._bury(connection)

    def _reuse(self, connection: Connection) -> None:
        exchange = self._next_waiting()
        if exchange is None:
            self._idle[connection.origin][connection] = None
        elif exchange.request.origin == connection.origin:
            connection.start(exchange)
        else:
            self._forget(connection)
            connection.abort()
            self._connect(exchange)

    def _drop(self, connection: Connection) -> None:
        self._forget(connection)
        connection.abort()
        self._serve_waiting()

    def _evict_idle(self) -> bool:
        """Close an idle connection to another origin, so that this one gets its turn."""
        for idle in self._idle.values():
            if idle:
                connection = next(iter(idle))
                self._forget(connection)
                connection.abort()
                return True
        return False

    def _forget(self, connection: Connection) -> None:
        self._open.discard(connection)
        self._idle[connection.origin].pop(connection, None)

    def _bury(self, connection: Connection) -> None:
        self._live.discard(connection)
        if not self._live:
            self._all_gone.set()

    # Waiting requests.

    def _next_waiting(self) -> Exchange | None:
        while self._waiting:
            exchange = self._waiting.popleft()
            if exchange in self._in_flight:  # else it timed out while it waited
                return exchange
        return None

    def _serve_waiting(self) -> None:
        while self._waiting and self._has_room():
            exchange = self._next_waiting()
            if exchange is not None:
                self._connect(exchange)

    # Endings.

    def _finish(self, exchange: Exchange, error: str) -> None:
        if exchange in self._in_flight:  # else the client is closing
            del self._in_flight[exchange]
            self._on_done(exchange, self._clock(), error)

    def _schedule_sweep(self, after_ns: int) -> None:
        # A millisecond more: loop timers may come early by half of one.
        self._sweeper = self._loop.call_later(after_ns / NS_PER_S + 0.001, self._sweep)

    def _sweep(self) -> None:
        """Time out the oldest requests, then sleep until the next one can be due."""
        now_ns = self._clock()
        remaining_ns = self._options.timeout_ns
        expired = []
        for exchange in self._in_flight:
            remaining_ns = exchange.handed_ns + self._options.timeout_ns - now_ns
            if remaining_ns > 0:
                break
            expired.append(exchange)
        else:
            remaining_ns = self._options.timeout_ns
        self._schedule_sweep(remaining_ns)
        for exchange in expired:
            self._time_out(exchange)

    def _time_out(self, exchange: Exchange) -> None:
        connection, exchange.connection = exchange.connection, None
        if connection is not None and connection.is_queued:
            exchange.started_ns = self._clock()  # it never left: all its time was the generator's lateness
        self._finish(exchange, "timeout")
        if connection is not None:
            self._drop(connection)
