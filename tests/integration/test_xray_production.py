"""What a service shows of itself in production: a real uvicorn, a real PostgreSQL, stock and leased."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, HTTPException, WebSocket
from prometheus_client import CollectorRegistry, make_asgi_app
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import URL, create_engine, text
from sqlalchemy.ext.asyncio import create_async_engine

from headgate import Database
from headgate.fastapi import async_session_dep, install, session_dep
from headgate.gate import EarlyRefusal, Gate
from headgate.hosting.service import Service
from headgate.lab.environment import service_environment
from headgate.routes import RouteMemory
from headgate.xray import ConsoleOptions, Production, startup
from headgate.xray.console import serving
from headgate.xray.metrics import Prometheus

from .serving import serve

TOKEN = "a-token-that-nobody-guesses"
ShopDep, SyncShopDep = async_session_dep("shop"), session_dep("shop")
BEARER = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture(autouse=True)
def _watched_for_a_test(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(startup, "_watch", None)
    yield
    watch: Any = startup._watch
    if watch is not None:
        watch.close()


@pytest.fixture
def db(postgres_url: URL) -> Database:
    return Database(postgres_url.set(drivername="postgresql+asyncpg"), connections=3, name="shop")


def leased_app(db: Database, watch: Production) -> FastAPI:
    app = FastAPI()
    install(app, db, watch=watch)

    @app.get("/orders/{number}")
    async def read_order(number: int, session: ShopDep) -> dict[str, int]:
        await session.execute(text("SELECT pg_sleep(0.05)"))
        return {"number": number}

    @app.get("/threads/{number}")
    def read_in_thread(number: int, session: SyncShopDep) -> dict[str, int]:
        session.execute(text("SELECT pg_sleep(0.05)"))
        return {"number": number}

    return app


def stock_app(url: URL, watch: Production) -> FastAPI:
    engine = create_async_engine(url.set(drivername="postgresql+asyncpg"), pool_logging_name="stock")
    sync_engine = create_engine(url.set(drivername="postgresql+psycopg"), pool_logging_name="sync")

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await engine.dispose()
        sync_engine.dispose()

    app = FastAPI(lifespan=lifespan)
    watch.attach(app)

    @app.get("/orders/{number}")
    async def read_order(number: int) -> dict[str, int]:
        async with engine.connect() as connection:
            await connection.execute(text("SELECT pg_sleep(0.05)"))
            await asyncio.sleep(0.1)
        return {"number": number}

    @app.get("/threads/{number}")
    def read_in_thread(number: int) -> dict[str, int]:
        with sync_engine.connect() as connection:
            connection.execute(text("SELECT 1"))
        return {"number": number}

    @app.get("/fails")
    async def fail() -> None:
        raise HTTPException(418)

    @app.get("/breaks")
    async def break_down() -> None:
        raise RuntimeError

    @app.websocket("/ws")
    async def talk(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text("hello")
        await socket.close()

    return app


def durations(response: httpx.Response) -> dict[str, float]:
    """The header as a browser takes it apart."""
    metrics = response.headers["server-timing"].split(", ")
    return {name: float(value) for name, _, value in (metric.partition(";dur=") for metric in metrics)}


@pytest.mark.parametrize("path", ["/orders/1", "/threads/1"])
def test_a_response_says_where_its_time_went(db: Database, path: str) -> None:
    with serve(leased_app(db, Production(server_timing=True))) as url:
        httpx.get(url + path)
        timing = durations(httpx.get(url + path))
    assert timing["database"] >= 50
    assert sum(time_ms for name, time_ms in timing.items() if name != "total") == pytest.approx(
        timing["total"], abs=0.6
    )
    assert timing["total"] < 500


def test_nothing_is_said_unless_asked(db: Database) -> None:
    with serve(leased_app(db, Production())) as url:
        assert "server-timing" not in httpx.get(f"{url}/orders/1").headers


def test_whoever_is_refused_early_learns_nothing(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(leased_app(db, Production(server_timing=True))) as url:
        assert "server-timing" in httpx.get(f"{url}/orders/1").headers
        monkeypatch.setattr(Gate, "is_pressed", True)
        monkeypatch.setattr(Gate, "refuse_early", lambda gate: EarlyRefusal("overload", 1))
        monkeypatch.setattr(RouteMemory, "needs", lambda *_: True)
        refused = httpx.get(f"{url}/orders/1")
    assert refused.status_code == 503
    assert "server-timing" not in refused.headers


def test_a_slow_request_is_said_with_its_route_alone(postgres_url: URL, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "headgate.xray")
    with serve(stock_app(postgres_url, Production(slow=0.05))) as url:
        httpx.get(f"{url}/threads/7777")
        httpx.get(f"{url}/orders/7777")  # the first of a pool learns about the server
        caplog.clear()
        httpx.get(f"{url}/threads/7777")
        assert [record for record in caplog.records if record.name == "headgate.xray"] == []
        httpx.get(f"{url}/orders/7777?secret=7777")
    (record,) = (record for record in caplog.records if record.name == "headgate.xray")
    facts = vars(record)
    assert (facts["route"], facts["status"], facts["statements"], facts["holds"]) == ("GET /orders/{number}", 200, 1, 1)
    assert facts["phases_ms"]["database"] >= 50
    assert facts["phases_ms"]["held_idle"] >= 99
    assert sum(facts["phases_ms"].values()) == pytest.approx(facts["total_ms"], abs=0.6)
    assert "7777" not in record.getMessage()


def read_metrics(url: str) -> dict[tuple[str, ...], float]:
    families = text_string_to_metric_families(httpx.get(f"{url}/metrics/").text)
    return {(sample.name, *sample.labels.values()): sample.value for family in families for sample in family.samples}


def test_prometheus_reads_a_stock_app(postgres_url: URL) -> None:
    registry = CollectorRegistry()
    app = stock_app(postgres_url, Production(exports=(Prometheus(registry),)))
    app.mount("/metrics", make_asgi_app(registry))
    with serve(app) as url:
        for number in range(5):
            httpx.get(f"{url}/orders/{number}")
            httpx.get(f"{url}/threads/{number}")
        httpx.get(f"{url}/fails")
        assert httpx.get(f"{url}/breaks").status_code == 500
        for number in range(20):
            assert httpx.get(f"{url}/unknown/{number}").status_code == 404
        read = read_metrics(url)
    assert read["headgate_requests_total", "GET /orders/{number}", "2xx"] == 5
    assert read["headgate_requests_total", "GET /fails", "4xx"] == 1
    assert read["headgate_requests_total", "GET /breaks", "5xx"] == 1
    assert read["headgate_requests_total", "GET (no route)", "4xx"] == 20
    assert read["headgate_phase_seconds_total", "database", "GET /orders/{number}"] >= 0.25
    assert read["headgate_phase_seconds_total", "held_idle", "GET /orders/{number}"] >= 0.5
    assert read["headgate_use_seconds_count", "stock"] == read["headgate_wait_seconds_count", "stock"] == 5
    assert read["headgate_use_seconds_sum", "stock"] >= 0.75
    assert read["headgate_create_seconds_count", "stock"] >= 1
    assert read["headgate_use_seconds_count", "sync"] == 5
    assert read["headgate_connections_limit", "stock"] == 15
    assert read["headgate_connections", "stock", "idle"] == 1
    assert read["headgate_connections", "stock", "in_use"] == 0


def test_prometheus_reads_a_leased_app(db: Database) -> None:
    registry = CollectorRegistry()
    app = leased_app(db, Production(exports=(Prometheus(registry),)))
    app.mount("/metrics", make_asgi_app(registry))
    with serve(app) as url:
        for number in range(4):
            httpx.get(f"{url}/orders/{number}")
            httpx.get(f"{url}/threads/{number}")
        read = read_metrics(url)
        statistics = db.gate.statistics()
    assert read["headgate_connections_limit", "shop"] == 3
    assert read["headgate_wait_seconds_count", "shop"] == statistics.acquired
    assert read["headgate_use_seconds_count", "shop"] >= 8
    assert read["headgate_use_seconds_sum", "shop"] >= 0.4
    states = {key[2]: value for key, value in read.items() if key[:2] == ("headgate_connections", "shop")}
    assert states == {"in_use": statistics.in_use, "warm": statistics.warm, "idle": statistics.idle}
    assert {key[1] for key in read if key[0] == "headgate_use_seconds_count"} == {"shop"}


async def test_what_fails_fails_as_before(postgres_url: URL) -> None:
    watch = Production(server_timing=True, slow=0.0, console=ConsoleOptions(TOKEN))
    app = stock_app(postgres_url, watch)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app") as client:
        assert (await client.get("/fails")).status_code == 418
        with pytest.raises(RuntimeError):
            await client.get("/breaks")
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "websocket", "path": "/ws", "query_string": b"", "headers": [], "subprotocols": []}
    await app(scope, receive, send)
    assert [message["type"] for message in sent] == ["websocket.accept", "websocket.send", "websocket.close"]


def test_the_console_shows_who_holds_a_connection_and_what_he_awaits(
    postgres_url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "SNAPSHOT_NS", 0)
    app = stock_app(postgres_url, Production(console=ConsoleOptions(TOKEN)))
    with serve(app) as url, httpx.Client(base_url=url) as client:
        assert client.get("/-/headgate/").status_code == 404
        assert client.get("/-/headgate/").json() == client.get("/no-such-path").json()
        assert client.post("/-/headgate/sign-in", data={"token": TOKEN}).headers["location"] == "./"
        assert client.get("/-/headgate/").status_code == 200
        client.get("/orders/1")
        holds = holds_meanwhile(client, "/orders/2")
    (hold,) = holds
    assert hold["route"] == "GET /orders/{number}"
    assert hold["acquired"].startswith("tests/integration/test_xray_production.py:")
    assert hold["acquired"].endswith("stock_app.<locals>.read_order")
    assert hold["awaits"] == "asyncio.sleep"
    assert hold["pool"] == "stock"


def holds_meanwhile(client: httpx.Client, path: str) -> list[dict[str, Any]]:
    """Who holds a connection while a path is asked, once the holder awaits something."""

    async def look() -> list[dict[str, Any]]:
        async with httpx.AsyncClient(base_url=client.base_url, cookies=client.cookies) as asking:
            asked = asyncio.create_task(asking.get(path))
            while not asked.done():
                await asyncio.sleep(0.02)
                state = (await asking.get("/-/headgate/state")).json()
                if state["holds"] and state["holds"][0]["awaits"] not in ("a statement", "its own code"):
                    await asked
                    holds: list[dict[str, Any]] = state["holds"]
                    return holds
            return []

    return asyncio.run(look())


def test_the_console_counts_no_requests_of_its_own(postgres_url: URL) -> None:
    with serve(stock_app(postgres_url, Production(console=ConsoleOptions(TOKEN)))) as url:
        for _ in range(3):
            state = httpx.get(f"{url}/-/headgate/state", headers=BEARER).json()
    assert (state["routes"], state["in_flight"], state["requests"]) == ([], {}, [])


def test_a_server_that_is_told_to_stop_waits_for_no_viewer(tmp_path: Path) -> None:
    service = Service(
        "tests.integration.console_service:make_app",
        {"token": TOKEN},
        log=tmp_path / "service.log",
        environment={**service_environment(), "PYTHONPATH": os.pathsep.join(map(str, import_paths()))},
    )
    with service, httpx.stream("GET", f"{service.url}/-/headgate/events", headers=BEARER, timeout=10) as stream:
        events = stream.iter_lines()
        while not (line := next(events)).startswith("data: "):
            pass
        assert json.loads(line.removeprefix("data: "))["process"]["pid"] == service.pid
        began = time.monotonic()
        os.kill(service.pid, 15)
        for _ in events:
            pass
        assert time.monotonic() - began < 3


def import_paths() -> list[Path]:
    """Where the service finds these tests, and the Headgate that is tested."""
    import headgate

    return [Path(__file__).parents[2], Path(headgate.__file__).parents[1]]
