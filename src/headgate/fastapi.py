"""FastAPI: one call to install, four dependencies, refusals as 503.

One session a request. ``SessionDep`` is the session; ``TransactionDep`` is the same session, committed after the
endpoint has returned and before the response is sent, then closed for good.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Annotated, Any, Protocol, TypeVar

import sqlalchemy.exc
from fastapi import Depends, FastAPI
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response

from headgate.admission import Lane as LaneName
from headgate.admission import current_admission, rank_of
from headgate.asgi import SCOPE_KEY, SESSIONS_KEY, DatabaseMiddleware
from headgate.closing import close_session, run_in_extra_thread
from headgate.config import DeadlineOptions, RefusalOptions
from headgate.database import Database
from headgate.errors import ConfigError, Overloaded
from headgate.gate import Gate
from headgate.problems import RefusalLog, describe_refusal
from headgate.sessions import AsyncSession, Session


class Watch(Protocol):
    """What ``install`` takes to have an app watched: ``headgate.xray.Production``."""

    def attach(self, app: FastAPI, *, gate: Gate | None = None) -> object:
        """Watch an app, its gate among what is shown."""


def install(
    app: FastAPI,
    db: Database,
    *,
    refusals: RefusalOptions | None = None,
    deadlines: DeadlineOptions | None = None,
    check_on_startup: bool = True,
    freeze_heap: bool = True,
    watch: Watch | None = None,
) -> None:
    """Give an app its database: sessions by dependency, refusals as problem+json, closing at shutdown.

    The app's own lifespan, middleware and exception handlers stay. Call it once for each database, and before
    middleware that refusals need too, such as CORS: what is added later is outside.

    :param refusals: how a refusal is answered.
    :param deadlines: when nobody wants an answer any more.
    :param check_on_startup: ask the server for one row before the first request; if it does not answer, the
        app does not start and the server's log says why.
    :param freeze_heap: from when the app has started until it shuts down, keep the garbage collector away from what
        was there by then.
    :param watch: have it watched, as by ``headgate.xray.Production()``. What watches is inside of what refuses early.
    """
    if watch is not None:
        watch.attach(app, gate=db.gate)
    refusals = refusals or RefusalOptions()
    log = RefusalLog()
    app.add_middleware(
        DatabaseMiddleware,
        db=db,
        check_on_startup=check_on_startup,
        freezes_heap=freeze_heap,
        refusals=refusals,
        deadlines=deadlines or DeadlineOptions(),
        log=log,
    )
    by_database: dict[str, RefusalOptions] = getattr(app.state, "headgate_refusals", {})
    by_database[db.name] = refusals
    app.state.headgate_refusals = by_database
    app.add_exception_handler(sqlalchemy.exc.TimeoutError, _refuse_with(by_database, refusals, log))


FASTAPI_STACK = "fastapi_inner_astack"
"""Where FastAPI keeps what ends with a request: before its exception handlers run, or after the response. Not public,
so without it the middleware closes the sessions, which is after the exception handlers."""

SessionT = TypeVar("SessionT", Session, AsyncSession)

FOREIGN_POOL = "pool"
"""The reason of a refusal that no gate has made: a pool of the app's own that is full."""


def _refuse_with(
    by_database: Mapping[str, RefusalOptions], others: RefusalOptions, log: RefusalLog
) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def refuse(request: Request, error: Exception) -> Response:  # not in a thread, which it would wait for
        if isinstance(error, Overloaded):
            if error.reason != "gone":  # a client that hangs up is nobody's trouble
                log.say(lambda: error)
            problem = describe_refusal(
                by_database.get(error.database, others),
                database=error.database,
                reason=error.reason,
                retry_after_s=error.retry_after_s,
                nothing_executed=error.nothing_executed,
            )
        else:
            log.say(lambda: error)
            problem = describe_refusal(
                others,
                database="",
                reason=FOREIGN_POOL,
                retry_after_s=random.randint(1, 3),
                nothing_executed=False,
            )
        return Response(problem.body, status_code=problem.status, headers=problem.headers)

    return refuse


