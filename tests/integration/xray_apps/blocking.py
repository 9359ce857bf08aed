"""Handlers that keep the event loop to themselves, pauses that are nobody's fault, and a ping that suffers."""

import gc
import hashlib
import json
import os
import time

from fastapi import FastAPI
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.orm import Session

url = make_url(os.environ["DATABASE_URL"]).set(drivername="postgresql+psycopg")
engine = create_engine(url)
TWENTY_MEGABYTES = "[" + "1234567," * 2_500_000 + "0]"
heap: list[list[int]] = []
app = FastAPI()


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


@app.get("/grow")
async def grow() -> int:
    heap.extend([number] for number in range(1_500_000))
    return len(heap)


@app.get("/collect")
async def collect() -> int:
    return gc.collect()


@app.get("/import")
async def import_late() -> str:
    import slow_module

    return slow_module.ANSWER
