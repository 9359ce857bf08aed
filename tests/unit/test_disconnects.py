"""How a client's going is noticed: who asks the server, when, and that the app misses nothing by it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

import pytest

from headgate.admission import Admission
from headgate.disconnects import OLD_AFTER_NS, Message, OpenRequest, Sweep

from .gate_fakes import FakeClock

BODY: Message = {"type": "http.request", "body": b"words", "more_body": False}
PART: Message = {"type": "http.request", "body": b"words", "more_body": True}
NOTHING: Message = {"type": "http.request", "body": b"", "more_body": False}
GONE: Message = {"type": "http.disconnect"}
START: Message = {"type": "http.response.start", "status": 200}
END: Message = {"type": "http.response.body", "body": b""}


class Server:
    """What an ASGI server tells, one message a question; several questions at once are a mistake."""

    def __init__(self) -> None:
        self.messages: deque[Message] = deque()
        self.asked = 0
        self._said = asyncio.Event()
        self.sent: list[Message] = []

    def say(self, *messages: Message) -> None:
        self.messages.extend(messages)
        self._said.set()

    async def receive(self) -> Message:
        assert self.asked == 0, "asked twice at once"
        self.asked += 1
        try:
            while not self.messages:
                self._said.clear()
                await self._said.wait()
            return self.messages[0] if self.messages[0] is GONE else self.messages.popleft()
        finally:
            self.asked -= 1

    async def send(self, message: Message) -> None:
        self.sent.append(message)


class Loop:
    """An event loop whose timers go off by hand."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.timers: list[Timer] = []

    def call_later(self, seconds: float, call: Any, *args: Any, context: Any) -> Timer:
        self.timers.append(timer := Timer(seconds, call, args))
        return timer

    def create_task(self, coroutine: Any, context: Any) -> asyncio.Task[Any]:
        return self._loop.create_task(coroutine, context=context)


class Timer:
    def __init__(self, seconds: float, call: Any, args: Any) -> None:
        self.seconds, self.call, self.args = seconds, call, args
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


