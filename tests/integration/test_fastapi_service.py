"""FastAPI over uvicorn, a real PostgreSQL and a client that reads what it is sent."""

from __future__ import annotations

import asyncio
import gc
import os
import random
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from fastapi import BackgroundTasks, Depends, FastAPI, HTTPException
from fastapi.responses import StreamingResponse
from sqlalchemy import URL, Engine, create_engine, func, select, text
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from headgate import ConfigError, Database
from headgate.fastapi import (
    AsyncSessionDep,
    AsyncTransactionDep,
    SessionDep,
    TransactionDep,
    async_session_dep,
    get_async_session,
    install,
)

from .serving import serve

READS = 1000 if os.environ.get("HEADGATE_SOAK") == "1" else 200
CANCELLATIONS = 1000
ReportsDep = async_session_dep("reports")


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)


@pytest.fixture
def observer(postgres_url: URL) -> Iterator[Engine]:
    """Another client of the same database, with empty tables."""
    engine = create_engine(postgres_url.set(drivername="postgresql+psycopg"))
    Base.metadata.drop_all(engine)
    Base.metadata.create_all(engine)
    yield engine
    engine.dispose()


@pytest.fixture(params=["asyncpg", "psycopg"])
def async_driver(request: pytest.FixtureRequest) -> str:
    """The async driver under test."""
    return str(request.param)


def make_app(db: Database) -> FastAPI:
    app = FastAPI()
    install(app, db)

    async def current_user(session: AsyncSessionDep) -> User | None:
        return await session.scalar(select(User).order_by(User.id).limit(1))

    @app.post("/async/users", status_code=201)
    async def create_user_async(name: str, session: AsyncTransactionDep) -> dict[str, Any]:
        user = User(name=name)
        session.add(user)
        await session.flush()
        return {"id": user.id}

    @app.post("/sync/users", status_code=201)
    def create_user_sync(name: str, session: TransactionDep) -> dict[str, Any]:
        user = User(name=name)
        session.add(user)
        session.flush()
        return {"id": user.id}

    @app.get("/async/users")
    async def count_users_async(session: AsyncSessionDep) -> int:
        return await session.scalar(select(func.count()).select_from(User)) or 0

    @app.get("/sync/users")
    def count_users_sync(session: SessionDep) -> int:
        return session.scalar(select(func.count()).select_from(User)) or 0

    @app.post("/me")
    async def rename_me(
        name: str,
        session: AsyncTransactionDep,
        me: User = Depends(current_user),  # noqa: B008  # a local function can't stand in an annotation
    ) -> dict[str, bool]:
        me.name = name
        return {"same_session": me in session}

    @app.post("/refused")
    async def refuse(session: AsyncTransactionDep) -> None:
        session.add(User(name="refused"))
        await session.flush()
        raise HTTPException(409)

    @app.post("/slow")
    async def slow(session: AsyncTransactionDep) -> None:
        await session.scalars(select(User))
        await asyncio.sleep(random.random() / 200)
        session.add(User(name=str(random.random())))
        await session.flush()
        await asyncio.sleep(random.random() / 200)
        await session.execute(text("SELECT pg_sleep(0.002)"))

    return app


@pytest.mark.parametrize("mode", ["async", "sync"])
def test_a_row_is_visible_the_moment_its_201_has_been_read(
    postgres_url: URL, observer: Engine, async_driver: str, mode: str
) -> None:
    if mode == "sync" and async_driver == "psycopg":
        pytest.skip("the sync driver is psycopg either way")
    app = make_app(Database(postgres_url.set(drivername=f"postgresql+{async_driver}")))
    query = text("SELECT count(*) FROM users WHERE id = :id")
    missed = 0
    with serve(app) as url, httpx.Client(base_url=url) as client, observer.connect() as connection:
        connection = connection.execution_options(isolation_level="AUTOCOMMIT")
        for number in range(READS):
            response = client.post(f"/{mode}/users", params={"name": f"n{number}"})
            assert response.status_code == 201
            missed += connection.scalar(query, {"id": response.json()["id"]}) != 1
    assert missed == 0


def test_a_dependency_and_its_endpoint_share_one_session(postgres_url: URL, observer: Engine) -> None:
    app = make_app(Database(postgres_url.set(drivername="postgresql+asyncpg")))
    with serve(app) as url:
        httpx.post(f"{url}/sync/users", params={"name": "old"})
        assert httpx.post(f"{url}/me", params={"name": "new"}).json() == {"same_session": True}
    with observer.connect() as connection:
        assert connection.scalar(text("SELECT name FROM users")) == "new"


