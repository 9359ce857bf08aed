"""The process of a service: one uvicorn worker on a socket it was given.

`lifeline` describes its pipes. The order names the factory, its configuration and the socket's descriptor.
"""

from __future__ import annotations

import importlib
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn

_GRACE_SECONDS = 2
# A connection the generator keeps must not be closed under it between two waves of an arm.
_KEEP_ALIVE_SECONDS = 75
_CHUNK_BYTES = 65_536


class AnnouncingServer(uvicorn.Server):
    """uvicorn's server, which tells the owner when it takes requests."""

    def __init__(self, config: uvicorn.Config, answers: int) -> None:
        super().__init__(config)
        self._answers = answers

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        if self.started:
            answer(self._answers, {"state": "ready"})


Obey = Callable[[dict[str, Any]], dict[str, Any]]
"""Answers an order, in a thread of its own."""


class Following:
    """Answers the owner's orders from the first moment on, whatever the app does while it is imported.

    :ivar server: what is stopped gracefully; None while there is none.
    """

    def __init__(self, orders: Iterator[dict[str, Any]], answers: int, obey: Obey | None) -> None:
        self._orders = orders
        self._answers = answers
        self._obey = obey
        self.server: uvicorn.Server | None = None

    def follow(self) -> None:
        """Stop gracefully when the owner says so, at once when it is gone."""
        for order in self._orders:
            if self._obey is None or order["do"] == "stop":
                self._stop()
            else:
                answer(self._answers, self._obey(order))
        # Nothing is left to wait for, and a thread cannot end the process in a kinder way.
        os._exit(1)

    def _stop(self) -> None:
        if self.server is None:
            os._exit(1)
        self.server.should_exit = True


def read_orders() -> Iterator[dict[str, Any]]:
    """The owner's orders, until it is gone.

    Not by ``sys.stdin``: a thread that waits in it keeps a lock that the interpreter wants when it ends.
    """
    received = b""
    while chunk := os.read(0, _CHUNK_BYTES):
        *lines, received = (received + chunk).split(b"\n")
        yield from map(json.loads, lines)


def answer(answers: int, value: dict[str, Any]) -> None:
    """Send one line to the owner, however long."""
    data = json.dumps(value).encode() + b"\n"
    while data:
        data = data[os.write(answers, data) :]


def load_factory(name: str) -> Any:
    """Return the object that ``package.module:attribute`` names."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def configure(app: Any, *, backlog: int, limit_concurrency: int | None, loop: Any) -> uvicorn.Config:
    """Return uvicorn's configuration: one worker, its fast parser, no access log."""
    return uvicorn.Config(
        app,
        loop=loop,
        http="httptools",
        access_log=False,
        log_level="warning",
        backlog=backlog,
        limit_concurrency=limit_concurrency,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )


def main() -> None:
    """Serve until the owner says or ends."""
    # What the app prints belongs in the log, where standard error goes already; the pipe is for answers.
    answers = os.dup(1)
    os.dup2(2, 1)
    orders = read_orders()
    order = next(orders)
    obey = None if order["obey"] is None else load_factory(order["obey"])
    following = Following(orders, answers, obey)
    threading.Thread(target=following.follow, name="headgate-owner", daemon=True).start()
    listener = socket.socket(fileno=order["socket"])
    app = load_factory(order["factory"])(order["configuration"])
    config = configure(app, **order["server"])
    following.server = server = AnnouncingServer(config, answers)
    server.run(sockets=[listener])


if __name__ == "__main__":
    main()
