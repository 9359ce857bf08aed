"""Pure ASGI middleware: puts the database into the scope and opens and closes it with the app."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from headgate.database import Database
from headgate.errors import ConfigError

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

SCOPE_KEY = "headgate"
"""Where the databases of a request are: ``scope["headgate"][name]``; mounted apps inherit it."""


class DatabaseMiddleware:
    """Makes one ``Database`` known to everything below it."""

    def __init__(self, app: App, db: Database, check_on_startup: bool) -> None:
        self.app = app
        self.db = db
        self.check_on_startup = check_on_startup

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
            return
        scope[SCOPE_KEY] = {**scope.get(SCOPE_KEY, {}), self.db.name: self.db}
        await self.app(scope, receive, send)

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check the database before the app's own lifespan, which may want it, and close it after that."""
        if self.check_on_startup:
            try:
                await self.db.check()
            except ConfigError as error:
                await receive()
                await send({"type": "lifespan.startup.failed", "message": str(error)})
                return

        async def send_and_close(message: Message) -> None:
            if message["type"] in ("lifespan.shutdown.complete", "lifespan.shutdown.failed"):
                await self.db.dispose_async()
            await send(message)

        await self.app(scope, receive, send_and_close)
