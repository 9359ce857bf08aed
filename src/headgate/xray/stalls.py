"""When an event loop stood still, for how long, and because of what.

A beat on the loop says when it ran last; a thread that watches looks, once a beat is late, at what the loop's thread
does. How long it took is told by the next beat: the thread itself may have been kept from running.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from types import FrameType
from typing import BinaryIO, Final, Literal, NamedTuple

from headgate.xray.app_code import is_app_code, site_of
from headgate.xray.awaiting import name_of, package_of
from headgate.xray.observation import BEAT_NS, NOWHERE, Site

Verdict = Literal["code", "collection", "import", "thread", "contended", "descheduled", "suspended"]

STALL_NS: Final = 50_000_000
"""A beat that is later than this is a stall."""

MOST_SAMPLES: Final = 8
"""Of one stall; the second look comes after twice the time of the first, and so on."""

_MOST_FRAMES: Final = 500
_WAITS: Final = ("threading.py", "queue.py", "concurrent/futures/_base.py", "concurrent/futures/thread.py")
_RUN_ONCE: Final = asyncio.BaseEventLoop._run_once.__code__  # type: ignore[attr-defined]
_RUN_HANDLE: Final = asyncio.Handle._run.__code__
_SWITCHING: Final = ("sqlalchemy", "headgate", "sqlmodel")
"""Packages that run sync code in a greenlet, whose stack ends where the greenlet begins."""


class Look(NamedTuple):
    """What the loop's thread was doing at one instant.

    :ivar site: the application's line; ``NOWHERE`` if none of its code was being run.
    :ivar what: the function that line had called, or else the one that was being run; ``async`` and the one that a
        greenlet of SQLAlchemy's runs.
    :ivar request: the one it was doing that for, if that is known.
    :ivar module: what was being imported, if that is what it did.
    """

    site: Site
    what: str
    request: object | None = None
    module: str = ""
    waits: bool = False


class Clocks(NamedTuple):
    """Readings that tell a busy loop from one that was not allowed to run."""

    wall_ns: int
    process_ns: int
    loop_ns: int
    asleep_ns: int
    """How long the machine has slept since it was started."""
    collection_ns: int
    """The longest collection of garbage since the beat before."""
    kept_waiting_ns: int = 0
    """How long the loop's thread was ready to run and not let."""


class Stillness(NamedTuple):
    """A stall: when, why, where, and what was done there."""

    began_ns: int
    ended_ns: int
    verdict: Verdict
    site: Site
    what: str
    request: object | None


def judge(before: Clocks, after: Clocks, looks: list[Look], overslept_ns: int) -> tuple[Verdict, Look | None]:
    """Why the loop stood still between two beats.

    :param looks: those that found it doing something.
    :param overslept_ns: by how much the watching thread, which only sleeps, was late meanwhile.
    """
    wall_ns = after.wall_ns - before.wall_ns
    ran_ns, loop_ns = after.process_ns - before.process_ns, after.loop_ns - before.loop_ns
    if 2 * (after.asleep_ns - before.asleep_ns) > wall_ns:
        return "suspended", None
    if 2 * after.collection_ns > wall_ns:  # many short ones are the doing of whoever makes so many objects
        return "collection", None
    it_ran = loop_ns > STALL_NS  # it would have been a stall on an idle machine too
    if not it_ran and 2 * max(overslept_ns, after.kept_waiting_ns - before.kept_waiting_ns) > wall_ns > 2 * ran_ns:
        return ("suspended" if 10 * ran_ns < wall_ns else "descheduled"), None
    others_ran = 2 * ran_ns > wall_ns and 5 * loop_ns < wall_ns
    look = _most_seen(looks)
    if look is None or (others_ran and _wander(looks)):
        return _judge_unseen(others_ran, it_ran), None
    if look.module:
        return "import", look
    return ("thread" if look.waits else "code"), look


def _judge_unseen(others_ran: bool, it_ran: bool) -> Verdict:
    if it_ran:
        return "code"
    return "contended" if others_ran else "descheduled"


def _most_seen(looks: list[Look]) -> Look | None:
    """What most looks found, of as many one that found a line of the application's, and of those the latest."""
    counts = Counter((look.site, look.what) for look in looks)
    return max(
        reversed(looks),
        key=lambda look: (counts[look.site, look.what], look.site != NOWHERE),
        default=None,
    )


def _wander(looks: list[Look]) -> bool:
    """Whether each look found something else: a thread that waits for the interpreter's lock here and there."""
    return len(looks) > 1 and len({(look.site, look.what) for look in looks}) == len(looks)


