"""What SQLAlchemy's pools and dialects tell: waits, connects, holds and statements."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import Pool, SingletonThreadPool, StaticPool
from sqlalchemy.pool.base import _ConnectionRecord

from headgate.ledger import current_ledger
from headgate.lending import Lender
from headgate.lent import Lease
from headgate.names import CONNECT, DATABASE, GATE_WAIT
from headgate.pool import AsyncLeasePool, LeasePool
from headgate.xray.app_code import calling_site
from headgate.xray.causes import cause_of
from headgate.xray.live import MOST_STATEMENTS, Live, LiveHold, LiveRequest, LiveStatement, PoolTally
from headgate.xray.observation import Site
from headgate.xray.seams import Seam

clock = time.monotonic_ns

SHARED: Final = (SingletonThreadPool, StaticPool)
"""Pools in which a connection is everybody's: nobody waits for it, and nobody keeps it from others."""

LEASING: Final = (LeasePool, AsyncLeasePool)
"""Their leases tell of themselves."""

EXECUTES: Final = ("do_execute", "do_executemany", "do_execute_no_params")
ENDS: Final = ("do_commit", "do_rollback")

_CLASS: Final = re.compile(r"^<class '[^']*'>: ")

REPEATED: Final = 5
"""Times in one request after which it is looked up why a statement is sent, and again after as many."""


def sql_seams(live: Live) -> Iterator[Seam]:
    """Wrap what every pool and every dialect does."""
    for pool_class in _with_own(Pool, "_do_get"):
        if pool_class is not Pool and not issubclass(pool_class, SHARED):
            yield Seam(pool_class, "_do_get", _acquiring(live))
            yield Seam(pool_class, "_do_return_conn", _releasing(live))
    yield Seam(_ConnectionRecord, "_ConnectionRecord__connect", _connecting(live))
    for name in EXECUTES:
        yield from (Seam(dialect, name, _executing(live)) for dialect in _with_own(DefaultDialect, name))
    for name in ENDS:
        yield from (Seam(dialect, name, _ending(live)) for dialect in _with_own(DefaultDialect, name))
    yield from (Seam(dialect, "do_ping", _pinging) for dialect in _with_own(DefaultDialect, "do_ping"))


def lease_seams(live: Live) -> Iterator[Seam]:
    """Wrap what Headgate's own leases do: each is a hold, from its permit until it rests or goes back."""
    yield Seam(Lender, "acquire", _leasing(live))
    yield Seam(Lender, "resume", _resuming(live))
    for name in ("rest", "release", "discard"):
        yield Seam(Lender, name, _resting(live))


def _leasing(live: Live) -> Callable[[Any], Any]:
    def wrap(original: Any) -> Any:
        def acquire(lender: Lender, *, is_under_way: bool) -> Any:
            request = _request()
            began_ns = clock()
            if request is not None:
                _note_second(live, lender.pool, request)
                request.enter(GATE_WAIT, began_ns)
            try:
                lease = original(lender, is_under_way=is_under_way)
            finally:
                now_ns = clock()
                if request is not None:
                    request.leave(GATE_WAIT, now_ns)
            live.hold(lease, _new_hold(live.know_pool(lender.pool), request, now_ns, now_ns - began_ns))
            return lease

        return acquire

    return wrap


def _resuming(live: Live) -> Callable[[Any], Any]:
    def wrap(original: Any) -> Any:
        def resume(lender: Lender, lease: Lease) -> Any:
            may_go_on = original(lender, lease)
            if may_go_on:
                live.hold(lease, _new_hold(live.know_pool(lender.pool), _request(), clock()))
            return may_go_on

        return resume

    return wrap


def _resting(live: Live) -> Callable[[Any], Any]:
    def wrap(original: Any) -> Any:
        def rest(lender: Lender, lease: Lease, *args: Any, **options: Any) -> Any:
            live.let_go(lease, clock())
            return original(lender, lease, *args, **options)

        return rest

    return wrap


def _with_own(root: type[Any], name: str) -> Iterator[type[Any]]:
    """The classes from a root down that define an attribute themselves."""
    if name in vars(root):
        yield root
    for child in root.__subclasses__():
        yield from _with_own(child, name)


def _acquiring(live: Live) -> Callable[[Any], Any]:
    def wrap(original: Any) -> Any:
        def _do_get(pool: Pool) -> Any:
            if isinstance(pool, LEASING):
                return original(pool)
            request = _request()
            tally = live.know_pool(pool)
            tally.pending += 1
            began_ns = clock()
            if request is not None:
                _note_second(live, pool, request)
                request.enter(GATE_WAIT, began_ns)
            try:
                entry = original(pool)
            except PoolTimeoutError:
                tally.timeouts += 1
                raise
            finally:
                tally.pending -= 1
                now_ns = clock()
                if request is not None:
                    request.leave(GATE_WAIT, now_ns)
            live.hold(entry, _new_hold(tally, request, now_ns, now_ns - began_ns))
            return entry

        return _do_get

    return wrap