class World:
    """A request, the server before it, and a sweep."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.server = Server()
        self.loop = Loop()
        self.sweep = Sweep(self.loop, self.clock)  # type: ignore[arg-type]
        self.admission = Admission(0)
        self.opened: list[OpenRequest] = []

    def open(self, *, method: str = "GET", is_given_up: bool = True, **headers: str) -> OpenRequest:
        scope: dict[str, Any] = {
            "type": "http",
            "http_version": "1.1",
            "method": method,
            "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()],
        }
        request = OpenRequest(
            self.admission, scope, self.server.receive, self.server.send, self.sweep, is_given_up=is_given_up
        )
        self.opened.append(request)
        return request

    async def grow_old(self) -> None:
        """Let the time pass after which a request is old, and the sweep come by."""
        self.clock.now_ns += OLD_AFTER_NS
        for timer in [timer for timer in self.loop.timers if timer.call == self.sweep._look]:
            self.loop.timers.remove(timer)
            timer.call()
        await turns()


async def turns() -> None:
    """Let every task go on as far as it can."""
    for _ in range(8):
        await asyncio.sleep(0)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """A world that is left without a task."""
    world = World()
    yield world
    for request in world.opened:
        request.close()
    await turns()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert not world.sweep._open


async def test_the_young_are_left_alone(world: World) -> None:
    world.open()
    await turns()
    assert world.server.asked == 0
    assert [timer.seconds for timer in world.loop.timers] == [OLD_AFTER_NS / 1e9]


async def test_many_requests_share_one_timer(world: World) -> None:
    for _ in range(5):
        world.open().close()
    assert len(world.loop.timers) == 1
    await world.grow_old()
    assert world.loop.timers == []


async def test_an_old_request_ends_with_its_client(world: World) -> None:
    world.open()
    await world.grow_old()
    assert world.server.asked == 1
    world.server.say(NOTHING)
    await turns()
    assert world.admission.ended is None
    world.server.say(GONE)
    await turns()
    assert world.admission.ended == "gone"


async def test_what_was_heard_is_kept_for_the_app(world: World) -> None:
    request = world.open()
    await world.grow_old()
    world.server.say(NOTHING)
    await turns()
    assert await request.receive() is NOTHING
    world.server.say(GONE)
    assert [await request.receive() for _ in range(3)] == [GONE] * 3


async def test_app_and_watch_ask_one_after_the_other(world: World) -> None:
    request = world.open()
    await world.grow_old()
    asking = asyncio.ensure_future(request.receive())
    await turns()
    world.server.say(NOTHING)
    assert await asking is NOTHING
    world.server.say(GONE)
    assert await request.receive() is GONE
    assert world.admission.ended == "gone"


async def test_an_app_that_asks_is_asked_nothing(world: World) -> None:
    request = world.open()
    asking = asyncio.ensure_future(request.receive())
    await turns()
    await world.grow_old()
    await world.grow_old()
    world.server.say(GONE)
    assert await asking is GONE
    assert world.admission.ended == "gone"


async def test_an_app_that_stops_asking_loses_nothing(world: World) -> None:
    request = world.open()
    await world.grow_old()
    asking = asyncio.ensure_future(request.receive())
    await turns()
    asking.cancel()
    await turns()
    world.server.say(NOTHING)
    assert await request.receive() is NOTHING


async def test_a_body_is_the_apps_until_it_has_all_of_it(world: World) -> None:
    request = world.open(method="POST", content_length="10")
    await world.grow_old()
    assert world.server.asked == 0
    world.server.say(PART)
    assert await request.receive() is PART
    await world.grow_old()
    assert world.server.asked == 0
    world.server.say(BODY)
    assert await request.receive() is BODY
    await world.grow_old()
    assert world.server.asked == 1


@pytest.mark.parametrize(
    ("headers", "may"), [({"content_length": "0"}, False), ({"transfer_encoding": "chunked"}, True), ({}, False)]
)
async def test_who_may_have_a_body(world: World, headers: dict[str, str], may: bool) -> None:
    world.open(method="POST", **headers)
    await world.grow_old()
    assert world.server.asked == (not may)


async def test_after_the_answer_nobody_listens(world: World) -> None:
    request = world.open()
    await world.grow_old()
    world.admission.shorten(1.0)
    await request.send(START)
    await request.send({"type": "http.response.body", "body": b"x", "more_body": True})
    assert world.server.asked == 1
    await request.send(END)
    await turns()
    assert world.server.asked == 0
    world.server.say(GONE)
    assert await request.receive() is GONE  # which servers say of every answered request
    assert world.admission.ended is None
    assert world.admission.deadline_ns is None
    assert all(timer.is_cancelled for timer in world.loop.timers)
    assert world.server.sent[-1] is END


async def test_a_request_that_is_not_given_up_goes_on_once_it_has_begun(world: World) -> None:
    world.open(method="POST", is_given_up=False)
    await world.grow_old()
    world.server.say(NOTHING, GONE)
    await turns()
    assert world.admission.ended is None


async def test_a_request_that_is_not_given_up_does_not_begin_to_wait(world: World) -> None:
    world.open(method="POST", is_given_up=False)
    await world.grow_old()
    world.server.say(NOTHING, GONE)
    await turns()
    ended: list[str] = []

    class Waiting:
        def end(self, reason: str) -> None:
            ended.append(reason)

    world.admission.begin(Waiting())
    assert ended == ["gone"]


async def test_a_server_that_fails_is_not_asked_again(world: World) -> None:
    request = world.open()
    await world.grow_old()

    async def fail() -> Message:
        raise OSError("the connection is lost")

    world.server.say(NOTHING)
    request._receive = fail
    await turns()
    await world.grow_old()
    assert await request.receive() is NOTHING
    with pytest.raises(OSError, match="lost"):
        await request.receive()
    assert world.admission.ended is None


def deadlines_of(world: World) -> list[float]:
    """The seconds of the timers that end the request."""
    return [
        timer.seconds for timer in world.loop.timers if timer.call == world.admission.end and not timer.is_cancelled
    ]


async def test_a_deadline_that_is_far_costs_no_timer_while_the_request_is_young(world: World) -> None:
    world.admission.shorten(2.0)
    world.open()
    assert deadlines_of(world) == []
    await world.grow_old()
    assert deadlines_of(world) == [2.0 - OLD_AFTER_NS / 1e9]


async def test_a_deadline_that_is_near_has_its_timer_at_once(world: World) -> None:
    world.admission.shorten(0.2)
    world.open()
    assert deadlines_of(world) == [0.2]


async def test_a_shorter_deadline_takes_the_place_of_the_first(world: World) -> None:
    world.admission.shorten(5.0)
    world.open()
    await world.grow_old()
    world.admission.shorten(0.5)
    world.admission.shorten(4.0)
    assert deadlines_of(world) == [0.5 - OLD_AFTER_NS / 1e9]
