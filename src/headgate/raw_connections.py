"""The two methods of SQLAlchemy that are replaced, because what they return is used outside of its greenlets.

There nothing can be acquired any more, so a virtual connection acquires here. Every other one is left as it is.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.util import greenlet_spawn

from headgate.lease import VirtualConnection

_stock_get_raw_connection = AsyncConnection.get_raw_connection
_stock_raw_connection = AsyncEngine.raw_connection


async def _get_raw_connection(self: AsyncConnection) -> Any:
    return await _connected(await _stock_get_raw_connection(self))


async def _raw_connection(self: AsyncEngine) -> Any:
    return await _connected(await _stock_raw_connection(self))


async def _connected(raw: Any) -> Any:
    if isinstance(raw, VirtualConnection):
        await greenlet_spawn(getattr, raw, "dbapi_connection")
    return raw


def replace_raw_connections() -> None:
    """Make both acquire; doing it twice does no harm."""
    AsyncConnection.get_raw_connection = _get_raw_connection  # type: ignore[method-assign]
    AsyncEngine.raw_connection = _raw_connection  # type: ignore[method-assign]
