"""The pytest plugin over PostgreSQL: what the drivers await is never foreign; a lease is held as long as it is."""

from __future__ import annotations

import pytest
from sqlalchemy.engine import URL

from .test_xray_plugin import ALL, OPTIONS

PROJECT = """
import asyncio
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from headgate import Database

URL = "{url}"


@pytest.fixture
async def stock():
    engine = create_async_engine(URL, pool_pre_ping=True, pool_size=1)
    async with AsyncSession(engine) as session:
        yield session
    await engine.dispose()


@pytest.fixture
async def leased():
    db = Database(URL, connections=2)
    async with db.async_session() as session:
        yield session
    await db.dispose_async()


async def read_and_wait(session):
    await session.execute(text("SELECT 1"))
    await asyncio.sleep(0.01)


async def write(session):
    await session.execute(text("CREATE TEMPORARY TABLE plugin_test (a int)"))


async def use_the_database_alone(session):
    await write(session)
    await asyncio.wait_for(session.execute(text("SELECT pg_sleep(0.01)")), 5)
    async with asyncio.timeout(5):
        async for _ in await session.stream(text("SELECT generate_series(1, 3000)")):
            pass
    await session.rollback()
    await session.execute(text("SELECT 1"))
    await (await session.connection()).invalidate()
    await session.rollback()
    await session.execute(text("SELECT 1"))
    await session.close()


async def test_stock_wrong(stock):
    await read_and_wait(stock)


async def test_stock_right(stock):
    await use_the_database_alone(stock)


async def test_leased_reading(leased):
    await read_and_wait(leased)


async def test_leased_wrong(leased):
    await write(leased)
    await asyncio.sleep(0.01)


async def test_leased_right(leased):
    await use_the_database_alone(leased)


async def test_leased_leak():
    db = Database(URL, connections=2)
    session = await db.async_session().__aenter__()
    await write(session)
    KEPT.append((db, session))


async def test_stock_cancelled(stock):
    task = asyncio.create_task(stock.execute(text("SELECT pg_sleep(5)")))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


KEPT = []


def test_last():
    import gc, warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        KEPT.clear()
        gc.collect()
"""


@pytest.mark.parametrize("driver", ["postgresql+asyncpg", "postgresql+psycopg"])
def test_over_postgresql(pytester: pytest.Pytester, postgres_url: URL, driver: str) -> None:
    url = postgres_url.set(drivername=driver).render_as_string(hide_password=False)
    pytester.makepyfile(test_it=PROJECT.replace("{url}", url))
    lines = (
        "[pytest]",
        "asyncio_mode = auto",
        "asyncio_default_fixture_loop_scope = function",
        f"headgate_xray = {ALL}",
    )
    pytester.makeini("\n".join(lines))
    recorder = pytester.inline_run(*OPTIONS)
    told = {
        report.nodeid.rpartition("::")[2]: report.longreprtext.splitlines()[2]
        for report in recorder.getreports("pytest_runtest_logreport")
        if report.failed
    }
    assert sorted(told) == ["test_leased_leak", "test_leased_wrong", "test_stock_wrong"]
    assert told["test_leased_leak"].startswith("leak: test_it.py:")
    assert told["test_leased_wrong"].endswith("in test_leased_wrong")
    assert told["test_stock_wrong"].endswith("in read_and_wait")
