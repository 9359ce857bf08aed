"""The X-ray of one process: everything that listens, put together, and what it has observed."""

from __future__ import annotations

import asyncio
import linecache
import logging
import os
import threading
import time
from dataclasses import dataclass
from types import FrameType
from typing import Any, Protocol, cast

from anyio.to_thread import current_default_thread_limiter

from headgate.names import STALLED
from headgate.xray.databases import Databases
from headgate.xray.live import Live, LiveHold, LiveRequest, PoolTally
from headgate.xray.observation import Observation, PoolFacts, ProcessFacts, Stall, with_text
from headgate.xray.recorder import Recorder
from headgate.xray.sampling import sample_holds
from headgate.xray.seams import Seam
from headgate.xray.sql_hooks import lease_seams, sql_seams
from headgate.xray.stalls import LoopWatch, Stillness
from headgate.xray.web_hooks import ANSWERING, web_seams

log = logging.getLogger("headgate.xray")


@dataclass(slots=True)
class _StallSum:
    count: int = 0
    total_ns: int = 0
    longest_ns: int = 0
    victims: int = 0


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

    def __init__(self, databases: Databases | None = None) -> None:
        self.databases = databases or Databases(allowed=None)
        self.recorder = Recorder()
        self.live = Live(self._begin, self._end, self._end_hold, self._connect)
        self.listeners: list[Listener] = []
        self.is_recording = True
        self._has_failed = False
        self._loops: dict[int, LoopWatch] = {}
        self._seams: list[Seam] = []
        self._lock = threading.Lock()
        self._stalls: dict[tuple[Any, ...], _StallSum] = {}
        self._threads = 0
        self._since = self._read_clocks()

    def open(self) -> None:
        """Begin to listen; what is in flight already is not seen."""
        for seams in (self.databases.seams(), sql_seams(self.live), lease_seams(self.live), web_seams(self.live)):
            self._seams.extend(seams)

    def close(self) -> None:
        """Put back everything that was there."""
        while self._seams:
            self._seams.pop().undo()
        for watched in self._loops.values():
            watched.stop()
        self._loops.clear()

    # what happens

    def _begin(self, request: LiveRequest) -> None:
        if request.task is None:
            return
        loop = request.task.get_loop()
        if id(loop) not in self._loops:
            self._threads = int(current_default_thread_limiter().total_tokens)
            self._loops[id(loop)] = LoopWatch(
                loop,
                on_beat=lambda now_ns, since_ns: sample_holds(self.live, loop, since_ns),
                on_stall=lambda stall: self._note_stall(loop, stall),
                request_of=self._request_of,
                last_site=lambda: self.live.last_site,
            )

    def _end(self, request: LiveRequest) -> None:
        try:
            for listener in self.listeners:
                listener.end_request(request)
            if self.is_recording:
                self.recorder.add(request)
        except Exception:  # the request is not to blame
            self._fail()

    def _end_hold(self, hold: LiveHold) -> None:
        try:
            for listener in self.listeners:
                listener.end_hold(hold)
            if self.is_recording:
                self.recorder.add_hold(hold)
        except Exception:  # nor is whoever gives a connection back
            self._fail()

    def _connect(self, pool: PoolTally, took_ns: int) -> None:
        try:
            for listener in self.listeners:
                listener.connect(pool, took_ns)
        except Exception:  # nor is whoever needs one
            self._fail()

    def _fail(self) -> None:
        if not self._has_failed:
            self._has_failed = True
            log.exception("the X-ray could not add up what it has seen; this is said once")

    def _request_of(self, frame: FrameType | None) -> int:
        """Whose code runs: the app's own entry is further out on the same stack."""
        while frame is not None:
            if frame.f_code.co_qualname == ANSWERING:
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

    def stalls(self) -> tuple[Stall, ...]:
        """Those that have ended, by where and why."""
        with self._lock:
            return tuple(
                Stall(verdict, site, what, one.count, one.total_ns, one.longest_ns, one.victims, route)
                for (verdict, site, what, route), one in self._stalls.items()
            )

    def observe(self) -> Observation:
        """What was observed so far, requests that have not ended left out."""
        now, since = self._read_clocks(), self._since
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
            stalls=self.stalls(),
        )
        return cast("Observation", with_text(observation, linecache.getline))

    def _read_clocks(self) -> tuple[int, int, int]:
        loop_ns = sum(watched.read().loop_ns for watched in self._loops.values())
        return time.monotonic_ns(), time.process_time_ns(), loop_ns
