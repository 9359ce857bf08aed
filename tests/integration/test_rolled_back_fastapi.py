"""``rolled_back`` under FastAPI's TestClient, httpx's ASGITransport, pytest-asyncio and anyio's pytest plugin."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from textwrap import dedent
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, HTTPException
from sqlalchemy import URL, Engine, create_engine, func, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.pool import NullPool

from headgate import Database, LeaseError
from headgate.fastapi import AsyncSessionDep, AsyncTransactionDep, SessionDep, TransactionDep, install

with warnings.catch_warnings(action="ignore"):  # newer versions of Starlette would rather have httpx2
    from fastapi.testclient import TestClient

DRIVERS = ("asyncpg", "psycopg", "aiosqlite")


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "rolled_user"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)


@pytest.fixture(params=DRIVERS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> URL:
    """A database with an empty table of users, for each driver."""
    if request.param == "aiosqlite":
        return URL.create("sqlite", database=str(tmp_path / "app.db"))
    given: URL = request.getfixturevalue("postgres_url")
    return given.set(drivername=f"postgresql+{request.param}")


@pytest.fixture
def observer(url: URL, collected: None) -> Iterator[Engine]:
    """A connection of one's own to each question; and one that was not closed complains within its own test."""
    driver = "sqlite" if url.get_backend_name() == "sqlite" else "postgresql+psycopg"
    engine = create_engine(url.set(drivername=driver), poolclass=NullPool)
    Base.metadata.drop_all(engine)
    Base.metadata.create_all(engine)
    yield engine
    assert count_outside(engine) == 0, "something leaked out of the block"


@pytest.fixture
def db(url: URL, observer: Engine) -> Iterator[Database]:
    """The app's database; nothing may be leased at the end."""
    db = Database(url, max_wait=0.5)
    yield db
    assert db.gate.statistics().in_use == 0
    asyncio.run(db.dispose_async())


def count_outside(observer: Engine) -> int:
    with observer.connect() as connection:
        return connection.scalar(select(func.count()).select_from(User)) or 0


def make_app(db: Database) -> FastAPI:
    app = FastAPI()
    install(app, db)

    @app.post("/async/users", status_code=201)
    async def create_user_async(name: str, session: AsyncTransactionDep) -> int:
        user = User(name=name)
        session.add(user)
        try:
            await session.flush()
        except IntegrityError:
            raise HTTPException(409) from None
        return user.id

    @app.post("/sync/users", status_code=201)
    def create_user_sync(name: str, session: TransactionDep) -> int:
        user = User(name=name)
        session.add(user)
        try:
            session.flush()
        except IntegrityError:
            raise HTTPException(409) from None
        return user.id

    @app.get("/async/users")
    async def count_users_async(session: AsyncSessionDep) -> int:
        return await session.scalar(select(func.count()).select_from(User)) or 0

    @app.get("/sync/users")
    def count_users_sync(session: SessionDep) -> int:
        return session.scalar(select(func.count()).select_from(User)) or 0

    return app


def create_three(client: TestClient, kind: str) -> None:
    for name, status in (("ann", 201), ("bob", 201), ("ann", 409), ("eve", 201)):
        assert client.post(f"/{kind}/users", params={"name": name}).status_code == status
    assert client.get(f"/{kind}/users").json() == 3


@pytest.mark.parametrize("kind", ["async", "sync"])
def test_client_with_its_lifespan_inside_the_block(db: Database, observer: Engine, kind: str) -> None:
    for _ in range(2):
        with db.rolled_back(), TestClient(make_app(db)) as client:
            create_three(client, kind)
            assert count_outside(observer) == 0


@pytest.mark.parametrize("kind", ["async", "sync"])
def test_block_inside_the_clients_lifespan(db: Database, kind: str) -> None:
    with TestClient(make_app(db)) as client:
        for _ in range(2):
            with db.rolled_back():
                create_three(client, kind)
            assert client.get(f"/{kind}/users").json() == 0


def test_client_without_a_lifespan_runs_sync_endpoints(db: Database) -> None:
    with db.rolled_back():
        create_three(TestClient(make_app(db)), "sync")


