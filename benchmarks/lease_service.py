"""One route over one row, three times: stock FastAPI and SQLAlchemy, the same on Headgate, and asyncpg alone."""

# Without postponed annotations: FastAPI could not see a dependency made inside a function.

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Annotated, Any

import asyncpg
from fastapi import Depends, FastAPI, Request
from lease_work import SELECT, Account
from pydantic import BaseModel
from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from headgate import Database
from headgate.fastapi import AsyncSessionDep, install


class AccountOut(BaseModel):
    id: int
    owner: str
    balance: int


def show(account: Account) -> AccountOut:
    return AccountOut(id=account.id, owner=account.owner, balance=account.balance)


def stock(configuration: Mapping[str, str]) -> FastAPI:
    """As the documentation of FastAPI and of SQLAlchemy have it, with default settings."""
    engine = create_async_engine(configuration["url"])
    sessions = async_sessionmaker(engine, expire_on_commit=False)

    async def get_session() -> AsyncIterator[AsyncSession]:
        async with sessions() as session:
            yield session

    app = FastAPI()

    @app.get("/accounts/{key}")
    async def read(key: int, session: Annotated[AsyncSession, Depends(get_session)]) -> AccountOut:
        return show(await session.get_one(Account, key))

    return app


def ours(configuration: Mapping[str, str]) -> FastAPI:
    app = FastAPI()
    install(app, Database(configuration["url"]))

    @app.get("/accounts/{key}")
    async def read(key: int, session: AsyncSessionDep) -> AccountOut:
        return show(await session.get_one(Account, key))

    return app


def bare(configuration: Mapping[str, str]) -> FastAPI:
    """asyncpg's pool of 15 and fetchrow."""
    url = make_url(configuration["url"]).set(drivername="postgresql").render_as_string(hide_password=False)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with asyncpg.create_pool(url, min_size=1, max_size=15) as app.state.pool:
            yield

    app = FastAPI(lifespan=lifespan)

    @app.get("/accounts/{key}")
    async def read(key: int, request: Request) -> AccountOut:
        pool: asyncpg.Pool[Any] = request.app.state.pool
        async with pool.acquire() as connection:
            return AccountOut(**await connection.fetchrow(SELECT + "$1", key))

    return app
