"""Drives each request below its app's middleware, whose own tasks would hide from whom the endpoint runs in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterator, MutableMapping
from typing import Any

from starlette.responses import StreamingResponse
from starlette.routing import Router

from headgate.xray.driving import current_drive
from headgate.xray.live import Live
from headgate.xray.seams import Seam
from headgate.xray.web_hooks import fastapi_seams, web_seams

Scope = MutableMapping[str, Any]
DriveRequest = Callable[[Coroutine[Any, Any, None], Callable[[], str]], Awaitable[None]]


def request_seams(live: Live, drive_request: DriveRequest) -> Iterator[Seam]:
    """Wrap what every app, every router and every streaming response does."""
    yield from web_seams(live)
    yield from fastapi_seams()
    yield Seam(Router, "__call__", _driving(drive_request))
    yield Seam(StreamingResponse, "stream_response", _streaming(drive_request))


def _driving(drive_request: DriveRequest) -> Callable[[Any], Any]:
    def wrap(original: Any) -> Any:
        async def call(router: Any, scope: Scope, receive: Any, send: Any) -> None:
            __tracebackhide__ = True
            if scope["type"] == "lifespan":
                await original(router, scope, receive, send)
            else:
                await drive_request(original(router, scope, receive, send), lambda: _name_of(scope))

        return call

    return wrap


def _streaming(drive_request: DriveRequest) -> Callable[[Any], Any]:
    """A response may be streamed in a task of its own."""

    def wrap(original: Any) -> Any:
        async def stream_response(response: Any, send: Any) -> None:
            __tracebackhide__ = True
            outer = current_drive.get()
            await drive_request(original(response, send), lambda: "" if outer is None else outer.name)

        return stream_response

    return wrap


def _name_of(scope: Scope) -> str:
    path = getattr(scope.get("route"), "path", None) or scope["path"]
    return f"{scope.get('method', 'WEBSOCKET')} {path}"
