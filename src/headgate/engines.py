"""lease(engine): an engine that exists gets a pool that leases."""

from __future__ import annotations

import logging
from typing import TypeVar

from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import AsyncAdaptedQueuePool, QueuePool

from headgate.config import LeaseOptions
from headgate.errors import ConfigError
from headgate.gate import Gate
from headgate.hooks import with_hooks
from headgate.pool import AsyncLeasePool, LeasePool

log = logging.getLogger("headgate.pool")

EngineT = TypeVar("EngineT", Engine, AsyncEngine)


def lease(engine: EngineT, *, options: LeaseOptions | None = None, gate: Gate | None = None) -> EngineT:
    """Make an engine that exists lease its connections; call it before the engine's first use.

    The budget is what the engine's pool allows (``pool_size + max_overflow``), the wait its ``pool_timeout``.
    Pools that hold one connection for everybody (in-memory SQLite) or none at all stay as they are.

    :param gate: a ``headgate.gate.Gate`` with a budget and a wait of its own.
    :returns: the same engine; unchanged with ``HEADGATE=off``.
    :raises ConfigError: the engine has been used already, its pool is unbounded, or ``gate`` is no ``Gate``.
    """
    if not isinstance(engine, Engine | AsyncEngine):
        raise ConfigError(f"lease(<{type(engine).__name__}>) cannot work: give an Engine or an AsyncEngine")
    sync_engine = engine.sync_engine if isinstance(engine, AsyncEngine) else engine
    pool = sync_engine.pool
    if isinstance(pool, LeasePool | AsyncLeasePool) and options is None and gate is None:
        return engine
    if not isinstance(pool, QueuePool):
        log.info("connections are not leased: the engine's pool is a %s", type(pool).__name__)
        with_hooks(pool, options or LeaseOptions())
        return engine
    if pool.checkedin() or pool.checkedout() or (isinstance(pool, LeasePool | AsyncLeasePool) and len(pool.places)):
        raise ConfigError(
            f"lease(engine) came too late: the engine has {pool.checkedin() + pool.checkedout()} open connections. "
            "Call it right after create_engine()."
        )
    kind = AsyncLeasePool if isinstance(pool, AsyncAdaptedQueuePool) else LeasePool
    if isinstance(pool, LeasePool | AsyncLeasePool):
        options, gate = options or pool.options, gate or pool.gate
    sync_engine.pool = kind.like(pool, lease_options=options, gate=gate)
    return engine
