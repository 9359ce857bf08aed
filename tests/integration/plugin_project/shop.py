"""The app that the plugin's tests test: each route does one thing right or wrong. In stock style."""

import asyncio
import gc
import time
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Depends, FastAPI, WebSocket
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from headgate.xray import hold_ok

engine = create_async_engine("sqlite+aiosqlite:///shop.db", poolclass=NullPool)
sync_engine = create_engine("sqlite:///shop.db", poolclass=NullPool)
app = FastAPI()
kept: list[Any] = []

ONE = text("SELECT 1")


async def fetch() -> None:
    await asyncio.sleep(0)  # given way


async def get_session() -> Any:
    async with AsyncSession(engine) as session:
        yield session


def get_sync_session() -> Any:
    with Session(sync_engine) as session:
        yield session


SessionDep = Annotated[AsyncSession, Depends(get_session)]
SyncSessionDep = Annotated[Session, Depends(get_sync_session)]


@app.middleware("http")
async def in_a_task_of_its_own(request: Any, call_next: Any) -> Any:
    return await call_next(request)


@app.get("/hold/{item}")
async def hold(item: int, session: SessionDep) -> None:
    await session.execute(ONE)
    await fetch()


@app.get("/gather")
async def gather(session: SessionDep) -> None:
    await session.execute(ONE)
    await asyncio.gather(fetch(), fetch())  # gathered here


@app.get("/group")
async def group(session: SessionDep) -> None:
    await session.execute(ONE)
    async with asyncio.TaskGroup() as tasks:  # grouped here
        tasks.create_task(fetch())


@app.get("/thread")
async def thread(session: SessionDep) -> None:
    await session.execute(ONE)
    await run_in_threadpool(time.sleep, 0)  # threaded here


@app.get("/mixed")
async def mixed(session: SyncSessionDep) -> None:
    session.execute(ONE)
    await fetch()


@app.get("/stream")
async def stream(session: SessionDep) -> StreamingResponse:
    async def rows() -> Any:
        await session.execute(ONE)
        yield "1"
        await fetch()
        yield "2"

    return StreamingResponse(rows())


@app.get("/second")
async def second(session: SessionDep) -> None:
    await session.execute(ONE)
    async with AsyncSession(engine) as other:
        await other.execute(ONE)  # acquired here


@app.get("/repeat")
async def repeat(session: SessionDep) -> None:
    for number in range(5):
        await session.execute(text("SELECT 1 WHERE 1 = :number"), {"number": number})  # repeated here


@app.get("/repeat-sync")
def repeat_sync(session: SyncSessionDep) -> None:
    for number in range(5):
        session.execute(text(f"SELECT 1 WHERE 1 = {number}"))  # repeated in a thread


@app.get("/stall")
async def stall() -> None:
    time.sleep(0.1)  # noqa: ASYNC251  stalled here


@app.get("/leak")
def leak() -> None:
    session = Session(sync_engine)
    kept.append(session)
    session.execute(ONE)  # leaked here


@app.get("/forgotten")
def forgotten() -> None:
    sync_engine.connect().execute(ONE)  # forgotten here
    gc.collect()


@app.websocket("/socket")
async def socket(socket: WebSocket, session: SessionDep) -> None:
    await socket.accept()
    await session.execute(ONE)
    await socket.receive_text()  # received here
    await socket.close()


# right


@app.get("/fetch-first")
async def fetch_first(session: SessionDep) -> None:
    await fetch()
    await session.execute(ONE)
    await session.commit()
    await fetch()


@app.get("/until-the-end")
async def until_the_end(session: SessionDep) -> int:
    result = await session.execute(ONE)
    return int(result.scalar_one())


@app.get("/only-the-database")
async def only_the_database(session: SessionDep) -> None:
    async with session.begin():
        await session.execute(ONE)
        await asyncio.wait_for(session.execute(ONE), 5)
        async with asyncio.timeout(5):
            await session.execute(ONE)
    async with engine.connect() as connection:
        async for _ in await connection.stream(ONE):
            pass


@hold_ok
@asynccontextmanager
async def lock_of_all() -> Any:
    await fetch()
    yield


@app.get("/hold-ok")
async def hold_is_ok(session: SessionDep) -> None:
    await session.execute(ONE)
    async with lock_of_all():
        pass


@app.get("/four-times")
def four_times(session: SyncSessionDep) -> None:
    for number in range(4):
        session.execute(text("SELECT 1 WHERE 1 = :number"), {"number": number})
    time.sleep(0.06)
