"""Handlers that keep the event loop to themselves, pauses that are nobody's fault, and a ping that suffers."""

import gc
import hashlib
import json
import os
import time

from fastapi import FastAPI
from sqlalchemy import create_engine, make_url, select, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

url = make_url(os.environ["DATABASE_URL"])
engine = create_engine(url.set(drivername="postgresql+psycopg"))
async_engine = create_async_engine(url.set(drivername="postgresql+asyncpg"))
TWENTY_MEGABYTES = "[" + "1234567," * 2_500_000 + "0]"
heap: list[list[int]] = []
app = FastAPI()


class Base(DeclarativeBase):
    pass


class Number(Base):
    __tablename__ = "numbers"
    id: Mapped[int] = mapped_column(primary_key=True)


MANY_NUMBERS = select(Number).from_statement(text("SELECT n AS id FROM generate_series(1, 40000) AS n"))


@app.get("/ping")
async def ping() -> str:
    return "pong"


@app.get("/sleep")
async def sleep() -> str:
    time.sleep(0.2)
    return "slept"


@app.get("/compute")
async def compute() -> int:
    return sum(number * number for number in range(3_000_000))


@app.get("/json")
async def parse() -> int:
    return len(json.loads(TWENTY_MEGABYTES))


@app.get("/hash")
async def sign_in() -> str:
    return hashlib.pbkdf2_hmac("sha256", b"secret", b"salt", 500_000).hex()


@app.get("/query")
async def query() -> str:
    with Session(engine) as session:
        session.execute(text("SELECT pg_sleep(0.2)"))
    return "done"


@app.get("/load")
async def load() -> int:
    async with AsyncSession(async_engine) as session:
        numbers = await session.scalars(MANY_NUMBERS)
        return len(numbers.all())


@app.get("/grow")
async def grow() -> int:
    heap.extend([number] for number in range(1_500_000))
    return len(heap)


@app.get("/shrink")
async def shrink() -> None:
    heap.clear()


@app.get("/collect")
async def collect() -> int:
    return gc.collect()


@app.get("/import")
async def import_late() -> str:
    import slow_module

    return slow_module.ANSWER