class LoopWatch:
    """Watches one event loop from when it is started, on it, until ``stop``.

    :param on_beat: called on the loop at every beat, with the time since the one before; must be quick.
    :param on_stall: called on the loop after each stall.
    :param request_of: the request whose code a stack is, the deepest frame first; asked from the thread that watches.
    :param who_switched: the request in whose greenlet the loop is now, and the line of its latest statement; likewise.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        on_beat: Callable[[int, int], None],
        on_stall: Callable[[Stillness], None],
        request_of: Callable[[list[FrameType]], object | None],
        who_switched: Callable[[], tuple[Site, object | None]],
    ) -> None:
        self.loop = loop
        self.late_ns = 0
        """All beats' lateness."""
        self.blocked_ns = 0
        """How long the loop's thread was seen in calls that used no CPU; in steps of a tick."""
        self._on_beat = on_beat
        self._on_stall = on_stall
        self._request_of = request_of
        self._who_switched = who_switched
        self._thread = threading.get_ident()
        self._loop_clock = time.pthread_getcpuclockid(self._thread) if hasattr(time, "pthread_getcpuclockid") else None
        self._delays = _delays_of_this_thread()
        self._loop_ns = self._loop_before_ns = 0
        self._loop_before_ns = self._read_loop_clock()
        self._collection_ns = self._collection_began_ns = 0
        self._looks: list[Look] = []
        self._look_after_ns = STALL_NS // 2
        self._overslept_ns = 0
        self._asleep_since_ns = time.monotonic_ns()
        self._polled_ns = self._found_ns = 0  # when it was last seen to wait, and when to work for the first time since
        self._due_ns = 0
        self._below_loop = _RUN_ONCE
        self._timer: asyncio.TimerHandle | None = None
        self._stopped = threading.Event()
        self.clocks = self.read()
        """As of the latest beat."""
        gc.callbacks.append(self._note_collection)
        self._beat_again()
        self._watcher = threading.Thread(target=self._watch, name="headgate-xray", daemon=True)
        self._watcher.start()

    def stop(self) -> None:
        """Stop watching; from the loop's thread, or when the loop is closed."""
        self._stopped.set()
        if self._delays is not None:
            self._delays.close()
        gc.callbacks.remove(self._note_collection)
        if self._timer is not None:
            self._timer.cancel()

    def abandon(self) -> None:
        """In a forked child: the loop is the parent's, and so is the thread that watches it. Takes no lock."""
        gc.callbacks.remove(self._note_collection)

    def read(self) -> Clocks:
        """The clocks, from any thread."""
        return Clocks(
            time.monotonic_ns(),
            time.process_time_ns(),
            self._read_loop_clock(),
            _asleep_ns(),
            self._collection_ns,
            self._read_delays(),
        )

    def _read_loop_clock(self) -> int:
        if self._loop_clock is not None:
            try:
                self._loop_ns = time.clock_gettime_ns(self._loop_clock) - self._loop_before_ns
            except OSError:  # its thread has ended
                self._loop_clock = None
        return self._loop_ns

    def _read_delays(self) -> int:
        delays = self._delays
        if delays is None:
            return 0
        try:
            return int(os.pread(delays.fileno(), 100, 0).split()[1])
        except (OSError, ValueError, IndexError):  # its thread has ended
            return 0

    def standing_still(self) -> Stillness | None:
        """The stall that lasts now, as far as it has come; None if none does. From any thread but the loop's."""
        due_ns, now_ns = self._due_ns, time.monotonic_ns()
        if now_ns - due_ns <= STALL_NS:
            return None
        looks = list(self._looks) or [look for look in (self._look(),) if look is not None]
        return self._stillness(self._stall_began(due_ns), now_ns, looks)

    # on the loop

    def _beat_again(self) -> None:
        self._due_ns = time.monotonic_ns() + BEAT_NS
        self._timer = self.loop.call_later(BEAT_NS / 1e9, self._beat)

    def _beat(self) -> None:
        now_ns, due_ns = time.monotonic_ns(), self._due_ns
        self._note_loop(sys._getframe(1))
        if now_ns - due_ns > STALL_NS:
            self._on_stall(self._stillness(self._stall_began(due_ns), now_ns, self._looks))
        self.late_ns += now_ns - due_ns
        self.clocks = self.read()
        self._looks, self._look_after_ns = [], STALL_NS // 2
        self._overslept_ns = self._collection_ns = 0
        self._on_beat(now_ns, now_ns - due_ns + BEAT_NS)
        self._beat_again()

    def _note_loop(self, caller: FrameType) -> None:
        """uvloop polls in C: all that is seen of it then is the function that runs the loop, as in its callbacks."""
        if caller.f_code is not _RUN_HANDLE:
            self._below_loop = caller.f_code

    def _stall_began(self, due_ns: int) -> int:
        """In the middle of when it may have begun, between the beat before and the one that was due."""
        earliest_ns = max(due_ns - BEAT_NS, min(self._polled_ns, due_ns))
        latest_ns = min(due_ns, self._found_ns or due_ns)
        return (earliest_ns + max(earliest_ns, latest_ns)) // 2

    def _stillness(self, began_ns: int, now_ns: int, looks: list[Look]) -> Stillness:
        overslept_ns = self._overslept_ns + max(0, now_ns - self._asleep_since_ns - 2 * BEAT_NS)  # it may sleep still
        verdict, look = judge(self.clocks, self.read(), looks, overslept_ns)
        if look is None:
            return Stillness(began_ns, now_ns, verdict, NOWHERE, "", None)
        return Stillness(began_ns, now_ns, verdict, look.site, look.module or look.what, look.request)

    def _note_collection(self, phase: str, _: dict[str, int]) -> None:
        """In whatever thread: the others wait meanwhile."""
        if phase == "start":
            self._collection_began_ns = time.monotonic_ns()
        else:
            self._collection_ns = max(self._collection_ns, time.monotonic_ns() - self._collection_began_ns)

    # in the thread that watches

    def _watch(self) -> None:
        ran_ns = self._read_loop_clock() + self._read_delays()
        while not self._stopped.wait(BEAT_NS / 1e9):
            look = self._look()  # at once: to read a file lets the loop go on
            now_ns, ran_now_ns = time.monotonic_ns(), self._read_loop_clock() + self._read_delays()
            self._note_look(look, now_ns, ran_now_ns - ran_ns)
            ran_ns, self._asleep_since_ns = ran_now_ns, time.monotonic_ns()

    def _note_look(self, look: Look | None, now_ns: int, ran_ns: int) -> None:
        """Take note of what was seen; ``ran_ns`` is for how long the loop's thread has run since, or wanted to."""
        elapsed_ns = now_ns - self._asleep_since_ns
        self._overslept_ns += max(0, elapsed_ns - 2 * BEAT_NS)
        if look is None:
            self._polled_ns, self._found_ns = now_ns, 0
            return
        self._found_ns = self._found_ns or now_ns
        if 2 * ran_ns < elapsed_ns:
            self.blocked_ns += elapsed_ns - ran_ns
        late_ns = now_ns - self._due_ns
        if late_ns >= self._look_after_ns and len(self._looks) < MOST_SAMPLES:
            self._looks.append(look)
            self._look_after_ns = 2 * late_ns

    def _look(self) -> Look | None:
        """What the loop's thread does; None if it waits for something to do."""
        frame = sys._current_frames().get(self._thread)
        stack: list[FrameType] = []
        while frame is not None and frame.f_code is not self._below_loop and len(stack) < _MOST_FRAMES:
            stack.append(frame)
            frame = frame.f_back
        if not stack or (len(stack) == 1 and stack[0].f_code.co_name == "select"):  # the selector's, called by the loop
            return None
        return look_at(stack, self._request_of, self._who_switched, is_whole=frame is not None)


