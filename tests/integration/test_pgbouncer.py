"""Leases through PgBouncer in transaction mode, set up as docs/pgbouncer.md says: its blocks are what runs here."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, create_engine, insert, select, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from headgate import Database
from headgate.cli.main import main
from headgate.lab.connection import connect
from headgate.lab.environment import clean_environment
from headgate.lab.postgres import EmbeddedPostgres

from .pgbouncer import ROLE, prepare_server, require_pgbouncer, run_pgbouncer
from .pooled_service import POOLER, SERVER, Account, Base, Entry, Item, documented_database, make_app, make_item

pytestmark = pytest.mark.timeout(150)  # whichever test comes first starts a server, PgBouncer and four workers

TESTS = Path(__file__).parents[1]
DRIVERS = ("asyncpg", "psycopg")
MAX_CONNECTIONS, POOL, WORKERS = 20, 16, 4
CLIENTS, REQUESTS = 48, 300
ITEMS, ACCOUNTS = 50, 50
START_S, STOP_S = 60.0, 10.0
ROUNDS = 5
"""On a busy machine few requests are in the works at once; the workers' pools grow from round to round."""

SANE_S = 3.0
"""What half of the answers may take: far more than they do, far less than in a queue that nobody serves."""

TOO_MANY = ("too many clients already", "remaining connection slots are reserved")
"""What PostgreSQL says to the last ones, and to those who would take the superuser's places."""

GUARD_IS_OFF = "the server's guard against reads that write is off"

SETTINGS = text(
    "SELECT name, setting FROM pg_settings WHERE name NOT IN ('application_name', 'client_encoding') UNION ALL "
    "SELECT 'prepared statements', string_agg(name, ' ') FROM pg_prepared_statements UNION ALL "
    "SELECT 'advisory locks', string_agg(objid::text, ' ') FROM pg_locks WHERE locktype = 'advisory'"
)
"""Everything that a client could leave behind on a server connection; PgBouncer itself keeps the two left out."""


@dataclass(frozen=True, slots=True)
class Ground:
    """A server of 20 connections and the PgBouncer before it, both as the page's role reaches them."""

    admin: URL
    server: URL
    pooler: URL


@pytest.fixture(scope="module")
def ground() -> Iterator[Ground]:
    require_pgbouncer()
    with EmbeddedPostgres(max_connections=MAX_CONNECTIONS) as postgres:
        server = prepare_server(postgres.url())
        with plain_engine(server).begin() as connection:
            Base.metadata.create_all(connection)
            connection.execute(insert(Item), [make_item(number) for number in range(ITEMS)])
            connection.execute(insert(Account), [{"id": number, "balance": 0} for number in range(ACCOUNTS)])
        with run_pgbouncer(postgres.url()) as pooler:
            yield Ground(postgres.url(), server, pooler)