def _note_second(live: Live, pool: Pool, request: LiveRequest) -> None:
    if request.holds and request.second is None:
        tally = live.know_pool(pool)
        if any(hold.pool is tally and not hold.ended_ns for hold in request.holds):
            request.second = calling_site()


def _new_hold(pool: PoolTally, request: LiveRequest | None, now_ns: int, waited_ns: int = -1) -> LiveHold:
    hold = LiveHold(pool, request, calling_site(), now_ns, threading.get_ident())
    hold.waited_ns = waited_ns
    try:
        hold.task = asyncio.current_task()
    except RuntimeError:  # no loop runs in this thread
        hold.task = None
    return hold


def _releasing(live: Live) -> Callable[[Any], Any]:
    def wrap(original: Any) -> Any:
        def _do_return_conn(pool: Pool, record: Any) -> Any:
            live.let_go(record, clock())
            return original(pool, record)

        return _do_return_conn

    return wrap


def _connecting(live: Live) -> Callable[[Any], Any]:
    def wrap(original: Any) -> Any:
        def connect(record: Any) -> Any:
            request = current_ledger.get()
            pool = live.know_pool(record._ConnectionRecord__pool)
            began_ns = clock()
            if request is not None:
                request.enter(CONNECT, began_ns)
            try:
                original(record)
                pool.opened += 1
                live.on_connect(pool, clock() - began_ns)
            except Exception as error:
                if is_out_of_connections(error):
                    pool.refused = first_line(error)
                    pool.refusals += 1
                raise
            finally:
                if request is not None:
                    request.leave(CONNECT, clock())

        return connect

    return wrap


def is_out_of_connections(error: Exception) -> bool:
    """Whether PostgreSQL has refused to connect for lack of connections, its own or a role's."""
    return (
        getattr(error, "sqlstate", None) == "53300"
        or "too many c" in str(error)
        or "remaining connection slots" in str(error)
    )


def first_line(error: Exception) -> str:
    """An error's message in one line, without the class that SQLAlchemy puts before asyncpg's."""
    return _CLASS.sub("", str(error).strip().partition("\n")[0])


def _executing(live: Live) -> Callable[[Any], Any]:
    def wrap(original: Any) -> Any:
        def execute(dialect: Any, cursor: Any, statement: str, *args: Any, **options: Any) -> Any:
            context = args[-1] if args else options.get("context")
            connection = None if context is None else context.root_connection._dbapi_connection
            with _Busy(live, connection, statement, context):
                return original(dialect, cursor, statement, *args, **options)

        return execute

    return wrap


def _ending(live: Live) -> Callable[[Any], Any]:
    def wrap(original: Any) -> Any:
        def end(dialect: Any, connection: Any) -> Any:
            with _Busy(live, connection):
                return original(dialect, connection)

        return end

    return wrap


class _Busy:
    """A statement, or the end of a transaction, while it runs."""

    __slots__ = ("_began_ns", "_context", "_hold", "_request", "_statement", "_text")

    def __init__(self, live: Live, connection: Any, text: str = "", context: Any = None) -> None:
        self._hold = live.hold_behind(connection)
        self._text = text
        self._request = _request()
        self._statement: LiveStatement | None = None
        self._context = context

    def __enter__(self) -> None:
        request, hold = self._request, self._hold
        site = calling_site() if self._text else None
        self._began_ns = now_ns = clock()
        if hold is not None:
            hold.busy_since_ns = now_ns
            if site is not None:
                hold.at = site
        if request is not None:
            request.enter(DATABASE, now_ns)
            if site is not None and len(request.statements) < MOST_STATEMENTS:
                self._statement = self._note_statement(request, site, now_ns)

    def _note_statement(self, request: LiveRequest, site: Site, now_ns: int) -> LiveStatement:
        statement = LiveStatement(self._text, site, now_ns)
        request.statements.append(statement)
        repeats = request.repeats
        repeats[self._text] = times = repeats.get(self._text, 0) + 1
        if not times % REPEATED:
            statement.cause, statement.loads = cause_of(self._context)
        return statement

    def __exit__(self, *exc: object) -> None:
        now_ns, hold = clock(), self._hold
        if hold is not None:
            hold.busy_since_ns = 0
            hold.busy_ns += now_ns - self._began_ns
        if self._request is not None:
            self._request.leave(DATABASE, now_ns)
        if self._statement is not None:
            self._statement.ended_ns = now_ns


def _pinging(original: Any) -> Any:
    def do_ping(dialect: Any, connection: Any) -> Any:
        request = current_ledger.get()
        if request is None:
            return original(dialect, connection)
        request.enter(CONNECT, clock())
        try:
            return original(dialect, connection)
        finally:
            request.leave(CONNECT, clock())

    return do_ping


def _request() -> LiveRequest | None:
    found = current_ledger.get()
    return found if isinstance(found, LiveRequest) else None
