"""Whose turn it is on a connection that sessions share: one statement at a time, and one session that writes."""

from __future__ import annotations

import asyncio
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sqlalchemy.util import await_only

from headgate.config import Clock

PAUSE_S = 0.001
"""Who waits may be a thread or a task of any event loop: looking again serves them all."""


class Work:
    """What one session has written and not yet committed or rolled back."""

    __slots__ = ("__weakref__", "has_failed", "is_abandoned", "is_open", "site")

    def __init__(self) -> None:
        self.is_open = False
        self.has_failed = False
        self.is_abandoned = False
        self.site = ""


class Turns:
    """Threads and tasks take turns; whoever writes keeps other writers out until its work ends.

    :param is_async: how to wait: as a task under SQLAlchemy's greenlets, or as a thread.
    :param max_wait_ns: how long to wait for a writer of which nothing is heard.
    :param refuse: makes the error for somebody who waited for this work in vain.
    """

    def __init__(
        self, *, is_async: bool, max_wait_ns: int, refuse: Callable[[Work], Exception], clock: Clock = time.monotonic_ns
    ) -> None:
        self._is_async = is_async
        self._max_wait_ns = max_wait_ns
        self._refuse = refuse
        self._clock = clock
        self._mutex = threading.Lock()
        self._turn_of: object = None
        self._heard_ns = 0
        self._writer: weakref.ref[Work] | None = None

    @contextmanager
    def alone(self, who: object, *, writes: bool = False) -> Iterator[None]:
        """Nobody else is in meanwhile; a session comes with its work, others need not care who writes."""
        self._wait(who, writes)
        try:
            yield
        finally:
            self._heard_ns = self._clock()
            self._turn_of = None

    def _wait(self, who: object, writes: bool) -> None:
        started_ns = self._clock()
        while not self._take_nowait(who, writes):
            # A statement that runs ends by itself; a session that is open and says nothing may wait for this one.
            silent_ns = self._clock() - max(started_ns, self._heard_ns)
            writer = self._writing()
            if self._turn_of is None and silent_ns > self._max_wait_ns and writer is not None:
                raise self._refuse(writer)
            self._pause()

    def _take_nowait(self, who: object, writes: bool) -> bool:
        with self._mutex:
            if self._turn_of is not None or self._is_kept_out(who, writes):
                return False
            self._turn_of = who
            return True

    def _is_kept_out(self, who: object, writes: bool) -> bool:
        writer = self._writing()
        if writer is None or writer is who or not isinstance(who, Work):
            return False
        return writes or writer.has_failed

    def _pause(self) -> None:
        if self._is_async:
            await_only(asyncio.sleep(PAUSE_S))
        else:
            time.sleep(PAUSE_S)

    # who writes

    def open_work(self, work: Work, site: str) -> None:
        """From here on this session is the one that writes."""
        self._writer = weakref.ref(work)
        work.is_open, work.site = True, site

    def close_work(self, work: Work | None = None) -> None:
        """Nobody writes any more."""
        self._writer = None
        if work is not None:
            work.is_open = work.has_failed = False

    @property
    def is_work_abandoned(self) -> bool:
        """True if something was written by a session that can no longer end it."""
        return self._writer is not None and self._writing() is None

    def _writing(self) -> Work | None:
        work = None if self._writer is None else self._writer()
        return None if work is None or work.is_abandoned else work
