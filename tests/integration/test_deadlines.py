"""Deadlines and clients that go away, through a real uvicorn: the server stops working for an answer nobody wants."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from fastapi import BackgroundTasks, FastAPI
from fastapi.responses import StreamingResponse
from sqlalchemy import URL, create_engine, text
from sqlalchemy.orm import Session
from starlette.middleware.base import BaseHTTPMiddleware

from headgate import Database, LeasePool, Overloaded, disconnects, lane
from headgate.admission import Admission, current_admission
from headgate.config import DeadlineOptions
from headgate.fastapi import AsyncSessionDep, AsyncTransactionDep, Deadline, SessionDep, TransactionDep, install

from .failing_world import INSERT, READ, Deed, World, database_of, world_of
from .serving import serve
from .witness import BUSY, PostgresWitness, async_becomes, becomes

SLEEP = text("SELECT count(*) FROM (SELECT pg_sleep(30)) AS nap")
LONG_READ = text("SELECT count(*) FROM generate_series(1, 400000000) AS number")
SOAK = bool(os.environ.get("HEADGATE_SOAK"))
_numbers = itertools.count()


@pytest.fixture
def witness(postgres_url: URL) -> Iterator[PostgresWitness]:
    """A name of its own for each test's application."""
    witness = PostgresWitness(postgres_url, f"deadlines{next(_numbers)}")
    yield witness
    witness.ask("TRUNCATE deed")
    witness.close()


@pytest.fixture(params=["asyncpg", "psycopg"])
def db(request: pytest.FixtureRequest, postgres_url: URL, witness: PostgresWitness) -> Database:
    return database_of(postgres_url, request.param, witness.application)


def app_of(db: Database, **options: Any) -> FastAPI:
    """Endpoints of both kinds that run for ever unless somebody stops them."""
    app = FastAPI()
    install(app, db, deadlines=DeadlineOptions(header="X-Timeout-Ms", **options))

    @app.get("/read")
    async def read(session: AsyncSessionDep) -> int:
        return int((await session.execute(LONG_READ)).scalar_one())

    @app.get("/read-sync")
    def read_sync(session: SessionDep) -> int:
        return int(session.execute(LONG_READ).scalar_one())

    @app.get("/nap")
    async def nap(session: AsyncSessionDep) -> int:
        return int((await session.execute(SLEEP)).scalar_one())

    @app.get("/nap-sync")
    def nap_sync(session: SessionDep) -> int:
        return int(session.execute(SLEEP).scalar_one())

    @app.get("/stream")
    async def stream(session: AsyncSessionDep) -> int:
        rows = await session.stream(text("SELECT number, pg_sleep(0.01) FROM generate_series(1, 3000) AS number"))
        return len([row async for row in rows])

    @app.post("/write/{name}")
    async def write(name: str, session: AsyncTransactionDep) -> str:
        await session.execute(INSERT, {"id": name, "note": ""})
        await session.execute(SLEEP)
        return name

    @app.post("/write-sync/{name}")
    def write_sync(name: str, session: TransactionDep) -> str:
        session.execute(INSERT, {"id": name, "note": ""})
        session.execute(SLEEP)
        return name

    @app.get("/quick")
    async def quick(session: AsyncSessionDep) -> int:
        return int((await session.execute(text("SELECT 1"))).scalar_one())

    @app.get("/quick-sync")
    def quick_sync(session: SessionDep) -> int:
        return int(session.execute(text("SELECT 1")).scalar_one())

    return app


READS = ("/read", "/read-sync", "/nap", "/nap-sync", "/stream")
WRITES = ("/write/{}", "/write-sync/{}")


@contextmanager
def asking(url: str, path: str, method: str = "GET", more: str = "\r\n") -> Iterator[socket.socket]:
    """A request of a client that leaves at the end of the block."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as client:
        client.sendall(f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n{more}".encode())
        yield client


def count_working(witness: PostgresWitness) -> int:
    """How many statements run that run long; the driver's own questions are over before anybody sees them."""
    rows = witness.ask(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s AND state = 'active' "
        "AND query ~ 'pg_sleep|generate_series|FETCH'",
        witness.application,
    )
    return int(rows[0][0])


def is_working(witness: PostgresWitness) -> bool:
    return count_working(witness) > 0


def is_quiet(db: Database, witness: PostgresWitness) -> bool:
    now, states = db.gate.statistics(), witness.states()
    return (now.in_use, now.warm, now.pending) == (0, 0, 0) and not any(states[state] for state in BUSY)


