"""The X-ray of one process: everything that listens, put together, and what it has observed."""

from __future__ import annotations

import asyncio
import linecache
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import FrameType
from typing import Any, Final, cast

from headgate.names import STALLED
from headgate.xray.databases import Databases
from headgate.xray.live import Live, LiveRequest
from headgate.xray.observation import Observation, PoolFacts, ProcessFacts, Stall, with_text
from headgate.xray.options import DEFAULTS, WatchOptions
from headgate.xray.recorder import Recorder
from headgate.xray.reporting import HoldReporter
from headgate.xray.sampling import sample_holds
from headgate.xray.seams import Seam
from headgate.xray.sql_hooks import lease_seams, sql_seams
from headgate.xray.stalls import LoopWatch, Stillness
from headgate.xray.web_hooks import ANSWERING, fastapi_seams, web_seams

LIBRARIES: Final = ("sqlalchemy", "starlette.applications", "fastapi.routing")
"""The modules that are listened to; each can be begun with when it has been imported."""


@dataclass(slots=True)
class _StallSum:
    count: int = 0
    total_ns: int = 0
    longest_ns: int = 0
    victims: int = 0


class Watch:
    """Watches every app and engine of this process while it is open."""

    def __init__(self, databases: Databases | None = None, options: WatchOptions = DEFAULTS) -> None:
        self.databases = databases or Databases(allowed=None)
        self.recorder = Recorder()
        add, add_hold = self.recorder.add, self.recorder.add_hold
        self.live = Live(self._unfailing(self._begin), self._unfailing(add), self._unfailing(add_hold))
        self.reporter = HoldReporter(self.live, options, name_of=self.databases.name_of)
        self.is_closed = False
        self._opened: set[str] = set()
        self._loops: dict[int, LoopWatch] = {}
        self._seams: list[Seam] = []
        self._lock = threading.Lock()
        self._stalls: dict[tuple[Any, ...], _StallSum] = {}
        self._threads = 0
        self._since = self._read_clocks()

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
        self._since = self._read_clocks()

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
        loop = request.loop
        if loop is not None and id(loop) not in self._loops:
            from anyio.to_thread import current_default_thread_limiter

            self._threads = int(current_default_thread_limiter().total_tokens)
            self._loops[id(loop)] = LoopWatch(
                loop,
                on_beat=lambda now_ns, since_ns: self._beat(loop, now_ns, since_ns),
                on_stall=lambda stall: self._note_stall(loop, stall),
                request_of=self._request_of,
                last_site=lambda: self.live.last_site,
            )

    def _beat(self, loop: asyncio.AbstractEventLoop, now_ns: int, since_ns: int) -> None:
        try:
            sample_holds(self.live, loop, since_ns)
        except Exception as error:  # or this would have been the last beat
            self.reporter.fail(error)
        self.reporter.look(now_ns)

    def _request_of(self, frame: FrameType | None) -> int:
        """Whose code runs: the app's own entry is further out on the same stack."""
        while frame is not None:
            if frame.f_code is ANSWERING:
                return id(frame.f_locals.get("request"))
            frame = frame.f_back
        return 0

    def _note_stall(self, loop: asyncio.AbstractEventLoop, stall: Stillness) -> None:
        victims = 0
        route = ""
        for request in list(self.live.requests.values()):
            if id(request) == stall.request:
                route = request.route
            elif request.loop is loop and not request.thread:
                request.spend(STALLED, max(request.began_ns, stall.began_ns), stall.ended_ns)
                victims += 1
        with self._lock:
            found = self._stalls.setdefault((stall.verdict, stall.site, stall.what, route), _StallSum())
            found.count += 1
            found.total_ns += stall.ended_ns - stall.began_ns
            found.longest_ns = max(found.longest_ns, stall.ended_ns - stall.began_ns)
            found.victims += victims

    # what was observed

    def begin_anew(self) -> None:
        """Forget what was observed, as after a warm-up."""
        self.recorder.forget()
        with self._lock:
            self._stalls.clear()
        self._since = self._read_clocks()

    def observe(self) -> Observation:
        """What was observed so far, requests that have not ended left out."""
        now, since = self._read_clocks(), self._since
        with self._lock:
            stalls = tuple(
                Stall(verdict, site, what, one.count, one.total_ns, one.longest_ns, one.victims, route)
                for (verdict, site, what, route), one in self._stalls.items()
            )
        observation = Observation(
            process=ProcessFacts(
                cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
                threads=self._threads,
                wall_ns=now[0] - since[0],
                cpu_ns=now[1] - since[1],
                loop_cpu_ns=now[2] - since[2],
            ),
            routes=self.recorder.routes(),
            paths=self.recorder.paths(),
            pools=tuple(
                PoolFacts(one.name, one.kind, one.limit, one.timeouts, one.opened, one.refused)
                for one in list(self.live.pools.values())
            ),
            stalls=stalls,
        )
        return cast("Observation", with_text(observation, linecache.getline))

    def _read_clocks(self) -> tuple[int, int, int]:
        loop_ns = sum(watched.read().loop_ns for watched in self._loops.values())
        return time.monotonic_ns(), time.process_time_ns(), loop_ns


_watches: Final[weakref.WeakSet[Watch]] = weakref.WeakSet()
"""Those that are open."""


def _start_anew() -> None:
    for watch in list(_watches):
        watch.start_anew()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_start_anew)
