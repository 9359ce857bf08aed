"""A pytest plugin for SQLModel's tests: every in-memory SQLite database is a file of its own.

In memory there is one connection for everybody and nothing to lease; over a file there is a pool.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sqlalchemy.ext.asyncio
import sqlmodel
from arm_plugin import RECORD
from sqlalchemy import URL, make_url

DIRECTORY = Path(os.environ[RECORD]).parent
os.environ.pop("DATABASE_URL", None)  # SQLModel's tests prefer it to SQLite
_numbers = itertools.count()


def _over_files(create: Callable[..., Any]) -> Callable[..., Any]:
    def create_over_file(url: str | URL, **options: Any) -> Any:
        url = make_url(url)
        if url.get_backend_name() == "sqlite":
            options.pop("poolclass", None)
            url = url.set(database=str(DIRECTORY / f"{next(_numbers)}.db"))
        return create(url, **options)

    return create_over_file


sqlmodel.create_engine = _over_files(sqlmodel.create_engine)
sqlalchemy.ext.asyncio.create_async_engine = _over_files(sqlalchemy.ext.asyncio.create_async_engine)