def must_become_quiet(db: Database, witness: PostgresWitness) -> None:
    assert becomes(lambda: is_quiet(db, witness)), (db.gate, witness.states())


@pytest.mark.parametrize("path", READS)
def test_a_read_ends_with_its_client(db: Database, witness: PostgresWitness, path: str) -> None:
    with serve(app_of(db)) as url:
        with asking(url, path):
            assert becomes(lambda: is_working(witness))
            time.sleep(0.05)
            pids = backends(witness)
        left_s = time.monotonic()
        assert becomes(lambda: not is_working(witness), 3)
        assert time.monotonic() - left_s < 0.5
        must_become_quiet(db, witness)
        assert backends(witness) == pids  # its connection was not thrown away
        assert [httpx.get(url + quick).status_code for quick in ("/quick", "/quick-sync")] == [200, 200]
        db.dispose()


def backends(witness: PostgresWitness) -> set[int]:
    rows = witness.ask("SELECT pid FROM pg_stat_activity WHERE application_name = %s", witness.application)
    return {pid for (pid,) in rows}


@pytest.mark.parametrize("path", [*READS, *WRITES])
def test_a_statement_ends_at_the_deadline(db: Database, witness: PostgresWitness, path: str) -> None:
    with serve(app_of(db)) as url:
        httpx.get(f"{url}/quick")
        method = "POST" if path in WRITES else "GET"
        began_s = time.monotonic()
        answer = httpx.request(method, url + path.format("late"), headers={"X-Timeout-Ms": "300"})
        assert 0.25 < time.monotonic() - began_s < 0.6
        assert answer.status_code == 503, answer.text
        assert answer.json()["reason"] == "deadline"
        assert answer.json()["safe_to_retry"] is False
        must_become_quiet(db, witness)
        assert len(backends(witness)) <= 2
        assert witness.count("late") == 0
        assert [httpx.get(url + quick).status_code for quick in ("/quick", "/quick-sync")] == [200, 200]
        db.dispose()


def test_a_write_goes_on_without_its_client(db: Database, witness: PostgresWitness) -> None:
    app = app_of(db)

    @app.post("/short")
    async def short(session: AsyncTransactionDep) -> None:
        await session.execute(INSERT, {"id": "short", "note": ""})
        await session.execute(text("SELECT pg_sleep(0.6)"))

    with serve(app) as url:
        with asking(url, "/short", "POST"):
            assert becomes(lambda: is_working(witness))
        assert becomes(lambda: witness.count("short") == 1)
        must_become_quiet(db, witness)
        db.dispose()


def test_methods_can_be_given_up_too(db: Database, witness: PostgresWitness) -> None:
    with serve(app_of(db, stop_when_gone=frozenset({"POST"}))) as url:
        with asking(url, "/write/gone", "POST"), asking(url, "/nap"):
            assert becomes(lambda: count_working(witness) == 2)
        assert becomes(lambda: count_working(witness) == 1, 1)
        assert not becomes(lambda: count_working(witness) == 0, 0.3)
        witness.kill()
        assert witness.count("gone") == 0
        db.dispose()


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_the_queued_requests_of_gone_clients_are_dropped_unserved(
    db: Database, witness: PostgresWitness, method: str
) -> None:
    app, served = app_of(db), []

    @app.api_route("/queued", methods=["GET", "POST"])
    async def queued(session: AsyncSessionDep) -> None:
        await session.execute(text("SELECT 1"))
        served.append("async")

    @app.api_route("/queued-sync", methods=["GET", "POST"])
    def queued_sync(session: SessionDep) -> None:
        session.execute(text("SELECT 1"))
        served.append("sync")

    with serve(app) as url, asking(url, "/nap"), asking(url, "/nap-sync"):
        assert becomes(lambda: count_working(witness) == 2)
        with asking(url, "/queued", method), asking(url, "/queued-sync", method):
            assert becomes(lambda: db.gate.statistics().pending == 2)
        left_s = time.monotonic()
        assert becomes(lambda: db.gate.statistics().pending == 0, 2)
        assert time.monotonic() - left_s < 0.5
        assert db.gate.statistics().dropped == {"gone": 2}, (db.gate.statistics(), served, witness.states())
        witness.kill()
        must_become_quiet(db, witness)
        assert served == []
        db.dispose()