def test_client_without_a_lifespan_has_a_loop_for_each_request(db: Database, url: URL) -> None:
    client = TestClient(make_app(db))
    with db.rolled_back():
        if url.drivername != "postgresql+asyncpg":
            create_three(client, "async")
            return
        assert client.get("/async/users").json() == 0
        assert client.get("/async/users").json() == 0
        assert client.post("/async/users", params={"name": "ann"}).status_code == 201
        with pytest.raises(LeaseError, match="with TestClient"):
            client.get("/async/users")


@pytest.mark.parametrize("order", ["rows first", "client first"])
def test_a_sync_test_prepares_rows_for_sync_endpoints(db: Database, order: str) -> None:
    def prepare() -> None:
        with db.transaction() as session:
            session.add(User(name="ann"))

    with db.rolled_back():
        if order == "rows first":
            prepare()
        with TestClient(make_app(db)) as client:
            if order == "client first":
                prepare()
            assert client.get("/sync/users").json() == 1
        with db.session() as session:
            assert session.scalar(select(User.name)) == "ann"


def test_a_sync_test_prepares_rows_for_async_endpoints(db: Database) -> None:
    async def prepare() -> None:
        async with db.async_transaction() as session:
            session.add(User(name="ann"))

    with db.rolled_back(), TestClient(make_app(db)) as client:
        assert client.portal is not None
        client.portal.call(prepare)
        assert client.get("/async/users").json() == 1
        with pytest.raises(LeaseError, match=r"client\.portal\.call"):
            client.get("/sync/users")


def test_an_open_session_of_the_test_sees_what_the_app_commits(db: Database) -> None:
    with db.rolled_back(), TestClient(make_app(db)) as client, db.session() as session:
        session.add(User(name="ann"))
        session.commit()
        assert session.scalar(select(func.count()).select_from(User)) == 1
        create = client.post("/sync/users", params={"name": "bob"})
        assert create.status_code == 201
        assert session.get_one(User, create.json()).name == "bob"
        session.rollback()
        assert client.get("/sync/users").json() == 2


def test_uncommitted_changes_of_the_test_are_named(db: Database) -> None:
    with db.rolled_back(), TestClient(make_app(db)) as client, db.session() as session:
        session.add(User(name="ann"))
        session.flush()
        with pytest.raises(LeaseError, match=r"test_rolled_back_fastapi\.py:\d+"):
            client.post("/sync/users", params={"name": "bob"})


