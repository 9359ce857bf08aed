"""Requests and holds as the hooks would have made them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from sqlalchemy.pool import NullPool, QueuePool

from headgate.names import DATABASE, SEND
from headgate.xray.live import LiveHold, LiveRequest, PoolTally
from headgate.xray.observation import Site

HERE = Site("app.py", 41, "list_orders")
MS = 1_000_000


def make_scope(path: str = "/orders/17", template: str | None = "/orders/{id}", method: str = "GET") -> dict[str, Any]:
    """As an app leaves it; ``template`` None where no route was found."""
    scope: dict[str, Any] = {"type": "http", "method": method, "path": path, "query_string": b"secret=1", "headers": []}
    if template is not None:
        scope["route"] = SimpleNamespace(path=template)
    return scope


def make_request(
    scope: dict[str, Any] | None = None, *, total_ms: int = 100, database_ms: int = 60, status: int = 200
) -> LiveRequest:
    """One that has ended."""
    request = LiveRequest(make_scope() if scope is None else scope, 0)
    if database_ms:
        request.spend(DATABASE, 0, database_ms * MS)
    request.status = status
    request.enter(SEND, (total_ms - 1) * MS)
    request.leave(SEND, total_ms * MS)
    request.answered_ns = request.ended_ns = total_ms * MS
    return request


def make_tally(name: str | None = "main") -> PoolTally:
    """Of a pool that lives as long as the tests do."""
    pool = QueuePool(lambda: None, pool_size=5, max_overflow=10, logging_name=name)  # type: ignore[arg-type, return-value]
    _kept.append(pool)
    return PoolTally(pool)


def make_hold(
    pool: PoolTally, request: LiveRequest | None = None, *, held_ms: int = 60, waited_ms: int = 3
) -> LiveHold:
    """One that has ended."""
    hold = LiveHold(pool, request, HERE, 0, 0)
    hold.ended_ns = held_ms * MS
    hold.waited_ns = waited_ms * MS
    if request is not None:
        request.holds.append(hold)
    return hold


_kept: list[NullPool | QueuePool] = []
