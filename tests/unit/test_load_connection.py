"""One connection, fed by hand: every way an answer can come or fail to come."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from headgate.load.connection import Connection, Exchange, HttpParsing
from headgate.load.target import Target, build_request


class FakeTransport:
    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.aborted = False

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def abort(self) -> None:
        self.aborted = True


class FakeOwner:
    """Notes what it is told, one line each."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def on_opened(self, connection: Connection) -> None:
        self.told.append("opened")

    def on_answered(self, connection: Connection, exchange: Exchange, *, keep: bool) -> None:
        self.told.append(f"answered {exchange.status} {exchange.bytes_in} {'keep' if keep else 'close'}")

    def on_broken(self, connection: Connection, exchange: Exchange, error: str) -> None:
        self.told.append(f"broken {error}")

    def on_lost(self, connection: Connection, exchange: Exchange | None, error: str) -> None:
        self.told.append("lost" if exchange is None else f"lost {error}")


class Bench:
    """A connection that has just sent a request."""

    def __init__(self, method: str = "GET") -> None:
        self.owner, self.transport = FakeOwner(), FakeTransport()
        request = build_request(Target("x", "http://h/", method=method, accept=lambda *_: True))
        self.connection = Connection(self.owner, request.origin, HttpParsing())
        self.connection.connection_made(cast("asyncio.Transport", self.transport))
        self.owner.told.clear()
        self.request = request
        self.send()

    def send(self) -> Exchange:
        self.exchange = Exchange(0, self.request, 0)
        self.connection.start(self.exchange)
        return self.exchange

    def feed(self, data: bytes, *, by_byte: bool = False) -> list[str]:
        for piece in [data[i : i + 1] for i in range(len(data))] if by_byte else [data]:
            self.connection.data_received(piece)
        return self.owner.told


LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"
ENDLESS = b"HTTP/1.1 200 OK\r\n\r\nhello"
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
CLOSE = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello"


@pytest.mark.parametrize("by_byte", [False, True], ids=["whole", "byte by byte"])
@pytest.mark.parametrize(
    ("data", "told"),
    [
        pytest.param(LENGTH, "answered 200 5 keep", id="content-length"),
        pytest.param(CHUNKED, "answered 200 5 keep", id="chunked"),
        pytest.param(CLOSE, "answered 200 5 close", id="connection close"),
        pytest.param(INTERIM + LENGTH, "answered 200 5 keep", id="interim answers"),
        pytest.param(b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\n1", "answered 200 1 close", id="HTTP/1.0"),
        pytest.param(b"HTTP/1.1 204 No Content\r\n\r\n", "answered 204 0 keep", id="no content"),
        pytest.param(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", "answered 304 0 keep", id="304"),
        pytest.param(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", "answered 503 0 keep", id="refused"),
    ],
)
def test_answers(data: bytes, told: str, by_byte: bool) -> None:
    assert Bench().feed(data, by_byte=by_byte) == [told]


def test_body_is_kept_when_asked() -> None:
    bench = Bench()
    bench.feed(CHUNKED)
    assert b"".join(bench.exchange.body or []) == b"hello"


def test_a_kept_connection_serves_again() -> None:
    bench = Bench()
    bench.feed(LENGTH)
    bench.send()
    assert bench.feed(CHUNKED) == ["answered 200 5 keep"] * 2
    assert bench.transport.written == [bench.request.wire] * 2
    assert bench.connection.reused


@pytest.mark.parametrize("length", [b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n"])
def test_head_has_no_body_whatever_its_headers_say(length: bytes) -> None:
    bench = Bench("HEAD")
    answer = b"HTTP/1.1 200 OK\r\n" + length + b"\r\n"
    assert bench.feed(answer) == ["answered 200 0 keep"]
    bench.send()
    assert bench.feed(answer) == ["answered 200 0 keep"] * 2


@pytest.mark.parametrize(
    ("data", "exc", "told"),
    [
        pytest.param(b"", None, ["lost closed"], id="closed before an answer"),
        pytest.param(b"", ConnectionResetError(), ["lost reset"], id="reset before an answer"),
        pytest.param(LENGTH[:-1], None, ["lost truncated"], id="body cut short"),
        pytest.param(CHUNKED[:-1], None, ["lost truncated"], id="chunks cut short"),
        pytest.param(b"HTTP/1.1 20", None, ["lost truncated"], id="head cut short"),
        pytest.param(INTERIM, None, ["lost truncated"], id="only interim answers"),
        pytest.param(LENGTH[:-1], ConnectionResetError(), ["lost reset"], id="reset in the body"),
        pytest.param(ENDLESS, None, ["answered 200 5 close", "lost"], id="ends with the connection"),
        pytest.param(ENDLESS, ConnectionResetError(), ["lost reset"], id="reset where only the end tells"),
        pytest.param(LENGTH, None, ["answered 200 5 keep", "lost"], id="closed when idle"),
    ],
)
def test_lost_connections(data: bytes, exc: Exception | None, told: list[str]) -> None:
    bench = Bench()
    if data:
        bench.feed(data)
    bench.connection.connection_lost(exc)
    assert bench.owner.told == told


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"SSH-2.0-OpenSSH\r\n", id="another protocol"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", id="bad length"),
        pytest.param(CHUNKED.replace(b"3\r\n", b"z\r\n"), id="bad chunk"),
        pytest.param(b"HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", id="unwanted upgrade"),
    ],
)
def test_malformed_answers(data: bytes) -> None:
    assert Bench().feed(data) == ["broken malformed"]


@pytest.mark.parametrize("extra", [LENGTH, b"junk"])
def test_more_than_one_answer_ends_the_connection(extra: bytes) -> None:
    assert Bench().feed(LENGTH + extra) == ["answered 200 5 close"]


def test_an_answer_nobody_asked_for_ends_the_connection() -> None:
    bench = Bench()
    bench.feed(LENGTH)
    assert bench.feed(LENGTH) == ["answered 200 5 keep"]
    assert bench.transport.aborted


def test_an_aborted_exchange_is_not_reported() -> None:
    bench = Bench()
    bench.connection.abort()
    bench.connection.connection_lost(None)
    assert bench.transport.aborted
    assert bench.owner.told == ["lost"]
