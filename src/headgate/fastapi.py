"""FastAPI: one call to install, four dependencies, refusals as 503.

One session a request. ``SessionDep`` is the session; ``TransactionDep`` is the same session, committed after the
endpoint has returned and before the response is sent, then closed for good.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import Depends, FastAPI
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response

from headgate.asgi import SCOPE_KEY, DatabaseMiddleware
from headgate.config import Clock, RefusalOptions
from headgate.database import Database
from headgate.errors import ConfigError, Overloaded
from headgate.sessions import AsyncSession, Session

log = logging.getLogger("headgate.fastapi")

REFUSAL_LOG_INTERVAL_NS = 1_000_000_000


def install(
    app: FastAPI, db: Database, *, refusals: RefusalOptions | None = None, check_on_startup: bool = True
) -> None:
    """Give an app its database: sessions by dependency, refusals as problem+json, closing at shutdown.

    The app's own lifespan, middleware and exception handlers stay. Call it once for each database.

    :param refusals: the HTTP status of a refusal.
    :param check_on_startup: ask the server for one row before the first request; if it does not answer, the
        app does not start and the server's log says why.
    """
    status = (refusals or RefusalOptions()).status
    app.add_middleware(DatabaseMiddleware, db=db, check_on_startup=check_on_startup)
    app.add_exception_handler(Overloaded, _refuse_with(status))


class _RefusalLog:
    """One WARNING a second at most: under overload a line for each refusal would be one more load."""

    def __init__(self, clock: Clock = time.monotonic_ns) -> None:
        self._clock = clock
        self._next_ns = 0
        self._unsaid = 0

    def say(self, error: Overloaded) -> None:
        now_ns = self._clock()
        if now_ns < self._next_ns:
            self._unsaid += 1
            return
        others = f" ({self._unsaid} refusals before this one were not logged)" if self._unsaid else ""
        self._next_ns, self._unsaid = now_ns + REFUSAL_LOG_INTERVAL_NS, 0
        log.warning("%s%s", error, others)


def _refuse_with(status: int) -> Callable[[Request, Exception], Response]:
    refusals = _RefusalLog()

    def refuse(request: Request, error: Exception) -> Response:
        assert isinstance(error, Overloaded)
        refusals.say(error)
        problem = {
            "type": "about:blank",
            "title": HTTPStatus(status).phrase,
            "status": status,
            # The error's own message names lines of the app: it is for the log, not for the client.
            "detail": f"The database is busy. Try again in {error.retry_after_s} s.",
            "database": error.database,
            "reason": error.reason,
        }
        return JSONResponse(
            problem,
            status_code=status,
            headers={"Retry-After": str(error.retry_after_s)},
            media_type="application/problem+json",
        )

    return refuse


def find_database(connection: HTTPConnection, name: str = "default") -> Database:
    """The database that ``install`` put into the scope.

    :raises ConfigError: ``install(app, db)`` was not called for that name.
    """
    databases: dict[str, Database] = connection.scope.get(SCOPE_KEY, {})
    if name not in databases:
        known = ", ".join(map(repr, databases)) or "none"
        raise ConfigError(f"no database named {name!r} is installed (installed: {known}): call install(app, db)")
    return databases[name]


def get_session(connection: HTTPConnection) -> Iterator[Session]:
    """The request's session; the function behind ``SessionDep``."""
    with find_database(connection).session() as session:
        yield session


async def get_async_session(connection: HTTPConnection) -> AsyncIterator[AsyncSession]:
    """The request's async session; the function behind ``AsyncSessionDep``."""
    async with find_database(connection).async_session() as session:
        yield session


SessionDep = Annotated[Session, Depends(get_session, scope="request")]
AsyncSessionDep = Annotated[AsyncSession, Depends(get_async_session, scope="request")]


def get_transaction(session: SessionDep) -> Iterator[Session]:
    """The request's session, committed before the response is sent; behind ``TransactionDep``."""
    with session:
        yield session
        session.commit()


async def get_async_transaction(session: AsyncSessionDep) -> AsyncIterator[AsyncSession]:
    """The request's async session, committed before the response is sent; behind ``AsyncTransactionDep``."""
    async with session:
        yield session
        await session.commit()


TransactionDep = Annotated[Session, Depends(get_transaction, scope="function")]
AsyncTransactionDep = Annotated[AsyncSession, Depends(get_async_transaction, scope="function")]


def session_dep(name: str) -> Any:
    """As ``SessionDep``, for a database installed under another name: ``ReportsDep = session_dep("reports")``."""

    def get_named_session(connection: HTTPConnection) -> Iterator[Session]:
        with find_database(connection, name).session() as session:
            yield session

    return Annotated[Session, Depends(get_named_session, scope="request")]


def async_session_dep(name: str) -> Any:
    """As ``AsyncSessionDep``, for a database installed under another name."""

    async def get_named_session(connection: HTTPConnection) -> AsyncIterator[AsyncSession]:
        async with find_database(connection, name).async_session() as session:
            yield session

    return Annotated[AsyncSession, Depends(get_named_session, scope="request")]
