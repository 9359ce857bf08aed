"""The ``Server-Timing`` response header: where the time went until the headers went out, for a browser's own tools."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from headgate.ledger import Account
from headgate.names import PHASES
from headgate.xray.live import LiveRequest
from headgate.xray.web_hooks import SCOPE_KEY

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Any, Send], Awaitable[None]]

log = logging.getLogger("headgate.xray")

HEADER: Final = b"server-timing"

LEAST_NS: Final = 50_000
"""A phase that took less would be shown as 0."""

TIMED_KEY: Final = "headgate.timed"
"""In the scope of a request whose response gets the header already, from the app around this one."""


def format_timing(account: Account) -> str:
    """``gate_wait;dur=12.1, database;dur=3.4, unattributed;dur=0.3, total;dur=15.8``, in milliseconds."""
    phases = zip(PHASES, account.times_ns, strict=True)
    shown = [f"{name};dur={time_ns / 1e6:.1f}" for name, time_ns in phases if time_ns >= LEAST_NS]
    return ", ".join((*shown, f"total;dur={account.total_ns / 1e6:.1f}"))


class ServerTimingMiddleware:
    """Inside of what refuses early: whoever is refused learns nothing of our insides."""

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Send) -> None:
        request = scope.get(SCOPE_KEY)
        if not isinstance(request, LiveRequest) or TIMED_KEY in scope:
            await self.app(scope, receive, send)
            return
        scope[TIMED_KEY] = True

        def tell(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                message = _with_timing(message, request)
            return send(message)

        await self.app(scope, receive, tell)


def _with_timing(message: Message, request: LiveRequest) -> Message:
    try:
        timing = format_timing(request.account(time.monotonic_ns())).encode("ascii")
    except Exception:  # the response is worth more than its header
        log.debug("no Server-Timing header", exc_info=True)
        return message
    return {**message, "headers": [*message.get("headers", ()), (HEADER, timing)]}