def Lane(name: LaneName) -> Any:  # noqa: N802  # reads as FastAPI's own Depends
    """The lane of a route: ``@app.get("/login", dependencies=[Lane("high")])``.

    :param name: ``high`` goes before everybody and may use the reserve, ``low`` goes last.
    :raises ConfigError: an unknown lane.
    """
    rank = rank_of(name)

    async def set_lane() -> None:
        admission = current_admission.get()
        if admission is not None:
            admission.rank = rank

    return Depends(set_lane)


def Deadline(seconds: float) -> Any:  # noqa: N802  # reads as FastAPI's own Depends
    """The deadline of a route, counted from when its request came: ``dependencies=[Deadline(2.0)]``.

    :raises ConfigError: a number of seconds that is not above 0.
    """
    DeadlineOptions(seconds)

    async def set_deadline() -> None:
        admission = current_admission.get()
        if admission is not None:
            admission.shorten(seconds)

    return Depends(set_deadline)


def find_database(connection: HTTPConnection, name: str = "default") -> Database:
    """The database that ``install`` put into the scope.

    :raises ConfigError: ``install(app, db)`` was not called for that name.
    """
    databases: dict[str, Database] = connection.scope.get(SCOPE_KEY, {})
    if name not in databases:
        known = ", ".join(map(repr, databases)) or "none"
        raise ConfigError(f"no database named {name!r} is installed (installed: {known}): call install(app, db)")
    return databases[name]


async def get_session(connection: HTTPConnection) -> Session:
    """The request's session; the function behind ``SessionDep``.

    It is closed after the response, or before exception handlers run.
    """
    return _open(connection, find_database(connection).session())


async def get_async_session(connection: HTTPConnection) -> AsyncSession:
    """The request's async session; the function behind ``AsyncSessionDep``. Closed as ``get_session``'s is."""
    return _open(connection, find_database(connection).async_session())


def _open(connection: HTTPConnection, session: SessionT) -> SessionT:
    # No generators: FastAPI's machinery for them costs more than the session, and for sync ones two more threads.
    stack = connection.scope.get(FASTAPI_STACK)
    if stack is None:
        connection.scope[SESSIONS_KEY].append(session)
    else:
        stack.push_async_callback(close_session, session)
    return session


SessionDep = Annotated[Session, Depends(get_session)]
AsyncSessionDep = Annotated[AsyncSession, Depends(get_async_session)]


async def get_transaction(session: SessionDep) -> AsyncIterator[Session]:
    """The request's session, committed before the response is sent; behind ``TransactionDep``."""
    try:
        yield session
        await run_in_extra_thread(session.commit)
    finally:
        await close_session(session)


async def get_async_transaction(session: AsyncSessionDep) -> AsyncIterator[AsyncSession]:
    """The request's async session, committed before the response is sent; behind ``AsyncTransactionDep``."""
    async with session:
        yield session
        await session.commit()


TransactionDep = Annotated[Session, Depends(get_transaction, scope="function")]
AsyncTransactionDep = Annotated[AsyncSession, Depends(get_async_transaction, scope="function")]


def session_dep(name: str) -> Any:
    """As ``SessionDep``, for a database installed under another name: ``ReportsDep = session_dep("reports")``."""

    async def get_named_session(connection: HTTPConnection) -> Session:
        return _open(connection, find_database(connection, name).session())

    return Annotated[Session, Depends(get_named_session)]


def async_session_dep(name: str) -> Any:
    """As ``AsyncSessionDep``, for a database installed under another name."""

    async def get_named_session(connection: HTTPConnection) -> AsyncSession:
        return _open(connection, find_database(connection, name).async_session())

    return Annotated[AsyncSession, Depends(get_named_session)]
