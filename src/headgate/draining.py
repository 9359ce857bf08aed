"""What a finalizer gave back while the gate's lock was held, and who passes it on.

A finalizer can run anywhere, also in a thread that holds this very lock, so it must not wait for it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from typing import NamedTuple

from headgate.queueing import Kind
from headgate.waiters import TaskWaiter, ThreadWaiter


class ReturnedPermit(NamedTuple):
    """A permit after ``use_ns`` of use."""

    kind: Kind
    use_ns: int
    is_reserved: bool


class Abandoned(NamedTuple):
    """The turn of a waiter that was interrupted."""

    waiter: ThreadWaiter | TaskWaiter


class Draining:
    """Around the gate's lock: whoever has released it passes on what was given back meanwhile.

    The lock itself is only ever taken by its own ``with``: a signal's exception has no gap there to leave it locked in.
    """

    __slots__ = ("_lock", "_pass_on", "_returned")

    def __init__(self, lock: threading.Lock, returned: Collection[object], pass_on: Callable[[], None]) -> None:
        self._lock = lock
        self._returned = returned
        self._pass_on = pass_on

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exc: object) -> None:
        if self._returned:
            self.drain()

    def drain(self) -> None:
        """Pass on what was given back, unless somebody holds the lock, who comes by after releasing it."""
        while self._returned and not self._lock.locked():
            with self._lock:
                self._pass_on()
