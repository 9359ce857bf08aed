"""Handlers that each run into another limit: threads, connections, the core, the server, or none at all."""

import os
import time

from fastapi import FastAPI
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

url = make_url(os.environ["DATABASE_URL"])
engine = create_engine(url.set(drivername="postgresql+psycopg"))
roomy_engine = create_engine(url.set(drivername="postgresql+psycopg"), pool_size=60)
async_engine = create_async_engine(url.set(drivername="postgresql+asyncpg"), pool_size=20)
limited_engine = create_async_engine(
    url.set(drivername="postgresql+asyncpg", username="limited", password="limited"), pool_size=20
)
app = FastAPI()


@app.get("/ping")
async def ping() -> str:
    return "pong"


@app.get("/threads")
def wait_in_a_thread() -> str:
    with Session(roomy_engine) as session:
        session.execute(text("SELECT pg_sleep(0.4)"))
    return "done"


@app.get("/connections")
def wait_for_a_connection() -> str:
    with Session(engine) as session:
        session.execute(text("SELECT pg_sleep(0.15)"))
    return "done"


@app.get("/core")
async def compute() -> str:
    until = time.thread_time() + 0.01
    while time.thread_time() < until:
        pass
    return "done"


@app.get("/server")
async def wait_for_the_server() -> str:
    async with AsyncSession(limited_engine) as session:
        await session.execute(text("SELECT pg_sleep(0.1)"))
    return "done"


@app.get("/waiting")
async def wait() -> str:
    async with AsyncSession(async_engine) as session:
        await session.execute(text("SELECT pg_sleep(0.2)"))
    return "done"
