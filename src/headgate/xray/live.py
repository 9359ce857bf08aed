"""What is going on now: requests, the connections that are held, and by whom.

Mutable and cheap, written by the hooks from any task or thread; ``recorder`` adds up what has ended.
"""

from __future__ import annotations

import asyncio
import itertools
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, MutableMapping
from contextvars import Context
from typing import Any, Final

from sqlalchemy.pool import Pool, QueuePool

from headgate.lease import VirtualConnection
from headgate.ledger import Ledger, current_ledger
from headgate.names import HELD_IDLE
from headgate.xray.observation import Site

MOST_STATEMENTS: Final = 2_000
"""Of one request; more are counted in its phases only."""

MOST_POOLS: Final = 100
"""From then on those that are gone are forgotten."""

CLOSING_NS: Final = 100_000_000
"""After a request: a cancelled session is closed in a task of its own."""


class LiveStatement:
    """A statement that runs or has run.

    :ivar cause: the mapped attribute whose loading sent it, and ``loads`` what that is, if it was looked up.
    """

    __slots__ = ("began_ns", "cause", "ended_ns", "loads", "site", "text")

    def __init__(self, text: str, site: Site, began_ns: int) -> None:
        self.text = text
        self.site = site
        self.began_ns = began_ns
        self.ended_ns = 0
        self.cause = self.loads = ""


class LiveHold:
    """A connection that somebody holds.

    :ivar pool: where it is from.
    :ivar site: the line that acquired it.
    :ivar at: the line of its latest statement.
    :ivar busy_ns: how long statements have run on it; ``busy_since_ns`` is set while one does.
    :ivar seen: how often the holder was seen at a line, awaiting something, while no statement ran.
    :ivar task: the task that acquired it; None in a worker thread, whose number ``thread`` is.
    :ivar waited_ns: until it had the connection; -1 where it had not to ask for it.
    """

    __slots__ = (
        "at",
        "began_ns",
        "busy_ns",
        "busy_since_ns",
        "ended_ns",
        "has_been_told",
        "pool",
        "request",
        "seen",
        "site",
        "task",
        "thread",
        "waited_ns",
    )

    def __init__(self, pool: PoolTally, request: LiveRequest | None, site: Site, began_ns: int, thread: int) -> None:
        self.pool = pool
        self.request = request
        self.site = self.at = site
        self.began_ns = began_ns
        self.ended_ns = 0
        self.busy_ns = 0
        self.busy_since_ns = 0
        self.seen: dict[tuple[Site, str], int] = {}
        self.task: asyncio.Task[Any] | None = None
        self.thread = thread
        self.has_been_told = False
        self.waited_ns = -1

    def is_forgotten(self, now_ns: int) -> bool:
        """Whether whoever acquired it is gone. A task of its own may outlive the request it was started in."""
        request, task = self.request, self.task
        if request is None:
            return task is not None and task.done()
        if not request.ended_ns or now_ns - request.ended_ns < CLOSING_NS:
            return False
        return task is None or task.done() or task is request.task


class LiveRequest(Ledger):
    """A request's ledger, and what the X-ray wants to know beside it.

    :ivar second: where it asked for a connection while it held one of the same pool.
    :ivar sender: the task that sends the response.
    :ivar threads: of each worker thread it asked for: the wait, then the run, in nanoseconds.
    :ivar responding_ns: when its response began to go out, and ``answered_ns`` when the last of it had; 0 before.
    :ivar task: the task the app runs in.
    :ivar repeats: how often each of ``statements`` has been sent, by its text.
    :ivar thread: the worker thread that runs for it now, by its number; 0 while none does.
    """

    __slots__ = (
        "answered_ns",
        "ended_ns",
        "holds",
        "repeats",
        "responding_ns",
        "scope",
        "second",
        "sender",
        "statements",
        "status",
        "task",
        "thread",
        "threads",
    )

    def __init__(self, scope: MutableMapping[str, Any], began_ns: int) -> None:
        self.began_ns = began_ns
        self.notes = []
        self._early = None  # as the ledger's own, which costs a call
        self.scope = scope
        self.status = 0
        self.responding_ns = self.answered_ns = 0
        self.ended_ns = 0
        self.statements: list[LiveStatement] = []
        self.repeats: dict[str, int] = {}
        self.second: Site | None = None
        self.sender: asyncio.Task[Any] | None = None
        self.holds: list[LiveHold] = []
        self.threads: list[tuple[int, int]] = []
        self.thread = 0
        self.task: asyncio.Task[Any] | None = None

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The event loop it runs on."""
        return None if self.task is None else self.task.get_loop()

    @property
    def route(self) -> str:
        """``GET /items/{id}``; the path itself where no route was found."""
        scope = self.scope
        return f"{scope['method']} {getattr(declared_route(scope), 'path', None) or scope['path']}"


def declared_route(scope: MutableMapping[str, Any]) -> object | None:
    """What the app has declared for a request, and its path; None if nothing.

    FastAPI 0.16x keeps a route of an included router without the prefix, and the whole beside it.
    """
    return scope.get("fastapi", _NOTHING).get("effective_route_context") or scope.get("route")


_NOTHING: Final[dict[str, Any]] = {}


class PoolTally:
    """What is counted of a pool, which may be gone by now.

    :ivar refused: the server's words when it had no connection left; ``refusals``: how often it had none.
    :ivar held_ns: by holds that have ended, counted from ``since_ns``.
    :ivar most: the most that were seen to be held at one time.
    :ivar pending: how many wait for a connection of it now.
    """

    __slots__ = (
        "held_ns",
        "kind",
        "limit",
        "most",
        "name",
        "opened",
        "pending",
        "pool",
        "refusals",
        "refused",
        "since_ns",
        "timeouts",
    )

    def __init__(self, pool: Pool) -> None:
        self.pool = weakref.ref(pool)
        self.name = pool_name(pool)
        self.kind = type(pool).__name__
        self.limit = _limit_of(pool)
        self.pending = 0
        self.begin_anew(0)

    def begin_anew(self, now_ns: int) -> None:
        """Forget what was counted so far."""
        self.since_ns = now_ns
        self.timeouts = self.opened = self.refusals = self.held_ns = self.most = 0
        self.refused = ""


def pool_name(pool: Pool) -> str:
    """The name its engine was told to log it by, or its class's."""
    return str(getattr(pool, "logging_name", None) or type(pool).__name__)


