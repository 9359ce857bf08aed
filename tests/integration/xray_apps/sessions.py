"""What people do to sessions: lazy loads, a second one, one forgotten, streams and background tasks; and nothing."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import BackgroundTasks, Depends, FastAPI
from fastapi.responses import StreamingResponse
from sqlalchemy import ForeignKey, create_engine, make_url, select, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

url = make_url(os.environ["DATABASE_URL"])
engine = create_engine(url.set(drivername="postgresql+psycopg"))
async_engine = create_async_engine(url.set(drivername="postgresql+asyncpg"))
leaking_engine = create_async_engine(
    url.set(drivername="postgresql+asyncpg"), pool_size=4, max_overflow=0, pool_timeout=1
)
forgotten: list[AsyncSession] = []


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    note: Mapped[str] = mapped_column(deferred=True)
    items: Mapped[list["Item"]] = relationship(back_populates="order")


class Item(Base):
    __tablename__ = "items"
    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int] = mapped_column(ForeignKey(Order.id))
    order: Mapped[Order] = relationship(back_populates="items")


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all(Order(id=number, note="as usual", items=[Item(), Item()]) for number in range(1, 11))
        session.commit()
    yield


app = FastAPI(lifespan=lifespan)


async def get_session() -> AsyncIterator[AsyncSession]:
    async with AsyncSession(async_engine) as session:
        yield session


SessionDep = Annotated[AsyncSession, Depends(get_session)]


async def get_user(session: SessionDep) -> str:
    await session.execute(text("SELECT 1"))
    return "somebody"


@app.get("/orders")
def read_orders() -> int:
    with Session(engine) as session:
        return sum(len(order.items) for order in session.scalars(select(Order)).all())


@app.get("/items")
def read_items() -> int:
    with Session(engine) as session:
        return sum(item.order.id for item in session.scalars(select(Item)).all())


@app.get("/notes")
def read_notes() -> int:
    with Session(engine) as session:
        return sum(len(order.note) for order in session.scalars(select(Order)).all())


@app.get("/expired")
def touch_orders() -> int:
    with Session(engine) as session:
        orders = session.scalars(select(Order)).all()
        session.commit()
        return sum(order.id for order in orders)


@app.get("/lookups")
def look_up() -> int:
    with Session(engine) as session:
        return sum(session.get_one(Order, number).id for number in range(1, 11))


@app.get("/twice")
async def act_twice(user: Annotated[str, Depends(get_user)]) -> str:
    async with AsyncSession(async_engine) as session:
        await session.execute(text("SELECT 2"))
    return user


@app.get("/forgotten")
async def forget() -> str:
    session = AsyncSession(leaking_engine)
    forgotten.append(session)
    await session.execute(text("SELECT 1"))
    return "done"


@app.get("/stream")
async def stream(session: SessionDep) -> StreamingResponse:
    await session.execute(text("SELECT 1"))
    return StreamingResponse(rows())


async def rows() -> AsyncIterator[str]:
    for number in range(5):
        await asyncio.sleep(0.04)
        yield f"{number}\n"


@app.get("/background")
async def act_later(session: SessionDep, tasks: BackgroundTasks) -> str:
    await session.execute(text("SELECT 1"))
    tasks.add_task(send_mail)
    return "soon"


async def send_mail() -> None:
    await asyncio.sleep(0.2)


@app.get("/healthy")
async def read_one(session: SessionDep) -> int:
    return (await session.scalars(select(Order.id).limit(1))).one()
