"""Four handlers that keep their session's connection while they wait for something else."""

import asyncio
import os
import time

import httpx
from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

PAUSE_S = 0.1

url = make_url(os.environ["DATABASE_URL"]).set(drivername="postgresql+asyncpg")
engine = create_async_engine(url, pool_size=5, max_overflow=0)
new_session = async_sessionmaker(engine)
client = httpx.AsyncClient(timeout=30)
app = FastAPI()


def read_report() -> str:
    time.sleep(PAUSE_S)  # a slow disk
    return "report"


async def ask_elsewhere() -> None:
    await asyncio.sleep(PAUSE_S)


@app.get("/sleep")
async def sleep() -> str:
    async with new_session() as session:
        await session.execute(text("SELECT 1"))
        await asyncio.sleep(PAUSE_S)
    return "slept"


@app.get("/call")
async def call(request: Request) -> str:
    async with new_session() as session:
        await session.execute(text("SELECT 1"))
        answer = await client.get(f"{request.base_url}elsewhere")
    return answer.text


@app.get("/elsewhere")
async def elsewhere() -> str:
    await asyncio.sleep(PAUSE_S)
    return "called"


@app.get("/read")
async def read() -> str:
    async with new_session() as session:
        await session.execute(text("SELECT 1"))
        return await run_in_threadpool(read_report)


@app.get("/gather")
async def gather() -> str:
    async with new_session() as session:
        await session.execute(text("SELECT 1"))
        await asyncio.gather(ask_elsewhere(), ask_elsewhere())
    return "gathered"
