"""The process of a service: one uvicorn worker on a socket it was given.

`lifeline` describes its pipes. The order names the factory, its configuration and the socket's descriptor.
"""

from __future__ import annotations

import importlib
import json
import os
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any

import uvicorn

_GRACE_SECONDS = 2
# A connection the generator keeps must not be closed under it between two waves of an arm.
_KEEP_ALIVE_SECONDS = 75


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


def follow_owner(server: uvicorn.Server, answers: int, obey: Obey | None) -> None:
    """Answer the owner's orders; stop gracefully when it says so, at once when it is gone."""
    for line in sys.stdin:
        order = json.loads(line)
        if obey is None or order["do"] == "stop":
            server.should_exit = True
        else:
            answer(answers, obey(order))
    # Nothing is left to wait for, and a thread cannot end the process in a kinder way.
    os._exit(1)


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
    order = json.loads(sys.stdin.readline())
    listener = socket.socket(fileno=order["socket"])
    app = load_factory(order["factory"])(order["configuration"])
    config = configure(app, backlog=order["backlog"], limit_concurrency=order["limit_concurrency"], loop=order["loop"])
    server = AnnouncingServer(config, answers)
    obey = None if order["obey"] is None else load_factory(order["obey"])
    arguments = (server, answers, obey)
    threading.Thread(target=follow_owner, args=arguments, name="headgate-owner", daemon=True).start()
    server.run(sockets=[listener])


if __name__ == "__main__":
    main()
