"""An app in stock style that has something to show, for a process of its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

from fastapi import FastAPI, Request
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from headgate.xray import ConsoleOptions, Production

EVIL = "<img src=x onerror=alert(1)>"


def make_app(configuration: Mapping[str, str]) -> FastAPI:
    app = FastAPI()
    Production(console=ConsoleOptions(configuration["token"])).attach(app)
    url = f"sqlite+aiosqlite:///{configuration['file']}"
    engine = create_async_engine(url, pool_size=2, pool_logging_name="shop")

    @app.get("/orders/{number}")
    async def read_order(number: int) -> dict[str, int]:
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
        return {"number": number}

    @app.get("/slow")
    async def hold_while_sleeping(request: Request) -> None:
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 'my-secret'"))
            while not await request.is_disconnected():  # noqa: ASYNC110  # what is shown of it is that it sleeps
                await asyncio.sleep(0.5)

    @app.get("/stall")
    async def stall() -> None:
        time.sleep(0.12)  # noqa: ASYNC251

    @app.get(f"/{EVIL}")
    async def evil() -> None:
        pass

    return app
