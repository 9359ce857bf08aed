"""Worker threads: one that waits in the gate is not counted, so that whoever holds a connection finds one to go on.

Sync endpoints and dependencies run in the worker threads of an event loop, forty by default. If all of them waited
for a connection, those who hold the connections could not run on to give them back.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from typing import Final

from anyio import CapacityLimiter
from anyio.to_thread import current_default_thread_limiter

MOST_LENT: Final = 200
"""So many more threads are allowed at most; who would need one more is turned away instead of waiting."""


class WorkerThreads:
    """The worker threads of one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, limiter: CapacityLimiter) -> None:
        self.loop = loop
        self._limiter = limiter
        self._lock = threading.Lock()
        self._lent = 0
        self._added = 0
        self._left_at = limiter.total_tokens

    def lend(self, *, is_bounded: bool) -> bool:
        """Allow one more thread, because the calling one waits; False if too many wait already.

        :param is_bounded: it may be turned away; who is under way may not, and is always lent one.
        """
        with self._lock:
            if is_bounded and self._lent >= MOST_LENT:
                return False
            self._lent += 1
        self._schedule(1)
        return True

    def take_back(self) -> None:
        """Allow one thread less, because the calling one goes on."""
        with self._lock:
            self._lent -= 1
        self._schedule(-1)

    def _schedule(self, number: int) -> None:
        with suppress(RuntimeError):  # the loop is closed, and nobody waits for a thread of it any more
            self.loop.call_soon_threadsafe(self._change, number)

    def _change(self, number: int) -> None:
        if self._limiter.total_tokens != self._left_at:  # the application has set its own number, without ours
            self._added = 0
        if self._added + number >= 0:
            self._added += number
            self._limiter.total_tokens += number
        self._left_at = self._limiter.total_tokens


_known: dict[int, WorkerThreads] = {}
"""The worker threads of the loop that ran last in a thread, by the thread's identifier."""


def worker_threads() -> WorkerThreads:
    """The worker threads of the event loop that runs here.

    Asking asyncio costs a system call on Python 3.11; a thread runs one loop at a time, so the one that was found
    here before is still it as long as it runs.
    """
    found = _known.get(threading.get_ident())
    if found is None or not found.loop.is_running():
        found = _known[threading.get_ident()] = WorkerThreads(
            asyncio.get_running_loop(), current_default_thread_limiter()
        )
    return found
