"""The load client against real sockets: every way a server can behave."""

from __future__ import annotations

import asyncio
import errno
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from headgate.load import client
from headgate.load.client import Client, ClientOptions, connect_word
from headgate.load.driver import LoadPlan, run_load
from headgate.load.pacer import Schedule
from headgate.load.sample import Sample
from headgate.load.target import Origin, Target, build_request

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
MS = 1_000_000


class Server:
    """Counts what it sees; closes every connection at the end."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self.connections = 0
        self.open = 0
        self.most_open = 0
        self.paths: list[str] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            await self._handler(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client went away, as some of these tests want
        finally:
            self.open -= 1
            writer.close()

    async def gone(self) -> None:
        async with asyncio.timeout(5):
            while self.open:  # noqa: ASYNC110  (it learns of the client's end in its own time)
                await asyncio.sleep(0.005)


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[tuple[Server, str]]:
    server = Server(handler)
    async with await asyncio.start_server(server.serve, "127.0.0.1", 0, backlog=512) as listener:
        yield server, f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/"
        await server.gone()


async def read_request(reader: asyncio.StreamReader) -> bytes:
    return await reader.readuntil(b"\r\n\r\n")


def always(answer: bytes, *, delay_s: float = 0.0, close: bool = False, times: int | None = None) -> Handler:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        left = times
        while left is None or left > 0:
            await read_request(reader)
            await asyncio.sleep(delay_s)
            writer.write(answer)
            await writer.drain()
            left = None if left is None else left - 1
            if close:
                return

    return handle


async def load(
    url: str, *offsets_ms: int, timeout_s: float = 5.0, connections: int | None = None, **target: object
) -> list[Sample]:
    offsets = Schedule([ms * MS for ms in offsets_ms], [0] * len(offsets_ms))
    plan = LoadPlan((Target("/", url, **target),), offsets, connections, timeout_s)  # type: ignore[arg-type]
    return list((await run_load(plan)).samples)


async def test_connections_are_kept_and_used_again() -> None:
    async with serving(always(OK)) as (server, url):
        samples = await load(url, 0, 20, 40, 60)
    assert [(s.status, s.error, s.bytes_in) for s in samples] == [(200, "", 2)] * 4
    assert server.connections == 1


async def test_without_a_limit_nothing_waits() -> None:
    async with serving(always(OK, delay_s=0.2)) as (server, url):
        samples = await load(url, *[0] * 20)
    assert server.most_open == 20
    assert all(200 * MS <= s.latency_ns < 1_000 * MS for s in samples)


async def test_with_a_limit_requests_wait_in_order_and_the_wait_is_latency() -> None:
    async with serving(always(OK, delay_s=0.1)) as (server, url):
        samples = await load(url, *[0] * 6, connections=2)
    assert (server.most_open, server.connections) == (2, 2)
    ended = [s.ended_ns for s in samples]
    assert ended == sorted(ended)
    assert [s.latency_ns // (100 * MS) for s in samples] == [1, 1, 2, 2, 3, 3]
    assert all(s.lateness_ns < 100 * MS for s in samples)


async def test_the_timeout_covers_the_wait_for_a_connection() -> None:
    async with serving(always(OK, delay_s=0.4)) as (_, url):
        samples = await load(url, 0, 0, timeout_s=0.2, connections=1)
    assert [(s.status, s.error) for s in samples] == [(0, "timeout")] * 2
    assert all(200 * MS <= s.latency_ns < 400 * MS for s in samples)


async def test_a_timed_out_request_closes_its_connection_and_its_answer_is_not_anothers() -> None:
    async with serving(always(OK, delay_s=0.3)) as (server, url):
        samples = await load(url, 0, 250, timeout_s=0.2)
    assert [s.error for s in samples] == ["timeout", "timeout"]
    assert server.connections == 2


async def test_a_limit_spans_origins_by_giving_up_idle_connections() -> None:
    async with serving(always(OK)) as (one, url), serving(always(OK)) as (other, other_url):
        plan = LoadPlan(
            (Target("/a", url), Target("/b", other_url)),
            Schedule([i * 10 * MS for i in range(6)] + [60 * MS] * 6, [0, 1] * 6),
            max_connections=1,
        )
        samples = list((await run_load(plan)).samples)
    assert [s.status for s in samples] == [200] * 12
    assert one.connections + other.connections >= 6


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", (200, "truncated", 2), id="cut short"),
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\nhello", (200, "", 5), id="ends with the connection"),
        pytest.param(b"", (0, "closed", 0), id="closed without an answer"),
        pytest.param(b"nonsense\r\n\r\n", (0, "malformed", 0), id="malformed"),
        pytest.param(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", (503, "", 0), id="refused by the service"),
    ],
)
async def test_answers_of_closing_servers(answer: bytes, expected: tuple[int, str, int]) -> None:
    async with serving(always(answer, close=True)) as (_, url):
        samples = await load(url, 0, 50)
    assert [(s.status, s.error, s.bytes_in) for s in samples] == [expected] * 2


async def test_reset_in_the_middle_of_an_answer() -> None:
    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(OK[:-1])
        await writer.drain()
        await asyncio.sleep(0.05)
        linger = bytes([1, 0, 0, 0, 0, 0, 0, 0])  # on, zero seconds: close by reset
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

    async with serving(reset) as (_, url):
        (sample,) = await load(url, 0)
    assert (sample.status, sample.error) == (200, "reset")


async def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
    samples = await load(url, 0, 10)
    assert [(s.status, s.error) for s in samples] == [(0, "refused")] * 2


def closing_after_reading_again() -> Handler:
    """Answers once on each connection, then closes it instead of answering the second request."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(OK)
        await writer.drain()
        await read_request(reader)

    return handle


