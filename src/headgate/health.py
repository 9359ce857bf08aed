"""Health routes: ``live`` says that the process answers, ``ready`` whether it should be sent more work."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from headgate.admission import lane
from headgate.asgi import SCOPE_KEY
from headgate.config import Clock
from headgate.database import Database
from headgate.errors import HeadgateError

CHECK_TIMEOUT_S: Final = 1.0
"""A database that takes longer to answer ``SELECT 1`` is not ready."""

CHECK_AGAIN_NS: Final = 1_000_000_000
"""Probes that come more often are answered with the last result."""

READY = "ready"


def health_router(*, live: str = "/live", ready: str = "/ready", clock: Clock = time.monotonic_ns) -> APIRouter:
    """Two routes for load balancers and orchestrators: ``app.include_router(health_router())``.

    ``live`` is 200 as long as the event loop turns, whatever the database does: restarting the process would not
    help. ``ready`` is 503 while a gate is overloaded or its database does not answer within a second, so that the
    work goes to other processes; it asks in the high lane, once a second at most. They say one word, and ``ready`` one
    more for each database: ``ready``, ``overloaded`` or ``disconnected``.

    :param live: the path of the one.
    :param ready: the path of the other.
    """
    router = APIRouter(include_in_schema=False)
    checks: dict[str, _Check] = {}

    async def is_live() -> Response:
        return _answer({"status": "live"})

    async def is_ready(request: Request) -> Response:
        databases: dict[str, Database] = request.scope.get(SCOPE_KEY, {})
        states = {name: await checks.setdefault(name, _Check(db, clock)).state() for name, db in databases.items()}
        return _answer({"status": READY if set(states.values()) <= {READY} else "not ready", "databases": states})

    router.add_api_route(live, is_live, methods=["GET"])
    router.add_api_route(ready, is_ready, methods=["GET"])
    return router


class _Check:
    """What one database has answered last; asked by one probe at a time."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock
        self._lock = asyncio.Lock()
        self._asked_ns: int | None = None
        self._answers = False

    async def state(self) -> str:
        """``ready``, ``overloaded`` or ``disconnected``."""
        if self._db.gate.is_overloaded:
            return "overloaded"
        async with self._lock:
            if self._asked_ns is None or self._clock() - self._asked_ns >= CHECK_AGAIN_NS:
                self._answers = await _does_answer(self._db)
                self._asked_ns = self._clock()
        return READY if self._answers else "disconnected"


async def _does_answer(db: Database) -> bool:
    try:
        with lane("high", deadline=CHECK_TIMEOUT_S):
            async with asyncio.timeout(CHECK_TIMEOUT_S):
                await db.check()
    except (TimeoutError, HeadgateError):
        return False
    return True


def _answer(content: dict[str, object]) -> Response:
    status = 200 if content["status"] in ("live", READY) else 503
    return Response(json.dumps(content), status_code=status, media_type="application/json")