def test_a_stream_ends_with_its_client(db: Database, witness: PostgresWitness) -> None:
    app = app_of(db)

    @app.get("/rows")
    async def rows(session: AsyncSessionDep) -> StreamingResponse:
        async def lines() -> Any:
            yield "first\n"
            await session.execute(SLEEP)
            yield "never\n"

        return StreamingResponse(lines())

    with serve(app) as url:
        with asking(url, "/rows") as client:
            assert becomes(lambda: is_working(witness))
            time.sleep(0.2)
            assert is_working(witness)
            assert b"first" in client.recv(10_000)
        left_s = time.monotonic()
        assert becomes(lambda: not is_working(witness), 3)
        assert time.monotonic() - left_s < 0.5
        must_become_quiet(db, witness)
        db.dispose()


def test_what_runs_after_the_answer_is_left_alone(db: Database, witness: PostgresWitness) -> None:
    app = app_of(db)

    async def write(name: str) -> None:
        async with db.async_transaction() as session:
            await session.execute(text("SELECT pg_sleep(0.6)"))
            await session.execute(INSERT, {"id": name, "note": ""})

    @app.get("/later")
    async def later(tasks: BackgroundTasks, session: AsyncSessionDep) -> str:
        tasks.add_task(write, "later")
        return str(await session.scalar(text("SELECT 'soon'")))

    with serve(app) as url:
        with asking(url, "/later", more="X-Timeout-Ms: 400\r\n\r\n") as client:
            answer = b""
            while b"soon" not in answer:
                answer += client.recv(10_000)
        assert becomes(lambda: witness.count("later") == 1)
        must_become_quiet(db, witness)
        db.dispose()


class Between(BaseHTTPMiddleware):
    """As many applications have one."""

    async def dispatch(self, request: Any, call_next: Any) -> Any:
        return await call_next(request)


@pytest.mark.parametrize("is_outside", [True, False])
@pytest.mark.parametrize("path", ["/nap", "/nap-sync", "/body"])
def test_another_middleware_between(db: Database, witness: PostgresWitness, path: str, is_outside: bool) -> None:
    app = FastAPI()
    if not is_outside:
        app.add_middleware(Between)
    app.mount("/", inner := app_of(db, stop_when_gone=frozenset({"GET", "POST"})))
    install(app, db, deadlines=DeadlineOptions(stop_when_gone=frozenset({"GET", "POST"})))
    if is_outside:
        app.add_middleware(Between)

    @inner.post("/body")
    async def body(words: list[str], session: AsyncSessionDep) -> None:
        assert words == ["here"]
        await session.execute(SLEEP)

    with serve(app) as url:
        given = 'Content-Type: application/json\r\nContent-Length: 8\r\n\r\n["here"]'
        with asking(url, path, *(("POST", given) if path == "/body" else ())):
            assert becomes(lambda: is_working(witness))
            time.sleep(0.25)
            assert is_working(witness)
        left_s = time.monotonic()
        assert becomes(lambda: not is_working(witness), 3)
        assert time.monotonic() - left_s < 0.5
        must_become_quiet(db, witness)
        db.dispose()


def test_a_route_has_its_own_deadline(db: Database, witness: PostgresWitness) -> None:
    app = app_of(db, seconds=20)

    @app.get("/own", dependencies=[Deadline(0.3)])
    async def own(session: AsyncSessionDep) -> None:
        await session.execute(SLEEP)

    @app.get("/caught", dependencies=[Deadline(0.3)])
    async def caught(session: AsyncSessionDep) -> str:
        try:
            await session.execute(SLEEP)
        except Overloaded as error:
            return error.reason
        return "never"

    with serve(app) as url:
        began_s = time.monotonic()
        assert httpx.get(f"{url}/own").status_code == 503
        assert httpx.get(f"{url}/caught").json() == "deadline"
        assert time.monotonic() - began_s < 1.2
        must_become_quiet(db, witness)
        db.dispose()