async def test_a_kept_connection_that_dies_is_replaced_once() -> None:
    async with serving(closing_after_reading_again()) as (server, url):
        samples = await load(url, 0, 50)
        assert [s.status for s in samples] == [200, 200]
        assert server.connections == 2
        lost = await load(url, 0, 50, method="POST")
    assert [(s.status, s.error) for s in lost] == [(200, ""), (0, "closed")]
    assert server.connections == 3


async def test_a_server_that_closes_idle_connections_is_no_failure() -> None:
    async with serving(always(OK, close=True)) as (server, url):
        samples = await load(url, 0, 50, 100, method="POST")
    assert [s.status for s in samples] == [200] * 3
    assert server.connections == 3


async def test_bodies_are_judged_when_asked() -> None:
    async with serving(always(OK)) as (_, url):
        right = await load(url, 0, accept=lambda status, body: (status, body) == (200, b"ok"))
        wrong = await load(url, 0, accept=lambda status, body: False)
    assert [(s.status, s.error) for s in right + wrong] == [(200, ""), (200, "wrong")]


async def test_a_failing_judge_ends_the_run_with_its_own_error() -> None:
    def fail(status: int, body: bytes) -> bool:
        raise ZeroDivisionError

    async with serving(always(OK)) as (_, url):
        with pytest.raises(ZeroDivisionError):
            await load(url, 0, 60_000, accept=fail)


async def test_request_bodies_and_headers_arrive() -> None:
    seen: list[bytes] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await read_request(reader) + await reader.readexactly(3))
        writer.write(OK)

    async with serving(handle) as (_, url):
        await load(url, 0, method="PUT", headers=(("X-Mark", "7"),), body=b"abc")
    assert seen[0].startswith(b"PUT / HTTP/1.1\r\n")
    assert b"\r\nX-Mark: 7\r\n" in seen[0]
    assert seen[0].endswith(b"\r\n\r\nabc")


async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers nothing, and ends when the client closes."""
    await reader.read()


async def test_cancelling_leaves_nothing_running() -> None:
    async with serving(never) as (server, url):
        run = asyncio.create_task(load(url, *range(0, 2_000, 5), connections=20, timeout_s=60))
        async with asyncio.timeout(5):
            while server.most_open < 20:  # noqa: ASYNC110  (until the load is under way)
                await asyncio.sleep(0.01)
        started = time.monotonic()
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        assert time.monotonic() - started < 1
        assert not [task for task in asyncio.all_tasks() if "headgate" in repr(task.get_coro())]
        await server.gone()  # closed, not merely forgotten
        assert server.connections == 20


async def test_slow_openings_do_not_hold_up_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    """With most ports of the system in use one connect takes milliseconds; thousands of them took minutes."""
    loop = asyncio.get_running_loop()
    create_connection = loop.create_connection

    async def create_slowly(*args: object, **options: object) -> object:
        time.sleep(0.01)  # noqa: ASYNC251  (it is the loop that is kept busy)
        return await create_connection(*args, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(loop, "create_connection", create_slowly)
    monkeypatch.setattr(client, "OPENINGS_PER_TURN", 5)
    started = time.monotonic()
    async with serving(never) as (_, url):
        samples = await load(url, *[0] * 400, timeout_s=0.3)
        assert time.monotonic() - started < 2
    assert {s.error for s in samples} == {"timeout"}
    assert max(s.lateness_ns for s in samples) >= 300 * MS  # those that never left are late, not fast


async def test_cancelling_before_any_connection_is_made() -> None:
    async with serving(always(OK)) as (_, url):
        run = asyncio.create_task(load(url, *[0] * 50))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run


@pytest.mark.parametrize(
    ("code", "word"),
    [
        (errno.ECONNREFUSED, "refused"),
        (errno.EMFILE, "descriptors"),
        (errno.EADDRNOTAVAIL, "ports"),
        (errno.ENETUNREACH, "unreachable"),
        (errno.EPERM, "connect"),
    ],
)
def test_connect_words(code: int, word: str) -> None:
    assert connect_word(OSError(code, "x")) == word


def test_a_connection_given_up_in_the_turn_it_opens_in_is_gone_as_well() -> None:
    uvloop = pytest.importorskip("uvloop")

    async def give_up_as_it_opens(port: int) -> list[str]:
        origin = Origin("127.0.0.1", port, tls=False)
        options = ClientOptions({origin: "127.0.0.1"}, timeout_ns=MS, max_connections=None, clock=time.monotonic_ns)
        ended: list[str] = []
        one = Client(options, lambda _exchange, _now_ns, error: ended.append(error))
        request = build_request(Target("/", f"http://{origin}/"))
        for index in range(20):
            one.send(index, request)
        await asyncio.sleep(0)
        await asyncio.sleep(0)  # the kernel connects now
        time.sleep(0.01)  # noqa: ASYNC251  (so that the timeout and the connections come in one turn of the loop)
        while len(ended) < 20:  # noqa: ASYNC110
            await asyncio.sleep(0)
        async with asyncio.timeout(5):
            await one.close()
        return ended

    listening = socket.create_server(("127.0.0.1", 0), backlog=64)
    with listening, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(give_up_as_it_opens(listening.getsockname()[1])) == ["timeout"] * 20