def _limit_of(pool: Pool) -> int | None:
    if isinstance(pool, QueuePool) and pool.size() > 0 and pool._max_overflow >= 0:
        return pool.size() + pool._max_overflow
    return None


class Live:
    """Every request that has not ended and every connection that is held.

    :param on_begin: called with each request that has come, in its task.
    :param on_request: called with each request that has ended.
    :param on_hold: called with each hold that has ended outside of a request, or after its request had.
    :param on_connect: called with each connection that was opened: its pool, and the nanoseconds it took.
    :ivar begun: requests that have come.
    :ivar started: they, and all else that was begun for them: runs in threads, and holds.
    """

    def __init__(
        self,
        on_begin: Callable[[LiveRequest], None],
        on_request: Callable[[LiveRequest], None],
        on_hold: Callable[[LiveHold], None],
        on_connect: Callable[[PoolTally, int], None] = lambda pool, took_ns: None,
    ) -> None:
        self._on_begin = on_begin
        self._on_request = on_request
        self._on_hold = on_hold
        self.on_connect = on_connect
        self.requests: dict[int, LiveRequest] = {}
        self.holds: dict[int, LiveHold] = {}
        """By the identity of the pool's entry."""
        self.pools: dict[int, PoolTally] = {}
        self.begun = self.started = 0

    def begin(self, request: LiveRequest) -> None:
        """Note that a request has come."""
        self.requests[id(request)] = request
        self.begun += 1
        self.started += 1
        self._on_begin(request)

    def end(self, request: LiveRequest, now_ns: int) -> None:
        """Note that the app has done with it."""
        request.ended_ns = now_ns
        self.requests.pop(id(request), None)  # a fork may have made it forget
        self._on_request(request)

    def forget(self) -> None:
        """In a forked child: whatever goes on does so in the parent."""
        self.requests.clear()
        self.holds.clear()
        self.pools.clear()

    def hold(self, entry: object, hold: LiveHold) -> None:
        """Note that a connection is held from now on."""
        if id(entry) in self.holds:  # told twice: a pool's method that calls the one it overrides
            return
        self.holds[id(entry)] = hold
        self.started += 1
        if hold.request is not None:
            hold.request.holds.append(hold)
            hold.request.enter(HELD_IDLE, hold.began_ns)

    def let_go(self, entry: object, now_ns: int) -> None:
        """Note that it is held no longer."""
        hold = self.holds.pop(id(entry), None)
        if hold is None:
            return
        hold.ended_ns = now_ns
        hold.pool.held_ns += max(0, now_ns - max(hold.began_ns, hold.pool.since_ns))
        if hold.request is not None:
            hold.request.leave(HELD_IDLE, now_ns)
        if hold.request is None or hold.request.ended_ns:
            self._on_hold(hold)

    def hold_behind(self, connection: Any) -> LiveHold | None:
        """The hold that SQLAlchemy's handle of a connection belongs to."""
        if type(connection) is VirtualConnection:  # whose own leases are the holds; to ask for its entry would pin it
            return None
        return self.holds.get(id(getattr(connection, "_connection_record", None)))

    def idle_holds(self) -> Iterator[LiveHold]:
        """Those on which no statement runs."""
        return (hold for hold in list(self.holds.values()) if not hold.busy_since_ns)

    def know_pool(self, pool: Pool) -> PoolTally:
        """What is counted of a pool; a new one for one that is new."""
        tally = self.pools.get(id(pool))
        if tally is None or tally.pool() is not pool:
            if len(self.pools) >= MOST_POOLS:
                self._forget_pools()
            tally = PoolTally(pool)
            tally.name = self._own_name(tally.name)
            self.pools[id(pool)] = tally
        return tally

    def _own_name(self, name: str) -> str:
        """The same, with a number if another pool has it."""
        names = {one.name for one in list(self.pools.values())}
        numbered = (f"{name} {number}" for number in itertools.count(2))
        return name if name not in names else next(one for one in numbered if one not in names)

    def _forget_pools(self) -> None:
        """An app that makes an engine a request must not cost memory for each."""
        for key, tally in list(self.pools.items()):
            if tally.pool() is None:
                del self.pools[key]

    def leaked_holds(self, now_ns: int) -> Iterator[LiveHold]:
        """Those that nobody will end."""
        return (hold for hold in list(self.holds.values()) if hold.is_forgotten(now_ns))

    def request_of_task(self, task: asyncio.Task[Any]) -> LiveRequest | None:
        """The request that a task works for: the app's own, or one in which a connection was acquired."""
        context_of: Callable[[], Context] | None = getattr(task, "get_context", None)  # since Python 3.12
        if context_of is not None:
            found = context_of().get(current_ledger)
            return found if isinstance(found, LiveRequest) else None
        for request in list(self.requests.values()):
            if request.task is task:
                return request
        return next((hold.request for hold in list(self.holds.values()) if hold.task is task), None)

    def note_most_held(self) -> None:
        """Look how many connections of each pool are held now."""
        for pool, held in Counter(hold.pool for hold in list(self.holds.values())).items():
            pool.most = max(pool.most, held)
