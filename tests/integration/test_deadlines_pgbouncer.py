"""Deadlines through PgBouncer in transaction mode: the right statement is cancelled, and only that."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator

import pytest
from sqlalchemy import text
from sqlalchemy.engine import URL

from headgate import Overloaded, lane
from headgate.lab.connection import connect
from headgate.lab.postgres import EmbeddedPostgres

from .pgbouncer import prepare_server, require_pgbouncer, run_pgbouncer
from .pooled_service import documented_database

pytestmark = pytest.mark.timeout(90)


@pytest.fixture(scope="module")
def admin() -> Iterator[URL]:
    """A server with the page's role and database."""
    require_pgbouncer()
    with EmbeddedPostgres(max_connections=20) as postgres:
        prepare_server(postgres.url())
        yield postgres.url()


@pytest.fixture(scope="module")
def pooler(admin: URL) -> Iterator[URL]:
    """PgBouncer with two connections to the server."""
    with run_pgbouncer(admin, default_pool_size=2) as pooler:
        yield pooler


def count_running(admin: URL) -> int:
    with connect(admin) as connection:
        rows = connection.execute(
            b"SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep%' AND state = 'active' "
            b"AND pid <> pg_backend_pid()"
        )
        return int(rows.fetchone()[0])  # type: ignore[index]


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_statements_end_at_their_deadlines_and_hit_no_other(admin: URL, pooler: URL, driver: str) -> None:
    db = documented_database(driver, pooler)
    random_, ended = random.Random(3), []

    async def end_blocks() -> None:
        for _ in range(25):
            began_s = time.monotonic()
            try:
                with lane(deadline=0.02 + random_.random() / 10):
                    async with db.async_session() as session:
                        await session.execute(text("SELECT pg_sleep(20)"))
            except Overloaded as error:
                ended.append(error.reason)
            assert time.monotonic() - began_s < 3

    async def stand_by() -> int:
        for _ in range(150):
            async with db.async_session() as session:
                await session.execute(text("SELECT pg_sleep(0.002), count(*) FROM pg_class"))
        return 1

    try:
        await asyncio.gather(end_blocks(), end_blocks(), stand_by())
        assert ended == ["deadline"] * 50
        assert count_running(admin) == 0
        assert db.gate.statistics().in_use == 0
    finally:
        await db.dispose_async()
