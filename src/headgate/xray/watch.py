"""The X-ray of one process: everything that listens, put together, and what it has observed."""

from __future__ import annotations

import asyncio
import linecache
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from types import FrameType
from typing import Any, Final, NamedTuple, Protocol, cast

from headgate.names import STALLED
from headgate.xray.databases import Databases
from headgate.xray.live import Live, LiveHold, LiveRequest, PoolTally
from headgate.xray.observation import BEAT_NS, NOWHERE, Observation, PoolFacts, ProcessFacts, Site, Stall, with_text
from headgate.xray.options import DEFAULTS, WatchOptions
from headgate.xray.recorder import Recorder, sum_holds
from headgate.xray.reporting import HoldReporter
from headgate.xray.sampling import sample_holds
from headgate.xray.seams import Seam
from headgate.xray.sql_hooks import lease_seams, sql_seams
from headgate.xray.stalls import LoopWatch, Stillness
from headgate.xray.web_hooks import ANSWERING, fastapi_seams, web_seams

LIBRARIES: Final = ("sqlalchemy", "starlette.applications", "fastapi.routing")
"""The modules that are listened to; each can be begun with when it has been imported."""

TURNS_AFTER: Final = 4
"""Of the loop after a stall: until then it has accepted and read what came meanwhile."""


class _Clocks(NamedTuple):
    wall_ns: int
    cpu_ns: int
    loop_cpu_ns: int
    blocked_ns: int
    late_ns: int
    kept_waiting_ns: int


@dataclass(slots=True)
class _StallSum:
    count: int = 0
    total_ns: int = 0
    longest_ns: int = 0
    victims: int = 0
    what: str = ""


_StallSums = dict[tuple[Any, ...], _StallSum]


class Listener(Protocol):
    """Is told what has ended, as it ends; must be quick."""

    def end_request(self, request: LiveRequest) -> None:
        """A request has ended."""

    def end_hold(self, hold: LiveHold) -> None:
        """A hold has ended outside of requests."""

    def connect(self, pool: PoolTally, took_ns: int) -> None:
        """A connection was opened."""


