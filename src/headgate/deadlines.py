"""What ends a block at its deadline: one thread for all of them, because a block may run in any thread or event loop.

Requests of a web application do without: their event loop has timers.
"""

from __future__ import annotations

import heapq
import itertools
import os
import threading
import time
from typing import Final, Protocol

from headgate.queueing import Reason

LEAST_FORGOTTEN: Final = 1000
"""So many entries of what is over may be kept, before they are looked for."""


class Timer(Protocol):
    """What ends a request at its deadline."""

    def set(self, deadline_ns: int) -> None:
        """The deadline is, or has become, this one."""
        ...


class Ending(Protocol):
    """A request or a block, as far as its deadline is concerned."""

    def end(self, reason: Reason) -> None: ...


class Alarm:
    """Ends blocks at their deadlines."""

    def __init__(self) -> None:
        self.start_anew()

    def start_anew(self) -> None:
        """In a forked child: the thread and the requests are the parent's."""
        self._changed = threading.Condition()
        self._due: list[tuple[float, int]] = []
        self._requests: dict[int, Ending] = {}
        self._numbers = itertools.count()
        self._thread: threading.Thread | None = None

    def set(self, request: Ending, seconds: float) -> int:
        """End a block after that time, unless the number that is returned is forgotten before."""
        number = next(self._numbers)
        entry = (time.monotonic() + seconds, number)
        with self._changed:
            self._requests[number] = request
            if len(self._due) > 2 * len(self._requests) + LEAST_FORGOTTEN:
                self._due = [due for due in self._due if due[1] in self._requests]
                heapq.heapify(self._due)
            heapq.heappush(self._due, entry)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="headgate-deadlines", daemon=True)
                self._thread.start()
            elif self._due[0] is entry:
                self._changed.notify()
        return number

    def forget(self, number: int | None) -> None:
        """It is over; None if it had no deadline."""
        if number is not None:
            self._requests.pop(number, None)

    def _run(self) -> None:
        while True:
            request = self._next()
            if request is not None:
                request.end("deadline")

    def _next(self) -> Ending | None:
        """Wait for the next deadline; None if there was nothing to end."""
        with self._changed:
            if not self._due:
                self._changed.wait()
                return None
            due_s, number = self._due[0]
            left_s = due_s - time.monotonic()
            if left_s > 0 and number in self._requests:
                self._changed.wait(min(left_s, threading.TIMEOUT_MAX))
                return None
            heapq.heappop(self._due)
            return self._requests.pop(number, None)


ALARM: Final = Alarm()

if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=ALARM.start_anew)