def test_a_failed_request_leaves_nothing(postgres_url: URL, observer: Engine) -> None:
    app = make_app(Database(postgres_url.set(drivername="postgresql+asyncpg")))
    with serve(app) as url:
        assert httpx.post(f"{url}/refused").status_code == 409
        assert httpx.get(f"{url}/async/users").json() == 0


def test_a_commit_that_fails_is_an_error_and_no_201(postgres_url: URL, observer: Engine) -> None:
    with observer.begin() as connection:
        connection.execute(text("ALTER TABLE users DROP CONSTRAINT users_name_key"))
        connection.execute(text("ALTER TABLE users ADD UNIQUE (name) DEFERRABLE INITIALLY DEFERRED"))
    app = make_app(Database(postgres_url.set(drivername="postgresql+asyncpg")))
    with serve(app) as url:
        for mode in ("async", "sync"):
            assert httpx.post(f"{url}/{mode}/users", params={"name": mode}).status_code == 201
            assert httpx.post(f"{url}/{mode}/users", params={"name": mode}).status_code == 500
        assert httpx.get(f"{url}/async/users").json() == 2


async def call(app: FastAPI, method: str, path: str) -> int:
    """One request without a server, so that it can be cancelled at any await."""
    status = 0

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        nonlocal status
        status = message.get("status", status)

    scope = {"type": "http", "method": method, "path": path, "headers": [], "query_string": b""}
    await app(scope, receive, send)
    return status