def test_clients_that_leave_at_any_moment_leak_nothing(db: Database, witness: PostgresWitness) -> None:
    random_ = random.Random(4)
    paths = [*READS, "/quick", "/quick-sync", "/quick", "/quick-sync", *WRITES]
    with serve(app_of(db)) as url:
        with ExitStack() as clients:
            for number in range(300):
                path = random_.choice(paths)
                method, name = "POST" if path in WRITES else "GET", f"any{number}"
                deadline = f"X-Timeout-Ms: {random_.randint(1, 400)}\r\n\r\n"
                clients.enter_context(asking(url, path.format(name), method, deadline))
                if random_.random() < 0.5:
                    time.sleep(random_.random() / 50)
                if random_.random() < 0.1:
                    clients.pop_all().close()
        must_become_quiet(db, witness)
        assert not any(name.startswith("any") for name in witness.all_deeds())
        assert [httpx.get(url + quick).status_code for quick in ("/quick", "/quick-sync") * 3] == [200] * 6
        must_become_quiet(db, witness)
        db.dispose()
    assert becomes(lambda: not witness.states()), witness.states()


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg_async"])
async def test_a_task_that_is_cancelled_for_good_leaves_nothing_running(
    driver: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    async with world_of(driver, request, tmp_path, f"scopes{next(_numbers)}") as world:

        async def work() -> None:
            async with world.session() as session:
                await session.execute(SLEEP)

        for _ in range(3):
            async with anyio.create_task_group() as group:
                group.start_soon(work)
                await asyncio.sleep(0.2)
                group.cancel_scope.cancel()
        assert await async_becomes(lambda: not world.witness.states()["active"])
        assert await world.faults(Deed("none")) == []


@pytest.mark.timeout(0 if SOAK else 60)
@pytest.mark.parametrize("driver", ["asyncpg", "psycopg_async", "aiosqlite"])
async def test_the_end_of_one_request_hits_no_other(
    driver: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Requests are ended at any moment, on connections that go from one to the other; bystanders never notice."""
    async with world_of(driver, request, tmp_path, f"victims{next(_numbers)}", connections=3) as world:
        play = _Play(world, random.Random(7), 34_000 if SOAK else 250)
        async with asyncio.timeout(None if SOAK else 40):
            await asyncio.gather(*(play.end_requests() for _ in range(6)), *(play.stand_by() for _ in range(2)))
        assert play.cancelled > play.rounds / 50, "nothing was cancelled"
        there = {name: count for name, count in world.witness.all_deeds().items() if name.startswith(driver)}
        assert there == dict.fromkeys(play.written, 1)
        assert not play.unknown, "a commit that was sent has failed"
        assert await world.faults(Deed("none")) == []
        print(f"{driver}: {play.rounds} rounds, {play.cancelled} cancelled, {play.refused} refused, {play.done} done")


class _Play:
    """Requests that are ended, and bystanders who must not fail."""

    def __init__(self, world: World, random_: random.Random, rounds: int) -> None:
        self.world = world
        self.random = random_
        self.rounds = self.left = rounds
        self.cancelled = self.refused = self.done = 0
        self.written: set[str] = set()
        self.unknown: set[str] = set()
        self.naps = [
            text("SELECT count(*) FROM generate_series(1, 20000)"),
            text("SELECT pg_sleep(0.03)"),
        ]
        if world.driver == "aiosqlite":
            self.naps = [
                text("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 9000) SELECT 1 FROM n")
            ]

    async def end_requests(self) -> None:
        loop = asyncio.get_running_loop()
        while self.left > 0:
            self.left -= 1
            admission = Admission(time.monotonic_ns())
            token = current_admission.set(admission)
            timer = loop.call_later(self.random.random() / 20, admission.end, "gone")
            try:
                await self._request(f"{self.world.driver}{self.left}")
            finally:
                timer.cancel()
                current_admission.reset(token)
            assert not admission.running
            assert not admission.cancellings

    async def _request(self, name: str) -> None:
        is_committing = False
        try:
            async with self.world.session() as session:
                await session.execute(self.random.choice(self.naps))
                if self.world.driver != "aiosqlite" and self.random.random() < 0.5:
                    await session.execute(INSERT, {"id": name, "note": ""})
                    await session.execute(self.random.choice(self.naps))
                    is_committing = True
                    await session.commit()
                    self.written.add(name)
                await session.execute(self.random.choice(self.naps))
            self.done += 1
        except Overloaded as error:
            if "cancelled" in str(error):
                self.cancelled += 1
            else:
                self.refused += 1
            if is_committing and name not in self.written and "not committed" not in str(error):
                self.unknown.add(name)

    async def stand_by(self) -> None:
        number = 0
        while self.left > 0:
            number += 1
            name = f"{self.world.driver}-{number}-{id(asyncio.current_task())}"
            async with self.world.session() as session:
                await session.execute(READ, {"id": name})
                if number % 5 == 0:
                    await session.execute(INSERT, {"id": name, "note": ""})
                    await session.execute(READ, {"id": name})
                    await session.commit()
                    self.written.add(name)
                await session.execute(self.naps[0])


@pytest.mark.timeout(0 if SOAK else 60)
def test_the_end_of_one_thread_hits_no_other(postgres_url: URL, witness: PostgresWitness) -> None:
    """As above, in threads, with the deadlines of blocks."""
    engine = create_engine(
        postgres_url.set(drivername="postgresql+psycopg"),
        poolclass=LeasePool,
        connect_args={"application_name": witness.application},
        pool_size=2,
        max_overflow=0,
        pool_timeout=30,
    )
    rounds, is_over = 20_000 if SOAK else 200, threading.Event()
    random_ = random.Random(11)

    def end_blocks(number: int) -> int:
        cancelled = 0
        for round_ in range(rounds // 4):
            try:
                with lane(deadline=0.001 + random_.random() / 30), Session(engine) as session:
                    session.execute(text("SELECT pg_sleep(0.02)"))
                    session.execute(INSERT, {"id": f"block{number}-{round_}", "note": ""})
                    session.execute(text("SELECT pg_sleep(0.02)"))
            except Overloaded as error:
                cancelled += "cancelled" in str(error)
        return cancelled

    def stand_by() -> int:
        number = 0
        while not is_over.is_set():
            number += 1
            with Session(engine) as session:
                session.execute(READ, {"id": "x"})
                session.execute(INSERT, {"id": f"thread{number}", "note": ""})
                session.commit()
        return number

    with ThreadPoolExecutor(5) as threads:
        bystander = threads.submit(stand_by)
        cancelled = sum(threads.map(end_blocks, range(4)))
        is_over.set()
        written = bystander.result(30)
    assert cancelled > rounds / 50
    there = {name: count for name, count in witness.all_deeds().items() if name.startswith(("thread", "block"))}
    assert there == {f"thread{number}": 1 for number in range(1, written + 1)}
    now = engine.pool.gate.statistics()  # type: ignore[attr-defined]
    assert (now.in_use, now.warm, now.pending) == (0, 0, 0)
    assert sum(witness.states().values()) == now.idle <= 2
    engine.dispose()


@pytest.mark.timeout(0 if SOAK else 60)
async def test_random_disconnects_before_an_app_without_a_socket(
    db: Database, witness: PostgresWitness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As through uvicorn, but far more: each client leaves at a random moment, some are answered before."""
    monkeypatch.setattr(disconnects, "OLD_AFTER_NS", 3_000_000)
    app, random_, left = app_of(db), random.Random(5), 50_000 if SOAK else 400
    outcomes: Counter[str] = Counter()

    @app.get("/some")
    async def some(session: AsyncSessionDep) -> None:
        await session.execute(text("SELECT pg_sleep(0.01)"))
        await session.execute(text("SELECT 1"))

    @app.get("/some-sync")
    def some_sync(session: SessionDep) -> None:
        session.execute(text("SELECT pg_sleep(0.01)"))

    async def visit() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            method, path = random_.choice(
                [("GET", "/some"), ("GET", "/some-sync"), ("GET", "/quick"), ("POST", "/late")]
            )
            outcomes[await visit_briefly(app, method, path, random_.random() / 20)] += 1

    @app.post("/late")
    async def late(session: AsyncTransactionDep) -> None:
        await session.execute(INSERT, {"id": f"late{next(_numbers)}", "note": ""})

    async with app.router.lifespan_context(app):
        await asyncio.gather(*(visit() for _ in range(12)))
        assert await async_becomes(lambda: is_quiet(db, witness)), (db.gate, witness.states())
        assert set(witness.all_deeds().values()) <= {1}
        assert outcomes["200"]
        assert outcomes["503"]
        assert set(outcomes) <= {"200", "503"}
        print(outcomes, db.gate.statistics().dropped)
    await db.dispose_async()
    assert await async_becomes(lambda: not witness.states()), witness.states()


async def visit_briefly(app: FastAPI, method: str, path: str, stay_s: float) -> str:
    """One request whose client leaves after that time; gives the status of the answer."""
    messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    messages.put_nowait({"type": "http.request", "body": b"", "more_body": False})
    leaving = asyncio.get_running_loop().call_later(stay_s, messages.put_nowait, {"type": "http.disconnect"})
    answer: list[Any] = []

    async def send(message: Any) -> None:
        answer.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "scheme": "http",
        "query_string": b"",
        "headers": [],
        "client": ("here", 1),
        "server": ("there", 2),
        "state": {},
    }
    await app(scope, messages.get, send)
    leaving.cancel()
    return str(answer[0]["status"])
