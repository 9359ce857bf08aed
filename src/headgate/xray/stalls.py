"""When an event loop stood still, for how long, and because of what.

A beat on the loop says when it ran last; a thread that watches looks, once a beat is late, at what the loop's thread
does. How long it took is told by the next beat: the thread itself may have been kept from running.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Final, Literal, NamedTuple

from headgate.xray.app_code import app_frame, site_of
from headgate.xray.observation import NOWHERE, Site

Verdict = Literal["code", "collection", "import", "thread", "descheduled", "suspended"]

TICK_NS: Final = 20_000_000
"""Between two beats, and between two looks."""

STALL_NS: Final = 50_000_000
"""A beat that is later than this is a stall."""

MOST_SAMPLES: Final = 8
"""Of one stall; the second look comes after twice the time of the first, and so on."""

_WAITS: Final = ("threading.py", "queue.py", "concurrent/futures/_base.py", "concurrent/futures/thread.py")


class Look(NamedTuple):
    """What the loop's thread was doing at one instant.

    :ivar deepest: the function it was in.
    :ivar request: the identity of the request it was doing that for; 0 if unknown.
    :ivar module: what is being imported, if that is what it does.
    """

    site: Site
    deepest: Site
    what: str
    request: int
    module: str
    waits: bool


class Clocks(NamedTuple):
    """Readings that tell a busy loop from one that was not allowed to run."""

    wall_ns: int
    process_ns: int
    loop_ns: int
    asleep_ns: int
    """How long the machine has slept since it was started."""
    collecting_ns: int


class Stillness(NamedTuple):
    """A stall: when, why, where, and what was done there."""

    began_ns: int
    ended_ns: int
    verdict: Verdict
    site: Site
    what: str
    request: int


def judge(before: Clocks, after: Clocks, looks: list[Look], overslept_ns: int) -> tuple[Verdict, Look | None]:
    """Why the loop stood still between two beats.

    :param overslept_ns: by how much the watching thread, which only sleeps, was late meanwhile.
    """
    wall_ns = after.wall_ns - before.wall_ns
    ran_ns = after.process_ns - before.process_ns
    if 2 * (after.asleep_ns - before.asleep_ns) > wall_ns:
        return "suspended", None
    if 2 * overslept_ns > wall_ns and 2 * ran_ns < wall_ns:
        return ("suspended" if 20 * ran_ns < wall_ns else "descheduled"), None
    if 2 * (after.collecting_ns - before.collecting_ns) > wall_ns:
        return "collection", None
    look = looks[-1] if looks else None
    if look is None or (look.site is NOWHERE and not look.what):
        return "descheduled", None
    if look.module:
        return "import", look
    return ("thread" if look.waits else "code"), look


class LoopWatch:
    """Watches one event loop from when it is started, on it, until ``stop``.

    :param on_beat: called on the loop at every beat, with the time since the one before; must be quick.
    :param on_stall: called on the loop after each stall.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        on_beat: Callable[[int, int], None],
        on_stall: Callable[[Stillness], None],
        request_of: Callable[[FrameType | None], int],
        last_site: Callable[[], Site],
    ) -> None:
        self.loop = loop
        self._on_beat = on_beat
        self._on_stall = on_stall
        self._request_of = request_of
        self._last_site = last_site
        self._thread = threading.get_ident()
        self._loop_clock = time.pthread_getcpuclockid(self._thread) if hasattr(time, "pthread_getcpuclockid") else None
        self._collecting_ns = self._collection_began_ns = 0
        self._looks: list[Look] = []
        self._overslept_ns = 0
        self._due_ns = 0
        self._timer: asyncio.TimerHandle | None = None
        self._stopped = threading.Event()
        self._clocks = self.read()
        gc.callbacks.append(self._note_collection)
        self._beat_again()
        self._watcher = threading.Thread(target=self._watch, name="headgate-xray", daemon=True)
        self._watcher.start()

    def stop(self) -> None:
        """Stop watching; from the loop's thread, or when the loop is closed."""
        self._stopped.set()
        gc.callbacks.remove(self._note_collection)
        if self._timer is not None:
            self._timer.cancel()

    def abandon(self) -> None:
        """In a forked child: the loop is the parent's, and so is the thread that watches it. Takes no lock."""
        gc.callbacks.remove(self._note_collection)

    def read(self) -> Clocks:
        """The clocks, from any thread while the loop's lives."""
        monotonic_ns = time.monotonic_ns()
        loop_ns = 0 if self._loop_clock is None else time.clock_gettime_ns(self._loop_clock)
        return Clocks(monotonic_ns, time.process_time_ns(), loop_ns, _asleep_ns(), self._collecting_ns)

    # on the loop

    def _beat_again(self) -> None:
        self._due_ns = time.monotonic_ns() + TICK_NS
        self._timer = self.loop.call_later(TICK_NS / 1e9, self._beat)

    def _beat(self) -> None:
        now_ns, due_ns = time.monotonic_ns(), self._due_ns
        if now_ns - due_ns > STALL_NS:
            self._tell_stall(due_ns, now_ns)
        self._clocks = self.read()
        self._looks, self._overslept_ns = [], 0
        self._on_beat(now_ns, now_ns - due_ns + TICK_NS)
        self._beat_again()

    def _tell_stall(self, due_ns: int, now_ns: int) -> None:
        verdict, look = judge(self._clocks, self.read(), self._looks, self._overslept_ns)
        if look is None:
            self._on_stall(Stillness(due_ns, now_ns, verdict, NOWHERE, "", 0))
        else:
            what = look.module or look.what
            self._on_stall(Stillness(due_ns, now_ns, verdict, look.site, what, look.request))

    def _note_collection(self, phase: str, _: dict[str, int]) -> None:
        if threading.get_ident() != self._thread:
            return
        if phase == "start":
            self._collection_began_ns = time.monotonic_ns()
        else:
            self._collecting_ns += time.monotonic_ns() - self._collection_began_ns

    # in the thread that watches

    def _watch(self) -> None:
        look_after_ns = STALL_NS // 2
        asleep_since_ns = time.monotonic_ns()
        while not self._stopped.wait(TICK_NS / 1e9):
            now_ns = time.monotonic_ns()
            self._overslept_ns += max(0, now_ns - asleep_since_ns - 2 * TICK_NS)
            late_ns = now_ns - self._due_ns
            if late_ns < look_after_ns:
                look_after_ns = STALL_NS // 2
            elif len(self._looks) < MOST_SAMPLES:
                self._looks.append(self._look())
                look_after_ns = max(look_after_ns, late_ns) * 2
            asleep_since_ns = time.monotonic_ns()

    def _look(self) -> Look:
        deepest = sys._current_frames().get(self._thread)
        if deepest is None:
            return Look(NOWHERE, NOWHERE, "", 0, "", waits=False)
        found = app_frame(deepest)
        site = self._last_site() if found is None else site_of(found)
        return Look(
            site=site,
            deepest=site_of(deepest),
            what="" if found is deepest else _what(deepest),
            request=self._request_of(deepest),
            module=_imported(deepest),
            waits=deepest.f_code.co_filename.endswith(_WAITS),
        )


def _what(deepest: FrameType) -> str:
    module = deepest.f_globals.get("__name__", "").partition(".")[0]
    return f"{module}.{deepest.f_code.co_qualname}" if module else deepest.f_code.co_qualname


def _imported(frame: FrameType | None) -> str:
    """The outermost module that is being imported in this call; '' if none is."""
    module = ""
    while frame is not None:
        if frame.f_code.co_name == "_find_and_load" and frame.f_code.co_filename.startswith("<frozen importlib"):
            module = str(frame.f_locals.get("name", "?"))
        frame = frame.f_back
    return module


def _asleep_ns() -> int:
    """How long the machine has been suspended since it was started; 0 where that cannot be told."""
    if not hasattr(time, "CLOCK_BOOTTIME"):
        return 0
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.monotonic_ns()
