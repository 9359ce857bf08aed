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
            await self.app(scope, receive, _Lifespan(self, send))
            return
        scope[SCOPE_KEY] = {**scope.get(SCOPE_KEY, {}), self.db.name: self.db}
        await self.app(scope, receive, send)


class _Lifespan:
    """Sends the app's own lifespan messages on; in between, the database is checked and closed."""

    def __init__(self, middleware: DatabaseMiddleware, send: Send) -> None:
        self.middleware = middleware
        self.send = send

    async def __call__(self, message: Message) -> None:
        if message["type"] == "lifespan.startup.complete" and self.middleware.check_on_startup:
            try:
                await self.middleware.db.check()
            except ConfigError as error:
                message = {"type": "lifespan.startup.failed", "message": str(error)}
        elif message["type"] in ("lifespan.shutdown.complete", "lifespan.shutdown.failed"):
            await self.middleware.db.dispose_async()
        await self.send(message)