@pytest.fixture(scope="module")
def service(ground: Ground, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The service in four processes; its base URL."""
    urls = {SERVER: ground.server, POOLER: ground.pooler}
    environment = {name: url.render_as_string(hide_password=False) for name, url in urls.items()}
    with serve_in_workers(environment, tmp_path_factory.mktemp("service") / "log") as url:
        yield url


@pytest.fixture
def single(ground: Ground) -> Iterator[URL]:
    """A PgBouncer whose clients all share one server connection."""
    with run_pgbouncer(ground.admin, default_pool_size=1, max_db_connections=1) as url:
        yield url


@pytest.fixture
def fresh(ground: Ground) -> Iterator[None]:
    """The accounts are empty, and stock's connections, which it keeps, are gone before and after."""
    end_connections(ground)
    with plain_engine(ground.server).begin() as connection:
        connection.execute(text("TRUNCATE entry; UPDATE account SET balance = 0"))
    yield
    end_connections(ground)


def end_connections(ground: Ground) -> None:
    """End everybody's but the superuser's, PgBouncer's too."""
    query = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s"
    with connect(ground.admin) as connection:
        while connection.execute(query, [ROLE]).rowcount:
            time.sleep(0.01)


def plain_engine(url: URL) -> Engine:
    """SQLAlchemy's own, keeping nothing."""
    arguments = {"prepare_threshold": None}
    return create_engine(url.set(drivername="postgresql+psycopg"), poolclass=NullPool, connect_args=arguments)


@contextmanager
def serve_in_workers(environment: dict[str, str], log: Path) -> Iterator[str]:
    """uvicorn with four workers on a free port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    app = f"{make_app.__module__}:{make_app.__name__}"
    command = [sys.executable, "-m", "uvicorn", "--factory", app, "--workers", str(WORKERS), "--port", str(port)]
    with log.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(
            [*command, "--no-access-log", "--log-level", "warning"],
            cwd=TESTS,
            env=clean_environment() | environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        wait_for_workers(f"http://127.0.0.1:{port}/worker", process, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_S)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_for_workers(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    workers: set[int] = set()
    deadline_s = time.monotonic() + START_S
    while len(workers) < WORKERS:
        if process.poll() is not None or time.monotonic() > deadline_s:
            pytest.fail(f"{len(workers)} of {WORKERS} workers answer: {log.read_text(encoding='utf-8')[-2000:]}")
        with suppress(httpx.TransportError):
            workers.add(httpx.get(url).json())


@dataclass(frozen=True, slots=True)
class Answer:
    path: str
    status: int
    body: Any
    latency_s: float


async def storm(base: str, calls: list[tuple[str, str]]) -> list[Answer]:
    """Send all calls, from as many connections as there are clients, each sending its next when it has an answer."""
    todo, answers = iter(calls), []

    async def be_client(http: httpx.AsyncClient) -> None:
        for method, path in todo:
            began_s = time.monotonic()
            answer = await http.request(method, path)
            body = answer.json() if answer.status_code == 200 else answer.text
            answers.append(Answer(path, answer.status_code, body, time.monotonic() - began_s))

    limits = httpx.Limits(max_connections=CLIENTS, max_keepalive_connections=CLIENTS)
    async with httpx.AsyncClient(base_url=base, limits=limits, timeout=30) as http:
        await asyncio.gather(*(be_client(http) for _ in range(CLIENTS)))
    return answers


@asynccontextmanager
async def counting_connections(admin: URL) -> Any:
    """The numbers of the role's connections seen while the block runs."""
    seen: list[int] = []

    async def watch() -> None:
        engine = create_async_engine(admin.set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT")
        query = text("SELECT count(*) FROM pg_stat_activity WHERE usename = :role")
        try:
            async with engine.connect() as connection:
                while True:
                    seen.append(await connection.scalar(query, {"role": ROLE}) or 0)
                    await asyncio.sleep(0.02)
        finally:
            await engine.dispose()

    watcher = asyncio.create_task(watch())
    try:
        yield seen
    finally:
        watcher.cancel()
        with suppress(asyncio.CancelledError):
            await watcher


def settings_of(url: URL, connections: int = 1) -> dict[int, dict[str, str | None]]:
    """What holds on as many server connections at once, by the server's process."""
    engine, found = plain_engine(url), {}
    with ExitStack() as stack:
        for _ in range(connections):
            connection = stack.enter_context(engine.connect())
            pid = connection.scalar(text("SELECT pg_backend_pid()"))
            found[int(pid or 0)] = {row.name: row.setting for row in connection.execute(SETTINGS)}
    return found


# A service of four workers with 15 connections each


def expected_item(number: int) -> list[Any]:
    item = make_item(number)
    return [item["tags"], item["mood"].value, item["facts"]]


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("driver", DRIVERS)
def test_stock_gets_too_many_clients(ground: Ground, service: str, driver: str) -> None:
    calls = [("GET", f"/stock/{driver}/items/{number}") for number in range(CLIENTS)]
    errors: list[str] = []
    for _ in range(ROUNDS):
        errors += [answer.body for answer in asyncio.run(storm(service, calls)) if answer.status != 200]
        if any(words in body for body in errors for words in TOO_MANY):
            return
    pytest.fail(f"no answer told of too many connections; errors: {set(errors)}")


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("driver", DRIVERS)
async def test_leases_through_pgbouncer_answer_everything_and_right(ground: Ground, service: str, driver: str) -> None:
    reads = [("GET", f"/{way}/items/{number % ITEMS}") for number in range(REQUESTS // 4) for way in (driver, "sync")]
    writes = [("POST", f"/{driver}/accounts/{number % ACCOUNTS}") for number in range(REQUESTS // 2)]
    calls = random.sample(reads + writes, REQUESTS)
    async with counting_connections(ground.admin) as connections:
        answers = await storm(service, calls)

    assert [answer for answer in answers if answer.status != 200] == []
    assert len(answers) == REQUESTS
    wrong_reads = [a for a in answers if "/items/" in a.path and a.body != expected_item(number_in(a.path))]
    assert wrong_reads == []
    assert_every_deposit_counts(answers)
    assert connections
    assert max(connections) <= POOL < MAX_CONNECTIONS
    assert median(answer.latency_s for answer in answers) < SANE_S
    await asyncio.to_thread(assert_nothing_is_left_behind, ground)


def number_in(path: str) -> int:
    return int(path.rpartition("/")[2])


def assert_every_deposit_counts(answers: list[Answer]) -> None:
    """Each has seen its own entry before the commit, and all those before it."""
    entries: dict[str, list[int]] = defaultdict(list)
    for answer in answers:
        if "/accounts/" in answer.path:
            own, balance = answer.body
            entries[answer.path].append(own)
            assert balance >= own
    assert len(entries) == ACCOUNTS
    for found in entries.values():
        assert sorted(found) == list(range(1, REQUESTS // 2 // ACCOUNTS + 1))


def assert_nothing_is_left_behind(ground: Ground) -> None:
    (untouched,) = settings_of(ground.server).values()
    found = settings_of(ground.pooler, POOL)
    assert len(found) == POOL
    assert {name: s for settings in found.values() for name, s in settings.items() - untouched.items()} == {}


# What is left on a server connection that somebody else has next


async def use_async(db: Database) -> None:
    """Whatever a session may do, one after the other."""
    async with db.async_session() as session:
        assert (await session.get_one(Item, 1)).tags == ["t1", "x"]
        session.add(Entry(account_id=1))
        await session.commit()
        with suppress(DBAPIError):
            await session.execute(text("SELECT 1/0"))
        await session.rollback()
        await session.pin()
        await session.scalar(select(Item.mood))
    async with db.async_session(snapshot=True) as session:
        await session.scalar(select(Item.facts))
    async with db.async_engine.connect() as connection:
        await connection.get_raw_connection()  # an escape
        await connection.execute(insert(Entry), {"account_id": 1})
        await connection.commit()
    async with db.async_engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        await connection.execute(insert(Entry), {"account_id": 1})


def use_sync(db: Database) -> None:
    with db.session() as session:
        assert session.get_one(Item, 1).tags == ["t1", "x"]
        session.add(Entry(account_id=1))
        session.commit()
        with suppress(DBAPIError):
            session.execute(text("SELECT 1/0"))
        session.rollback()
        session.pin()
    with db.session(snapshot=True) as session:
        session.scalar(select(Item.facts))
    with db.engine.connect() as connection:
        connection.connection.cursor().execute("INSERT INTO entry (account_id) VALUES (1)")
        connection.commit()
    with db.engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        connection.execute(insert(Entry), {"account_id": 1})


@pytest.mark.parametrize("guard", [True, False])
@pytest.mark.parametrize("driver", DRIVERS)
async def test_a_session_leaves_nothing_on_a_shared_server_connection(single: URL, driver: str, guard: bool) -> None:
    (before,) = settings_of(single).items()
    db = documented_database(driver, single, guard=guard)
    await use_async(db)
    await asyncio.to_thread(use_sync, db)
    assert settings_of(single) == dict([before]), "the same server connection, as it was"
    await db.dispose_async()


# The guard, which PgBouncer does not let through


@pytest.mark.parametrize("ignored", ["", "default_transaction_read_only, options"])
@pytest.mark.parametrize("driver", DRIVERS)
async def test_the_guard_turns_itself_off_and_says_so_once(
    ground: Ground, driver: str, ignored: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="headgate.pool")
    with run_pgbouncer(ground.admin, **({"ignore_startup_parameters": ignored} if ignored else {})) as pooler:
        db = documented_database(driver, pooler, guard=True)
        for _ in range(3):
            async with db.async_session() as session, db.async_session() as other:
                await session.scalar(select(Item.tags))
                for writer in (session, other):
                    writer.add(Entry(account_id=1))
                    await writer.flush()
                    await writer.rollback()
        await db.dispose_async()
    assert [GUARD_IS_OFF in record.message for record in caplog.records] == [True]


@pytest.mark.parametrize("driver", DRIVERS)
async def test_every_one_of_the_first_connects_does_without_the_guard(ground: Ground, driver: str) -> None:
    db = documented_database(driver, ground.pooler, guard=True)

    async def read() -> object:
        async with db.async_session() as session:
            return await session.scalar(select(Item.id).where(Item.id == 1))

    try:
        assert await asyncio.gather(*(read() for _ in range(8))) == [1] * 8
    finally:
        await db.dispose_async()


# headgate plan


def test_plan_asks_the_server_for_its_limits(postgres: EmbeddedPostgres, capsys: pytest.CaptureFixture[str]) -> None:
    url = postgres.url().render_as_string(hide_password=False)
    assert main(["plan", "--rate", "100", "--hold", "10", "--database", url]) == 0
    assert "max_connections 320 - 3 reserved - 2 for others" in capsys.readouterr().out


def test_plan_minds_the_limit_of_a_role(postgres: EmbeddedPostgres, capsys: pytest.CaptureFixture[str]) -> None:
    with connect(postgres.url()) as connection:
        connection.execute("CREATE ROLE limited LOGIN PASSWORD 'x' CONNECTION LIMIT 7")
        try:
            url = postgres.url().set(username="limited", password="x").render_as_string(hide_password=False)
            assert main(["plan", "--rate", "100", "--hold", "10", "--database", url]) == 0
        finally:
            connection.execute("DROP ROLE limited")
    assert "7  CONNECTION LIMIT of the role or the database" in capsys.readouterr().out


def test_plan_says_in_one_line_that_no_server_answers(capsys: pytest.CaptureFixture[str]) -> None:
    url = "postgresql://app:secret@127.0.0.1:1/app"
    assert main(["plan", "--rate", "100", "--hold", "10", "--database", url]) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "127.0.0.1:1/app" in err
    assert "secret" not in err