class Watch:
    """Watches every app and engine of this process while it is open.

    :ivar listeners: told before the recorder.
    :ivar is_recording: False where nobody will ask what was observed.
    """

    def __init__(self, databases: Databases | None = None, options: WatchOptions = DEFAULTS) -> None:
        self.databases = databases or Databases(allowed=None)
        self.recorder = Recorder()
        end, end_hold = self._unfailing(self._end), self._unfailing(self._end_hold)
        self.live = Live(self._unfailing(self._begin), end, end_hold, self._connect)
        self.reporter = HoldReporter(self.live, options, name_of=self.databases.name_of)
        self.listeners: list[Listener] = []
        self.is_recording = True
        self.is_closed = False
        self._opened: set[str] = set()
        self._loops: dict[int, LoopWatch] = {}
        self._seams: list[Seam] = []
        self._lock = threading.Lock()
        self._stalls: _StallSums = {}
        self._threads = 0
        self._since_ns = time.monotonic_ns()
        self._load = _Load(self.live.started, self._read_clocks())

    def open(self) -> None:
        """Begin to listen; what is in flight already is not seen, and what is not installed is left out."""
        for library in LIBRARIES:
            self.open_on(library)

    def open_on(self, library: str) -> None:
        """Begin to listen to one of ``LIBRARIES``; once is enough."""
        if library in self._opened:
            return
        self._opened.add(library)
        _watches.add(self)
        for seams in self._seams_of(library):
            self._seams.extend(seams)

    def _seams_of(self, library: str) -> tuple[Iterable[Seam], ...]:
        if library == "fastapi.routing":
            return (fastapi_seams(),)
        if library == "starlette.applications":
            return (web_seams(self.live),)
        return self.databases.seams(), sql_seams(self.live), lease_seams(self.live), self.reporter.waits.seams()

    def close(self) -> None:
        """Put back everything that was there."""
        self.is_closed = True
        self._opened.clear()
        _watches.discard(self)
        while self._seams:
            self._seams.pop().undo()
        for watched in self._loops.values():
            watched.stop()
        self._loops.clear()

    def start_anew(self) -> None:
        """In a forked child: what goes on there, and whatever watches it, is the parent's."""
        self._lock = threading.Lock()
        for watched in self._loops.values():
            watched.abandon()
        self._loops.clear()
        self._stalls.clear()
        self.live.forget()
        self.recorder.start_anew()
        self.reporter.start_anew()
        self._since_ns = time.monotonic_ns()
        self._load = _Load(self.live.started, self._read_clocks())

    # what happens

    def _unfailing(self, note: Callable[[Any], None]) -> Callable[[Any], None]:
        """The same; what it raises must not reach a request."""

        def note_safely(value: Any) -> None:
            try:
                note(value)
            except Exception as error:
                self.reporter.fail(error)

        return note_safely

    def _begin(self, request: LiveRequest) -> None:
        if request.task is None:
            return
        loop = request.task.get_loop()
        if id(loop) not in self._loops:
            from anyio.to_thread import current_default_thread_limiter

            self._threads = int(current_default_thread_limiter().total_tokens)
            self._loops[id(loop)] = LoopWatch(
                loop,
                on_beat=lambda now_ns, since_ns: self._beat(loop, now_ns, since_ns),
                on_stall=lambda stall: self._note_stall(loop, stall),
                request_of=lambda stack: _request_on(stack) or self._request_of(loop),
                who_switched=lambda: self._who_switched(loop),
            )

    def _end(self, request: LiveRequest) -> None:
        for listener in self.listeners:
            listener.end_request(request)
        if self.is_recording:
            self.recorder.add(request)

    def _end_hold(self, hold: LiveHold) -> None:
        for listener in self.listeners:
            listener.end_hold(hold)
        if self.is_recording:
            self.recorder.add_hold(hold)

    def _connect(self, pool: PoolTally, took_ns: int) -> None:
        try:
            for listener in self.listeners:
                listener.connect(pool, took_ns)
        except Exception as error:  # whoever needs a connection is not to blame
            self.reporter.fail(error)

    def _beat(self, loop: asyncio.AbstractEventLoop, now_ns: int, since_ns: int) -> None:
        try:
            # What they were seen to await is not why they waited longer: a loop that stood still did not look.
            sample_holds(self.live, loop, min(since_ns, 2 * BEAT_NS))
            self.live.note_most_held()
            self._load.note(self.live.started, self._read_clocks())
        except Exception as error:  # or this would have been the last beat
            self.reporter.fail(error)
        self.reporter.look(now_ns)

    def _request_of(self, loop: asyncio.AbstractEventLoop) -> LiveRequest | None:
        task = asyncio.current_task(loop)
        return None if task is None else self.live.request_of_task(task)

    def _who_switched(self, loop: asyncio.AbstractEventLoop) -> tuple[Site, LiveRequest | None]:
        request = self._request_of(loop)
        sent = request is not None and request.statements
        return (sent[-1].site if sent else NOWHERE), request

    def _note_stall(self, loop: asyncio.AbstractEventLoop, stall: Stillness) -> None:
        with self._lock:
            found = self._add_stall(self._stalls, loop, stall)
        self._count_arrivals(loop, found, self.live.begun, TURNS_AFTER)

    def _add_stall(self, sums: _StallSums, loop: asyncio.AbstractEventLoop, stall: Stillness) -> _StallSum:
        victims = 0
        route = stall.request.route if isinstance(stall.request, LiveRequest) else ""
        for request in list(self.live.requests.values()):
            if request is not stall.request and request.loop is loop and not request.thread:
                request.spend(STALLED, max(request.began_ns, stall.began_ns), stall.ended_ns)
                victims += 1
        # What a line has called may have just returned when it was looked at.
        key = (stall.verdict, stall.site, stall.what if stall.site == NOWHERE else "", route)
        found = sums.setdefault(key, _StallSum())
        found.what = found.what or stall.what
        found.count += 1
        found.total_ns += stall.ended_ns - stall.began_ns
        found.longest_ns = max(found.longest_ns, stall.ended_ns - stall.began_ns)
        found.victims += victims
        return found

    def _count_arrivals(self, loop: asyncio.AbstractEventLoop, found: _StallSum, before: int, turns: int) -> None:
        """Requests that came during a stall are begun right after it: they have waited too."""
        if turns:
            loop.call_soon(self._count_arrivals, loop, found, before, turns - 1)
        else:
            found.victims += self.live.begun - before

    def _stalls_until_now(self) -> _StallSums:
        """With those that last; their victims are charged again when they end, which changes nothing."""
        with self._lock:
            sums = {key: replace(one) for key, one in self._stalls.items()}
        for watched in list(self._loops.values()):
            still = watched.standing_still()
            if still is not None:
                self._add_stall(sums, watched.loop, still)
        return sums

    # what was observed

    def begin_anew(self) -> None:
        """Forget what was observed, as after a warm-up."""
        self.recorder.forget()
        with self._lock:
            self._stalls.clear()
        for pool in list(self.live.pools.values()):
            pool.begin_anew(time.monotonic_ns())
        self._since_ns = time.monotonic_ns()
        self._load = _Load(self.live.started, self._read_clocks())

    def stalls(self) -> tuple[Stall, ...]:
        """By where and why, with those that last."""
        return tuple(
            Stall(verdict, site, one.what, one.count, one.total_ns, one.longest_ns, one.victims, route)
            for (verdict, site, _, route), one in self._stalls_until_now().items()
        )

    def observe(self, *, with_unfinished: bool = False) -> Observation:
        """What was observed so far.

        :param with_unfinished: count requests that have not ended as far as they have come.
        """
        now_ns = time.monotonic_ns()
        spent = self._load.spent(self._read_clocks())
        unfinished = list(self.live.requests.values()) if with_unfinished else []
        observation = Observation(
            process=ProcessFacts(
                cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
                threads=self._threads,
                wall_ns=spent.wall_ns,
                cpu_ns=spent.cpu_ns,
                loop_cpu_ns=spent.loop_cpu_ns,
                blocked_ns=spent.blocked_ns,
                late_ns=spent.late_ns,
                kept_waiting_ns=spent.kept_waiting_ns,
            ),
            routes=self.recorder.routes(unfinished, now_ns, self._since_ns),
            paths=self.recorder.paths(),
            pools=tuple(self._pool_facts(one, now_ns) for one in list(self.live.pools.values())),
            stalls=self.stalls(),
            leaks=sum_holds(self.live.leaked_holds(now_ns), now_ns),
        )
        return cast("Observation", with_text(observation, linecache.getline))

    def _pool_facts(self, pool: PoolTally, now_ns: int) -> PoolFacts:
        held_ns = sum(
            now_ns - max(hold.began_ns, pool.since_ns) for hold in list(self.live.holds.values()) if hold.pool is pool
        )
        return PoolFacts(
            name=pool.name,
            kind=pool.kind,
            limit=pool.limit,
            timeouts=pool.timeouts,
            opened=pool.opened,
            refused=pool.refused,
            refusals=pool.refusals,
            held_ns=pool.held_ns + held_ns,
            most=pool.most,
        )

    def _read_clocks(self) -> _Clocks:
        loops = list(self._loops.values())
        return _Clocks(
            time.monotonic_ns(),
            time.process_time_ns(),
            sum(watched.clocks.loop_ns for watched in loops),
            sum(watched.blocked_ns for watched in loops),
            sum(watched.late_ns for watched in loops),
            sum(watched.clocks.kept_waiting_ns for watched in loops),
        )


