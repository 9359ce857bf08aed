"""The least HTTP client that tells a service's speed: each of its connections asks again as soon as it is answered."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import cast

LENGTH = b"content-length:"


class Caller(asyncio.Protocol):
    """One connection; ``next_request`` gives what to send, None when all is sent."""

    def __init__(
        self,
        next_request: Callable[[], bytes | None],
        on_rest: Callable[[], None],
        on_lost: Callable[[Exception | None], None],
    ) -> None:
        self._next_request = next_request
        self._on_rest = on_rest
        self._on_lost = on_lost
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def ask(self) -> None:
        request = self._next_request()
        if request is None:
            self._on_rest()
        else:
            self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        size = response_size(self._buffer)
        if size is not None and len(self._buffer) >= size:
            self._buffer = b""
            self.ask()

    def connection_lost(self, error: Exception | None) -> None:
        self._on_lost(error)


def response_size(buffer: bytes) -> int | None:
    """Bytes of the response that begins here, None while its head is incomplete.

    :raises RuntimeError: it is no 200, so there is nothing to measure.
    """
    head = buffer.find(b"\r\n\r\n")
    if head < 0:
        return None
    if not buffer.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(buffer.decode(errors="replace"))
    start = buffer.index(LENGTH) + len(LENGTH)
    return head + 4 + int(buffer[start : buffer.index(b"\r", start)])


class ClosedLoop:
    """So many connections to one service."""

    def __init__(self, port: int, path: Callable[[int], str]) -> None:
        self._port = port
        self._path = path
        self._callers: list[Caller] = []
        self._sent = self._end = self._resting = 0
        self._lost: list[Exception | None] = []

    async def open(self, connections: int) -> None:
        loop = asyncio.get_running_loop()
        self._rest = asyncio.Event()
        for _ in range(connections):
            _, caller = await loop.create_connection(self._new_caller, "127.0.0.1", self._port)
            self._callers.append(caller)

    def _new_caller(self) -> Caller:
        return Caller(self._next_request, self._on_rest, self._on_lost)

    def close(self) -> None:
        for caller in self._callers:
            caller._transport.abort()

    async def time_requests(self, count: int) -> int:
        """Nanoseconds that so many requests take altogether.

        :raises RuntimeError: one was not answered with 200.
        """
        self._end, self._resting = self._sent + count, 0
        self._rest.clear()
        started_ns = time.perf_counter_ns()
        for caller in self._callers:
            caller.ask()
        await self._rest.wait()
        if self._lost:
            raise RuntimeError(f"the service closed {len(self._lost)} connections") from self._lost[0]
        return time.perf_counter_ns() - started_ns

    def _next_request(self) -> bytes | None:
        if self._sent == self._end:
            return None
        self._sent += 1
        return f"GET {self._path(self._sent)} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()

    def _on_rest(self) -> None:
        self._resting += 1
        if self._resting == len(self._callers):
            self._rest.set()

    def _on_lost(self, error: Exception | None) -> None:
        self._lost.append(error)
        self._rest.set()
