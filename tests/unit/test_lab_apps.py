"""The services' engines: stock and Headgate differ in what their settings say and in nothing else."""

from __future__ import annotations

import pytest
from sqlalchemy import NullPool, QueuePool

from headgate import AsyncLeasePool, LeasePool
from headgate.lab.apps import ping, sleep
from headgate.lab.results import Stack


def sleep_settings(stack: Stack) -> sleep.Settings:
    url = "postgresql://nobody@127.0.0.1:1/none"
    return sleep.Settings(url=url, stack=stack, sleep_s=2.0, pool_timeout_s=30.0)


def ping_settings(stack: Stack, connections: int | None) -> ping.Settings:
    return ping.Settings(path="none.db", stack=stack, connections=connections, pool_timeout_s=30.0, sleep_s=1.0)


def test_stock_sleep_has_default_pools() -> None:
    engine, async_engine = sleep.make_engines(sleep_settings("stock"))
    for pool in (engine.pool, async_engine.pool):
        assert isinstance(pool, QueuePool)
        assert not isinstance(pool, LeasePool | AsyncLeasePool)
        assert (pool.size(), pool._max_overflow, pool.timeout()) == (5, 10, 30.0)


def test_headgate_sleep_leases_from_pools_as_large() -> None:
    engine, async_engine = sleep.make_engines(sleep_settings("headgate"))
    assert isinstance(engine.pool, LeasePool)
    assert isinstance(async_engine.pool, AsyncLeasePool)
    assert engine.pool.gate.connections == async_engine.pool.gate.connections == 15


@pytest.mark.parametrize(("connections", "size", "overflow"), [(15, 5, 10), (2, 2, 0), (8, 5, 3)])
def test_ping_has_the_pool_it_was_told(connections: int, size: int, overflow: int) -> None:
    engine, _ = ping.make_engines(ping_settings("stock", connections))
    assert isinstance(engine.pool, QueuePool)
    assert (engine.pool.size(), engine.pool._max_overflow) == (size, overflow)


def test_ping_without_a_bound_has_a_null_pool() -> None:
    engine, async_engine = ping.make_engines(ping_settings("stock", None))
    assert isinstance(engine.pool, NullPool)
    assert isinstance(async_engine.pool, NullPool)


def test_headgate_ping_has_the_budget_it_was_told() -> None:
    _, async_engine = ping.make_engines(ping_settings("headgate", 2))
    assert isinstance(async_engine.pool, AsyncLeasePool)
    assert async_engine.pool.gate.connections == 2