class _Load:
    """From the last beat before anything was begun to the first one after the last thing was.

    Who waits for slow answers afterwards leaves the service idle: that time says nothing of what it is capable of.

    :param started: how much has been begun so far.
    """

    def __init__(self, started: int, now: _Clocks) -> None:
        self._started = started
        self._since = self._until = now
        self._has_begun = False

    def note(self, started: int, now: _Clocks) -> None:
        """Take note of a beat."""
        if started != self._started:
            self._has_begun = True
            self._started, self._until = started, now
        elif not self._has_begun:
            self._since = now

    def spent(self, now: _Clocks) -> _Clocks:
        """What went by on each clock."""
        until = self._until if self._has_begun else now
        return _Clocks(*(after - before for after, before in zip(until, self._since, strict=True)))


def _request_on(stack: list[FrameType]) -> LiveRequest | None:
    """The request whose code a stack is: the app's own entry is further out on it."""
    found = next((frame.f_locals.get("request") for frame in stack if frame.f_code.co_qualname == ANSWERING), None)
    return found if isinstance(found, LiveRequest) else None


_watches: Final[weakref.WeakSet[Watch]] = weakref.WeakSet()
"""Those that are open."""


def _start_anew() -> None:
    for watch in list(_watches):
        watch.start_anew()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_start_anew)
