"""What Starlette, FastAPI and anyio tell: requests, answers, serialization and waits for worker threads."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from typing import Any, Final

from headgate.ledger import current_ledger
from headgate.names import SEND, SERIALIZE, THREAD_WAIT
from headgate.xray.live import Live, LiveRequest
from headgate.xray.seams import Seam

clock = time.monotonic_ns

SCOPE_KEY: Final = "headgate.xray"
"""Where a request is known by for the apps that are mounted below."""

LAST: Final = ("http.response.body", "http.response.pathsend")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]


def web_seams(live: Live) -> Iterator[Seam]:
    """Wrap what every app and every worker thread does; nothing where there is no Starlette."""
    try:
        import anyio.to_thread
        from starlette.applications import Starlette
    except ImportError:
        return
    yield Seam(Starlette, "__call__", _answering(live))
    yield Seam(anyio.to_thread, "run_sync", _waiting_for_thread(live))


def fastapi_seams() -> Iterator[Seam]:
    """Wrap how FastAPI makes the response's body; nothing where there is no FastAPI."""
    try:
        from fastapi import routing  # not by the package's attribute, which it has only when all of it is imported
    except ImportError:
        return
    if "serialize_response" in vars(routing):
        yield Seam(routing, "serialize_response", _serializing)


def _answering(live: Live) -> Callable[[Any], Any]:
    def wrap(original: Any) -> Any:
        async def call(app: Any, scope: Scope, receive: Any, send: Send) -> None:
            if scope["type"] != "http" or SCOPE_KEY in scope:
                await original(app, scope, receive, send)
                return
            scope[SCOPE_KEY] = request = LiveRequest(scope, clock())
            request.task = asyncio.current_task()
            live.begin(request)
            token = current_ledger.set(request)
            try:
                await original(app, scope, receive, _telling(request, send))
            finally:
                current_ledger.reset(token)
                live.end(request, clock())

        return call

    return wrap


ANSWERING: Final = "_answering.<locals>.wrap.<locals>.call"
"""Whose frame's ``request`` says, to whoever looks at a thread's stack, which request runs there."""


def _telling(request: LiveRequest, send: Send) -> Send:
    async def finish(message: Message) -> None:
        try:
            await send(message)
        finally:
            request.answered_ns = now_ns = clock()
            request.leave(SEND, now_ns)

    def tell(message: Message) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            request.status = message["status"]
            request.responding_ns = now_ns = clock()
            request.sender = asyncio.current_task()
            request.enter(SEND, now_ns)
        elif message["type"] in LAST and not message.get("more_body"):
            return finish(message)
        return send(message)

    return tell


def _serializing(original: Any) -> Any:
    async def serialize_response(**options: Any) -> Any:
        request = current_ledger.get()
        if request is None:
            return await original(**options)
        request.enter(SERIALIZE, clock())
        try:
            return await original(**options)
        finally:
            request.leave(SERIALIZE, clock())

    return serialize_response


def _waiting_for_thread(live: Live) -> Callable[[Any], Any]:
    def wrap(original: Any) -> Any:
        async def run_sync(function: Any, *args: Any, **options: Any) -> Any:
            request = current_ledger.get()
            if not isinstance(request, LiveRequest):
                return await original(function, *args, **options)
            # Threads of a limiter of its own are not waited for with everybody else.
            run = _Run(live, request, function, args, is_shared=options.get("limiter") is None)
            try:
                return await original(run, **options)
            finally:
                run.end_waiting()

        return run_sync

    return wrap


class _Run:
    """A function on its way into a worker thread."""

    __slots__ = ("_args", "_asked_ns", "_function", "_is_shared", "_live", "_request", "_waits")

    def __init__(
        self, live: Live, request: LiveRequest, function: Any, args: tuple[Any, ...], *, is_shared: bool
    ) -> None:
        self._live = live
        self._is_shared = is_shared
        self._request = request
        self._function = function
        self._args = args
        self._waits = True
        self._asked_ns = now_ns = clock()
        request.enter(THREAD_WAIT, now_ns)

    def end_waiting(self) -> int:
        """Note that it runs, or never will."""
        now_ns = clock()
        if self._waits:
            self._waits = False
            self._request.leave(THREAD_WAIT, now_ns)
        return now_ns

    def __call__(self) -> Any:
        began_ns = self.end_waiting()
        request = self._request
        self._live.started += 1
        request.thread = threading.get_ident()
        try:
            return self._function(*self._args)
        finally:
            request.thread = 0
            if self._is_shared:
                request.threads.append((began_ns - self._asked_ns, clock() - began_ns))
