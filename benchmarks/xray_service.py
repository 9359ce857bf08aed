"""An app in stock style with a route of two queries and an empty one, watched or not."""

# Without postponed annotations: FastAPI could not see a dependency made inside a function.

from collections.abc import AsyncIterator, Mapping
from typing import Annotated

from fastapi import Depends, FastAPI
from lease_work import Account
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from headgate.xray import Production


def off(configuration: Mapping[str, str]) -> FastAPI:
    engine = create_async_engine(configuration["url"])
    sessions = async_sessionmaker(engine, expire_on_commit=False)

    async def get_session() -> AsyncIterator[AsyncSession]:
        async with sessions() as session:
            yield session

    app = FastAPI()

    @app.get("/two/{key}")
    async def read_two(key: int, session: Annotated[AsyncSession, Depends(get_session)]) -> dict[str, int]:
        one = await session.get_one(Account, key)
        other = await session.get_one(Account, key % 1_000 + 1)
        return {"balance": one.balance + other.balance}

    @app.get("/empty")
    async def empty() -> dict[str, int]:
        return {}

    return app


def on(configuration: Mapping[str, str]) -> FastAPI:
    """The ledger alone."""
    Production().attach(app := off(configuration))
    return app


def shown(configuration: Mapping[str, str]) -> FastAPI:
    """With all that every request could pay for."""
    from headgate.xray.metrics import Prometheus

    Production(server_timing=True, slow=1.0, exports=(Prometheus(),)).attach(app := off(configuration))
    return app
