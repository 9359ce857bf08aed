"""Requests that nobody waits for any more: their deadline has passed, or their client has gone.

Only the server's ``receive`` tells that a client has gone, and only whoever asks. Requests that are young are left
alone; for one that has grown old, and has its body, one task asks. What it is told is kept for the app, should that
ask later, and there is never more than one question before the server, whoever asks.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from contextvars import Context
from typing import Any, Final

from headgate.admission import Admission
from headgate.config import Clock

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

OLD_AFTER_NS: Final = 100_000_000
"""Most requests are over before anybody need ask whether their client is still there, or set a timer."""

SOON_NS: Final = 3 * OLD_AFTER_NS
"""A deadline that is later than this after a request has come can be seen to when the request is old."""

LAST: Final = ("http.response.body", "http.response.pathsend")
"""What a response ends with."""


class OpenRequest:
    """One request from its coming to its response: its ``receive`` and ``send``, and what ends it before its time.

    :param is_given_up: whether it is given up once it has begun, when its client has gone.
    """

    # No slots: what most requests never change is the class's.
    _is_asked = 0
    _is_answering = False
    is_old = False
    _kept: deque[Message] | None = None
    _listening: asyncio.Task[Message] | None = None
    _timer: asyncio.TimerHandle | None = None

    def __init__(
        self, admission: Admission, scope: Scope, receive: Receive, send: Send, sweep: Sweep, *, is_given_up: bool
    ) -> None:
        self._admission = admission
        self._is_given_up = is_given_up
        self._receive = receive
        self._send = send
        self._sweep = sweep
        self._scope: Scope | None = scope  # as long as its body may not have been read
        sweep.add(self)
        admission.timer = self
        if admission.deadline_ns is not None:
            self.set(admission.deadline_ns)

    # the deadline

    def set(self, deadline_ns: int) -> None:
        """End the request at its deadline, which is, or has become, this one."""
        if deadline_ns - self.began_ns < SOON_NS or self.is_old:
            self._set_timer(deadline_ns)

    def _set_timer(self, deadline_ns: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
        left_s = (deadline_ns - self._sweep.clock()) / 1e9
        self._timer = self._sweep.loop.call_later(left_s, self._admission.end, "deadline", context=Context())

    @property
    def began_ns(self) -> int:
        """When it came."""
        return self._admission.began_ns

    def grow_old(self) -> bool:
        """See to what young requests are spared; True once that is done."""
        if not self.is_old:
            self.is_old = True
            if self._timer is None and self._admission.deadline_ns is not None:
                self._set_timer(self._admission.deadline_ns)
        return self._listen()

    # what the app calls

    async def receive(self) -> Message:
        """ASGI: the next message."""
        while True:
            if self._kept:
                return self._kept[0] if self._kept[0]["type"] == "http.disconnect" else self._kept.popleft()
            if self._listening is None:
                return await self._ask()
            await asyncio.wait((self._listening,))  # which goes on if this one is cancelled

    async def _ask(self) -> Message:
        self._is_asked += 1
        try:
            message = await self._receive()
        finally:
            self._is_asked -= 1
        self._note(message)
        return message

    def send(self, message: Message) -> Awaitable[None]:
        """ASGI: answer; a plain function, because one more coroutine would cost as much as all the rest."""
        if message["type"] in LAST:
            if not message.get("more_body"):
                self.close()
                self._admission.answer()
        elif message["type"] == "http.response.start":
            self._is_answering = True
        return self._send(message)

    def close(self) -> None:
        """The response is complete, or there will be none: nobody ends what goes on after it."""
        if self._admission.timer is not self:
            return
        self._admission.timer = None
        self._sweep.remove(self)
        if self._timer is not None:
            self._timer.cancel()
        if self._listening is not None:
            self._listening.cancel()
            self._listening = None

    # the client

    def _listen(self) -> bool:
        """Listen for the client's going, unless the app does; False if its body comes first."""
        if self._is_asked or (self._scope is not None and _may_have_body(self._scope)):
            return False
        self._scope = None
        self._listening = self._sweep.loop.create_task(self._receive_one(), context=Context())
        self._listening.add_done_callback(self._heard)
        return True

    async def _receive_one(self) -> Message:
        return await self._receive()

    def _heard(self, listening: asyncio.Task[Message]) -> None:
        if self._listening is not listening:  # the request is over
            return
        self._listening = None
        if listening.cancelled() or listening.exception() is not None:
            return  # the app learns it when it asks itself
        message = listening.result()
        if self._kept is None:
            self._kept = deque()
        self._kept.append(message)
        self._note(message)
        if message["type"] != "http.disconnect":
            self._listen()

    def _note(self, message: Message) -> None:
        if message["type"] == "http.disconnect":
            self._sweep.remove(self)
            self._leave()
        elif not message.get("more_body"):
            self._scope = None

    def _leave(self) -> None:
        # Once the response is complete, servers say the same of clients that are still there.
        if self._admission.timer is not self:
            return
        if self._is_answering:
            # The framework ends a stream itself, and what follows it, a background task, is as wanted as ever.
            self.close()
            self._admission.answer()
        elif self._is_given_up:
            self._admission.end("gone")
        else:
            self._admission.end_unbegun("gone")


class Sweep:
    """Looks over the open requests of one event loop, as long as there are any."""

    __slots__ = ("_is_set", "_open", "clock", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Clock) -> None:
        self.loop = loop
        self.clock = clock
        self._open: dict[OpenRequest, None] = {}
        self._is_set = False

    def add(self, request: OpenRequest) -> None:
        """Look at it when it has grown old."""
        self._open[request] = None
        if not self._is_set:
            self._set()

    def remove(self, request: OpenRequest) -> None:
        """It is over, or needs no looking at."""
        self._open.pop(request, None)

    def _set(self) -> None:
        self._is_set = True
        self.loop.call_later(OLD_AFTER_NS / 1e9, self._look, context=Context())

    def _look(self) -> None:
        old_ns = self.clock() - OLD_AFTER_NS
        for request in list(self._open):
            if request.began_ns > old_ns:
                break
            if request.grow_old():
                self.remove(request)
        self._is_set = False
        if self._open:
            self._set()


def _may_have_body(scope: Scope) -> bool:
    for name, value in scope["headers"]:
        if name == b"transfer-encoding" or (name == b"content-length" and value != b"0"):
            return True
    # A later version of HTTP may send a body without announcing it.
    return scope.get("http_version", "1.1") not in ("1.0", "1.1") and scope["method"] not in WITHOUT_BODY


WITHOUT_BODY: Final[Collection[str]] = ("GET", "HEAD", "DELETE", "OPTIONS")
