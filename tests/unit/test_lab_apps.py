"""The services' engines: stock and Headgate differ in what their settings say and in nothing else."""

from __future__ import annotations

import pytest
from sqlalchemy import NullPool, QueuePool
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import async_sessionmaker
from starlette.exceptions import HTTPException

from headgate import AsyncLeasePool, LeasePool
from headgate.lab.apps import overload, ping, sleep
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


async def test_a_semaphore_lets_as_many_in_as_there_are_connections_and_refuses_the_next() -> None:
    get_session = overload.stock_session(async_sessionmaker(), 0.0)
    inside = [get_session() for _ in range(overload.CONNECTIONS)]
    for session in inside:
        await anext(session)
    with pytest.raises(HTTPException) as refusal:
        await anext(get_session())
    assert refusal.value.status_code == 503
    await inside[0].aclose()
    newcomer = get_session()
    await anext(newcomer)
    for session in (newcomer, *inside[1:]):
        await session.aclose()


async def test_without_a_semaphore_nobody_waits_for_a_session() -> None:
    get_session = overload.stock_session(async_sessionmaker(), None)
    inside = [get_session() for _ in range(overload.CONNECTIONS + 1)]
    for session in inside:
        await anext(session)
        await session.aclose()


def test_only_the_tuned_rival_answers_a_pool_timeout_with_503() -> None:
    settings = {"url": "postgresql://nobody@127.0.0.1:1/none", "stack": "stock"}
    assert PoolTimeoutError in overload.create_app({**settings, "refuses": True}).exception_handlers
    assert PoolTimeoutError not in overload.create_app(settings).exception_handlers


@pytest.mark.parametrize("stack", ["stock", "headgate"])
def test_both_stacks_serve_the_same_paths(stack: Stack) -> None:
    app = overload.create_app({"url": "postgresql://nobody@127.0.0.1:1/none", "stack": stack})
    paths = {getattr(route, "path", "") for route in app.routes}
    assert {"/ping", "/sleep", "/compute", "/update", "/three-reads"} <= paths