# A connect that is cancelled in its last moment is closed by the drivers when it is collected, with a warning.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
async def test_a_thousand_random_cancellations_leave_nothing_out(
    postgres_url: URL, observer: Engine, async_driver: str
) -> None:
    db = Database(postgres_url.set(drivername=f"postgresql+{async_driver}"), connections=5, max_wait=5)
    app = make_app(db)
    chance = random.Random(7)

    async def cancel_at_random() -> bool:
        request = asyncio.create_task(call(app, "POST", "/slow"))
        await asyncio.sleep(chance.random() * 0.03)
        request.cancel()
        return isinstance((await asyncio.gather(request, return_exceptions=True))[0], asyncio.CancelledError)

    cancelled = 0
    for _ in range(CANCELLATIONS // 20):
        cancelled += sum(await asyncio.gather(*(cancel_at_random() for _ in range(20))))
    assert cancelled > CANCELLATIONS / 2, "the point is to hit requests in the middle"
    now = db.gate.statistics()
    assert (now.in_use, now.pending) == (0, 0)
    assert await call(app, "GET", "/async/users") == 200
    gc.collect()
    states = list(connection_states(observer))
    for _ in range(500):  # the server takes a moment to notice the last connections that were cut off
        if len(states) <= 5:
            break
        await asyncio.sleep(0.01)
        states = list(connection_states(observer))
    assert len(states) <= 5
    assert set(states) <= {"idle"}
    await db.dispose_async()


def connection_states(observer: Engine) -> list[str]:
    """The states of everybody else's connections to the test's database."""
    query = "SELECT state FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    with observer.connect() as connection:
        return list(connection.execute(text(query)).scalars())


async def test_a_full_database_answers_503_with_retry_after(postgres_url: URL, observer: Engine) -> None:
    db = Database(postgres_url.set(drivername="postgresql+asyncpg"), name="default", connections=1, max_wait=0.05)
    app = make_app(db)
    async with db.async_session() as holder:
        await holder.pin()
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            response = await client.get("/async/users")
    assert response.status_code == 503
    assert response.headers["content-type"] == "application/problem+json"
    assert int(response.headers["retry-after"]) >= 1
    problem = response.json()
    assert (problem["status"], problem["database"], problem["reason"]) == (503, "default", "deadline")
    assert ".py" not in response.text, "lines of the app are for the log"
    await db.dispose_async()


def test_the_session_of_a_committed_transaction_is_closed_for_good(postgres_url: URL, observer: Engine) -> None:
    """A write after the commit must be an error, not a lost row."""
    app = make_app(Database(postgres_url.set(drivername="postgresql+asyncpg")))
    said: list[str] = []

    @app.post("/late", status_code=201)
    async def write_late(session: AsyncTransactionDep, tasks: BackgroundTasks) -> None:
        async def write() -> None:
            try:
                session.add(User(name="late"))
                await session.commit()
            except InvalidRequestError as error:
                said.append(str(error))

        tasks.add_task(write)

    with serve(app) as url:
        assert httpx.post(f"{url}/late").status_code == 201
        assert httpx.get(f"{url}/async/users").json() == 0
    assert len(said) == 1
    assert "closed" in said[0]


def test_a_streaming_response_reads_with_the_request_session(postgres_url: URL, observer: Engine) -> None:
    app = make_app(Database(postgres_url.set(drivername="postgresql+asyncpg"), connections=1))

    @app.get("/stream")
    async def stream(session: AsyncSessionDep) -> StreamingResponse:
        async def rows() -> AsyncIterator[str]:
            for _ in range(3):
                yield f"{await session.scalar(select(func.count()).select_from(User))}\n"

        return StreamingResponse(rows())

    with serve(app) as url:
        assert httpx.get(f"{url}/stream").text == "0\n0\n0\n"


def test_mounted_apps_other_names_and_overrides(postgres_url: URL, observer: Engine) -> None:
    url_ = postgres_url.set(drivername="postgresql+asyncpg")
    app, mounted = make_app(Database(url_)), FastAPI()
    install(app, Database(url_, name="reports"))
    app.mount("/inner", mounted)

    @mounted.get("/users")
    async def count(session: AsyncSessionDep, other: ReportsDep) -> list[int | None]:
        query = select(func.count()).select_from(User)
        return [await session.scalar(query), await other.scalar(query)]

    class Fake:
        async def scalar(self, _: Any) -> int:
            return 42

    with serve(app) as url:
        assert httpx.get(f"{url}/inner/users").json() == [0, 0]
        app.dependency_overrides[get_async_session] = Fake
        assert httpx.get(f"{url}/async/users").json() == 42


def test_an_app_does_not_start_without_its_database(postgres_url: URL) -> None:
    app = FastAPI()
    install(app, Database(postgres_url.set(drivername="postgresql+asyncpg", port=1, password="secret")))
    with pytest.raises(RuntimeError, match="did not start"), serve(app):
        pytest.fail("it started")


async def test_the_start_up_error_names_the_server_and_not_the_password(postgres_url: URL) -> None:
    for driver in ("asyncpg", "psycopg"):
        db = Database(postgres_url.set(drivername=f"postgresql+{driver}", port=1, password="secret"))
        with pytest.raises(ConfigError) as caught:
            await db.check()
        assert "127.0.0.1:1/" in str(caught.value)
        assert "secret" not in str(caught.value)
        assert "\n" not in str(caught.value)
        assert "secret" not in repr(db)


def test_sync_and_async_sessions_share_one_budget(postgres_url: URL, observer: Engine) -> None:
    """Idle connections of one kind make room for the other; the server never sees more than the budget."""
    db = Database(postgres_url.set(drivername="postgresql+asyncpg"), connections=2, max_wait=20)
    app = make_app(db)
    query = text("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()")

    async def mixed(client: httpx.AsyncClient) -> None:
        paths = ["/sync/users", "/async/users"] * 20
        answers = await asyncio.gather(*(client.get(path) for path in paths))
        assert {answer.status_code for answer in answers} == {200}

    async def run(url: str) -> None:
        async with httpx.AsyncClient(base_url=url, timeout=20) as client:
            await asyncio.gather(*(mixed(client) for _ in range(3)))

    with serve(app) as url, observer.connect() as connection:
        asyncio.run(run(url))
        seen = connection.scalar(query)
        assert seen is not None
        assert seen <= 2
        assert db.gate.statistics().in_use == 0


async def test_a_sync_session_makes_room_for_itself_where_the_server_has_closed_an_async_connection(
    postgres_url: URL, observer: Engine, async_driver: str
) -> None:
    db = Database(postgres_url.set(drivername=f"postgresql+{async_driver}"), connections=1)
    async with db.async_session() as session:
        await session.execute(text("SELECT 1"))
    with observer.connect() as connection:
        end = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
        connection.execute(text(end + "WHERE datname = current_database() AND pid <> pg_backend_pid()"))
    await asyncio.sleep(0.05)  # the loop reads the end of the connection
    with db.session() as sync_session:
        assert sync_session.scalar(text("SELECT 1")) == 1
    await db.dispose_async()


def test_a_sync_session_inside_async_code_is_refused_before_it_stops_the_loop(
    postgres_url: URL, observer: Engine
) -> None:
    db = Database(postgres_url.set(drivername="postgresql+asyncpg"), connections=1)
    app = FastAPI()
    install(app, db)

    @app.get("/wrong")
    async def wrong(session: SessionDep) -> str:
        async with db.async_session() as holder:
            await holder.pin()
            try:
                session.scalar(text("SELECT 1"))
            except Exception as error:
                return f"{type(error).__name__}: {error}"
        return "it waited"

    with serve(app) as url:
        answer = httpx.get(f"{url}/wrong").json()
    assert answer.startswith("LeaseError")
    assert "async session" in answer