@asynccontextmanager
async def client_of(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_asgi_transport_on_the_tests_own_loop(db: Database, observer: Engine, kind: str) -> None:
    async with db.rolled_back(), client_of(make_app(db)) as client:
        created = await asyncio.gather(
            *(client.post(f"/{kind}/users", params={"name": f"n{number}"}) for number in range(10))
        )
        assert {response.status_code for response in created} == {201}
        assert (await client.get(f"/{kind}/users")).json() == 10
        assert count_outside(observer) == 0
    async with client_of(make_app(db)) as client:
        assert (await client.get(f"/{kind}/users")).json() == 0
    await db.dispose_async()


async def test_the_tests_async_session_and_the_app_share_rows(db: Database) -> None:
    async with db.rolled_back(), client_of(make_app(db)) as client:
        async with db.async_transaction() as session:
            session.add(User(name="ann"))
        assert (await client.post("/async/users", params={"name": "ann"})).status_code == 409
        assert (await client.post("/async/users", params={"name": "bob"})).status_code == 201
        async with db.async_session() as session:
            assert list(await session.scalars(select(User.name).order_by(User.id))) == ["ann", "bob"]


def test_a_pool_filled_on_another_loop(db: Database, url: URL) -> None:
    async def count() -> int:
        async with db.async_session() as session:
            return await session.scalar(select(func.count()).select_from(User)) or 0

    async def count_in_a_block() -> int:
        async with db.rolled_back():
            return await count()

    with asyncio.Runner() as other:
        assert other.run(count()) == 0
        if url.drivername == "postgresql+asyncpg":
            with pytest.raises(LeaseError, match=r"another event loop before(?s:.*)db\.dispose_async"):
                asyncio.run(count_in_a_block())
        other.run(db.dispose_async())
    assert asyncio.run(count_in_a_block()) == 0


def test_a_server_that_loses_the_connection(db: Database, observer: Engine, url: URL) -> None:
    if url.get_backend_name() == "sqlite":
        pytest.skip("there is no server")
    with db.rolled_back():
        with db.transaction() as session:
            session.add(User(name="ann"))
        with db.session() as session:
            pid = session.scalar(text("SELECT pg_backend_pid()"))
        with observer.connect() as connection:
            connection.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
        with pytest.raises(Exception, match=r"terminat|closed"), db.session() as session:
            session.scalar(select(User))
        with pytest.raises(Exception, match="closed"), db.session() as session:
            session.scalar(select(User))
    with db.session() as session:
        assert session.scalar(select(User)) is None


PYTEST_ASYNCIO = ["-p", "no:anyio", "-o", "asyncio_default_fixture_loop_scope=function"]
CONFTEST = """
import os

import pytest
from headgate import Database
from headgate.testing import rolled_back_fixture
from sqlalchemy import text

db = Database(os.environ["TEST_URL"])
rolled_back = rolled_back_fixture(db, autouse=True)
"""

TESTS = """
import asyncio
import pytest
from conftest import db
from sqlalchemy import text

INSERT = text("INSERT INTO rolled_user (name) VALUES ('ann')")
COUNT = text("SELECT count(*) FROM rolled_user")

def add():
    with db.transaction() as session:
        assert session.scalar(COUNT) == 0
        session.execute(INSERT)
    with db.session() as session:
        assert session.scalar(COUNT) == 1

async def add_async():
    async with db.async_transaction() as session:
        assert await session.scalar(COUNT) == 0
        await session.execute(INSERT)
    async with db.async_session() as session:
        assert await session.scalar(COUNT) == 1

@pytest.mark.parametrize("time", range(2))
def test_sync(time):
    add()

@MARK
@pytest.mark.parametrize("time", range(2))
async def test_async(time):
    await add_async()

@MARK
@pytest.mark.parametrize("time", range(2))
async def test_sync_sessions_in_an_async_test(time):
    add()

@MARK
async def test_a_block_in_the_block():
    async with db.rolled_back():
        await add_async()
    await add_async()

def test_a_loop_of_ones_own():
    asyncio.run(add_async())
"""


@pytest.mark.parametrize(
    ("marks", "options"),
    [
        (["pytest.mark.asyncio", 'pytest.mark.asyncio(loop_scope="module")'], PYTEST_ASYNCIO),
        (["pytest.mark.anyio"], ["-p", "no:asyncio"]),
    ],
    ids=["pytest-asyncio", "anyio"],
)
def test_the_fixture(observer: Engine, url: URL, tmp_path: Path, marks: list[str], options: list[str]) -> None:
    conftest = CONFTEST
    if "pytest.mark.anyio" in marks:
        conftest += "\n\n@pytest.fixture\ndef anyio_backend():\n    return 'asyncio'\n"
    (tmp_path / "conftest.py").write_text(dedent(conftest), encoding="utf-8")
    for number, mark in enumerate(marks):
        (tmp_path / f"test_app_{number}.py").write_text(dedent(TESTS).replace("MARK", mark), encoding="utf-8")
    environment: dict[str, Any] = {"TEST_URL": url.render_as_string(hide_password=False), "PATH": ""}
    environment["PYTHONPATH"] = ":".join(sys.path)
    assert_passes(run_pytest(tmp_path, environment, "-W", "error", *options), 8 * len(marks))


def test_the_documentation(tmp_path: Path) -> None:
    text_ = (Path(__file__).parents[2] / "docs/testing.md").read_text(encoding="utf-8")
    for name, code in re.findall(r"```python\n# (\w+\.py)\n(.*?)```", text_, re.DOTALL):
        (tmp_path / name).write_text(code, encoding="utf-8")
    environment = {"PATH": "", "PYTHONPATH": ":".join(sys.path)}
    assert_passes(run_pytest(tmp_path, environment, "-p", "no:asyncio", "-k", "not trio"), 4)


def run_pytest(where: Path, environment: dict[str, str], *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, str(where)],
        cwd=where,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def assert_passes(done: subprocess.CompletedProcess[str], count: int) -> None:
    assert f"{count} passed" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 0, done.stdout + done.stderr
