"""Serves the console from inside an app: the page, the form, and the stream of what happens."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any, Final

from headgate.xray.console.access import (
    MOST_FORM_BYTES,
    ConsoleOptions,
    end_cookie,
    is_token,
    make_cookie,
    may_see,
    token_of_form,
)
from headgate.xray.console.pages import ALWAYS, CLOSED, Page, console_page, sign_in_page
from headgate.xray.console.snapshot import take_snapshot
from headgate.xray.figures import Figures
from headgate.xray.live import LiveRequest
from headgate.xray.web_hooks import SCOPE_KEY

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = tuple[tuple[bytes, bytes], ...]

EVERY_S: Final = 1.0
"""Between two events."""

LOOK_S: Final = 0.2
"""Between two looks whether the server is about to stop."""

STREAM_S: Final = 8.0
"""After which a stream ends and the page asks again: a server that cannot be asked whether it stops waits no longer."""

SNAPSHOT_NS: Final = 500_000_000
"""For so long several viewers are shown the same."""

HTML: Final = b"text/html; charset=utf-8"
TEXT: Final = b"text/plain; charset=utf-8"


class ConsoleMiddleware:
    """Answers what is asked of the console by whoever may; everything else is the app's, as if there was no console."""

    def __init__(self, app: App, figures: Figures, options: ConsoleOptions) -> None:
        self.app = app
        self._figures = figures
        self._options = options
        self._streams: set[asyncio.Event] = set()
        self._snapshot: tuple[int, bytes] = (-SNAPSHOT_NS, b"")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, self._hearing_shutdown(receive), send)
            return
        path = self._path_below(scope) if scope["type"] == "http" else None
        answer = None if path is None else self._answer_to(scope, path)
        if answer is None:
            await self.app(scope, receive, send)
            return
        request = scope.get(SCOPE_KEY)
        if isinstance(request, LiveRequest):
            self._figures.leave_out(request)
        await answer(scope, receive, send)

    def _path_below(self, scope: Scope) -> str | None:
        """What of the path is below the console's; None if it is not the console's."""
        root, path = scope.get("root_path", ""), scope["path"]
        if root and path.startswith(root):
            path = path[len(root) :]
        below = path.removeprefix(self._options.path)
        return below if below != path and (not below or below.startswith("/")) else None

    def _answer_to(self, scope: Scope, path: str) -> App | None:
        asked = (scope["method"], path)
        if self._options.sign_in and asked in (("GET", "/sign-in"), ("POST", "/sign-in")):
            return self._show_form if asked[0] == "GET" else self._sign_in
        if not may_see(self._options, scope["headers"], time.time()):
            return None
        return {
            ("GET", ""): self._lead_in,
            ("GET", "/"): self._show_page,
            ("GET", "/state"): self._show_state,
            ("GET", "/events"): self._stream,
            ("POST", "/sign-out"): self._sign_out,
        }.get(asked)

    # pages

    async def _lead_in(self, scope: Scope, receive: Receive, send: Send) -> None:
        await _lead(send, f"{self._options.path.rpartition('/')[2]}/")

    async def _show_page(self, scope: Scope, receive: Receive, send: Send) -> None:
        await _send_page(send, 200, console_page())

    async def _show_state(self, scope: Scope, receive: Receive, send: Send) -> None:
        await _answer(send, 200, self._take_snapshot(), b"application/json")

    async def _show_form(self, scope: Scope, receive: Receive, send: Send) -> None:
        await _send_page(send, 200, sign_in_page(has_failed=False))

    async def _sign_in(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await _read_body(receive)
        if body is None or not is_token(self._options, token_of_form(body)):
            await _send_page(send, 403, sign_in_page(has_failed=True))
            return
        cookie = make_cookie(self._options, time.time(), is_secure=_is_secure(scope))
        await _lead(send, "./", ((b"set-cookie", cookie.encode("ascii")),))

    async def _sign_out(self, scope: Scope, receive: Receive, send: Send) -> None:
        cookie = end_cookie(is_secure=_is_secure(scope))
        where = "sign-in" if self._options.sign_in else "./"
        await _lead(send, where, ((b"set-cookie", cookie.encode("ascii")),))

    # the stream

    async def _stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        if len(self._streams) >= self._options.viewers:
            await _answer(send, 503, b"as many look as may\n", TEXT, ((b"retry-after", b"10"),))
            return
        ended = asyncio.Event()
        self._streams.add(ended)
        listening = asyncio.create_task(_until_gone(receive, ended))
        try:
            await self._send_events(send, ended)
        finally:
            self._streams.discard(ended)
            listening.cancel()
            with suppress(asyncio.CancelledError):
                await listening

    async def _send_events(self, send: Send, ended: asyncio.Event) -> None:
        headers = _headers(b"text/event-stream", CLOSED, ((b"x-accel-buffering", b"no"),))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        until_s = time.monotonic() + STREAM_S
        event = b"retry: 300\n"
        while not ended.is_set():
            event += b"data: " + self._take_snapshot() + b"\n\n"
            await send({"type": "http.response.body", "body": event, "more_body": True})
            event = b""
            if time.monotonic() + EVERY_S > until_s or await _pause(ended):
                break
        await send({"type": "http.response.body", "body": b""})

    def _take_snapshot(self) -> bytes:
        now_ns = self._figures.clock()
        if now_ns - self._snapshot[0] >= SNAPSHOT_NS:
            text = json.dumps(take_snapshot(self._figures), separators=(",", ":"))
            self._snapshot = (now_ns, text.encode("ascii"))
        return self._snapshot[1]

    def _hearing_shutdown(self, receive: Receive) -> Receive:
        async def hear() -> Message:
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                for ended in self._streams:
                    ended.set()
            return message

        return hear


async def _pause(ended: asyncio.Event) -> bool:
    """Wait until the next event is due; True if the stream is to end before."""
    for _ in range(round(EVERY_S / LOOK_S)):
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_S):
                await ended.wait()
        if ended.is_set() or is_server_leaving():
            return True
    return False


def is_server_leaving() -> bool:
    """Whether uvicorn waits for its connections to end; it tells the app of its shutdown only after that.

    It takes the signals itself, so its server is behind the handler. Of other servers this says nothing.
    """
    server = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return getattr(server, "should_exit", False) is True


async def _until_gone(receive: Receive, ended: asyncio.Event) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    ended.set()


async def _read_body(receive: Receive) -> bytes | None:
    """None if it is too long for a form, or its client has gone."""
    body = b""
    while len(body) <= MOST_FORM_BYTES:
        message = await receive()
        if message["type"] != "http.request":
            return None
        body += message.get("body", b"")
        if not message.get("more_body"):
            return body if len(body) <= MOST_FORM_BYTES else None
    return None


def _is_secure(scope: Scope) -> bool:
    return bool(scope.get("scheme") == "https")


def _headers(kind: bytes, policy: str, more: Headers = ()) -> list[tuple[bytes, bytes]]:
    return [(b"content-type", kind), (b"content-security-policy", policy.encode("ascii")), *ALWAYS, *more]


async def _answer(send: Send, status: int, body: bytes, kind: bytes, more: Headers = (), policy: str = CLOSED) -> None:
    headers = [*_headers(kind, policy, more), (b"content-length", str(len(body)).encode("ascii"))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _send_page(send: Send, status: int, page: Page) -> None:
    await _answer(send, status, page.body, HTML, policy=page.policy)


async def _lead(send: Send, where: str, more: Headers = ()) -> None:
    """On to another page; relative, because a proxy may have put something before our path."""
    await _answer(send, 303, b"", TEXT, ((b"location", where.encode("ascii")), *more))