def look_at(
    stack: list[FrameType],
    request_of: Callable[[list[FrameType]], object | None],
    who_switched: Callable[[], tuple[Site, object | None]],
    *,
    is_whole: bool,
) -> Look:
    """What a stack does.

    :param stack: the deepest frame first.
    :param is_whole: it goes out to where the loop is run; one that does not is a greenlet's.
    """
    imported = _outermost_import(stack)
    number = _nearest_app_frame(stack, from_number=imported + 1)
    site, request = NOWHERE if number is None else site_of(stack[number]), request_of(stack)
    what = "" if number == 0 else name_of(stack[number - 1 if number else 0])
    if not is_whole and package_of(stack[-1]) in _SWITCHING:
        latest, request = who_switched()
        if number is None:
            site, what = latest, f"async {name_of(stack[-1])}"
    return Look(
        site=site,
        what=what,
        request=request,
        module="" if imported < 0 else str(stack[imported].f_locals.get("name", "?")),
        waits=stack[0].f_code.co_filename.endswith(_WAITS),
    )


def _nearest_app_frame(stack: list[FrameType], from_number: int) -> int | None:
    return next((number for number in range(from_number, len(stack)) if is_app_code(stack[number].f_code)), None)


def _outermost_import(stack: list[FrameType]) -> int:
    """Where in a stack a module is imported, -1 for nowhere; what lies below is that module's own doing."""
    for number in range(len(stack) - 1, -1, -1):
        code = stack[number].f_code
        if code.co_name == "_find_and_load" and code.co_filename.startswith("<frozen importlib"):
            return number
    return -1


def _delays_of_this_thread() -> BinaryIO | None:
    """Where Linux tells how long this thread was ready to run and not let; None elsewhere."""
    try:
        return open(f"/proc/self/task/{threading.get_native_id()}/schedstat", "rb", buffering=0)
    except OSError:
        return None


def _asleep_ns() -> int:
    """How long the machine has been suspended since it was started; 0 where that cannot be told."""
    if not hasattr(time, "CLOCK_BOOTTIME"):
        return 0
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.monotonic_ns()
