"""The event loops of a test: each is watched for stalls while something of the test's runs on it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from headgate.xray.live import Live
from headgate.xray.observation import NOWHERE, Site
from headgate.xray.stalls import LoopWatch, Stillness

DEBUGGERS: Final = ("pdb.", "bdb.", "cmd.", "IPython.", "pydevd.", "_pydevd_bundle.", "_pytest.")
"""Somebody looks at the test, or pytest works."""

OnStall = Callable[[Site, str, int], None]


class Loops:
    """Every loop is watched from when the first enters it until the last has left.

    :param stall_ns: shorter ones are not told of; what ``LoopWatch`` takes for none never is.
    :param on_stall: told of stalls by code on the loop, with its line, what ran there, and for how long.
    """

    def __init__(self, live: Live, stall_ns: int, on_stall: OnStall) -> None:
        self._live = live
        self._stall_ns = stall_ns
        self._on_stall = on_stall
        self._watched: dict[int, _Watched] = {}

    def enter(self, loop: asyncio.AbstractEventLoop) -> None:
        """Something begins to run on a loop; called on it."""
        watched = self._watched.get(id(loop))
        if watched is None:
            watched = self._watched[id(loop)] = _Watched(loop, self._live, self._tell)
        watched.users += 1

    def leave(self, loop: asyncio.AbstractEventLoop) -> None:
        """It has ended; called on the loop, or when that is closed."""
        watched = self._watched.get(id(loop))
        if watched is None:
            return
        watched.users -= 1
        if not watched.users:
            del self._watched[id(loop)]
            watched.end()

    def close(self) -> None:
        """Stop watching what was never left."""
        while self._watched:
            self._watched.popitem()[1].stop()

    def _tell(self, stall: Stillness, starved_ns: int) -> None:
        lasted_ns = stall.ended_ns - stall.began_ns - starved_ns
        is_code = stall.verdict == "code" and stall.site != NOWHERE and not stall.what.startswith(DEBUGGERS)
        if is_code and lasted_ns >= self._stall_ns:
            self._on_stall(stall.site, stall.what, lasted_ns)


class _Watched(LoopWatch):
    """A loop that is watched, with how many want it to be.

    A machine with other things to do stalls a loop, too: what the kernel says that the thread has waited for a
    processor is taken off.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, live: Live, tell: Callable[[Stillness, int], None]) -> None:
        self.users = 0
        super().__init__(
            loop,
            on_beat=lambda now_ns, since_ns: None,
            on_stall=lambda stall: tell(stall, self.read().kept_waiting_ns - self.clocks.kept_waiting_ns),
            request_of=lambda stack: None,
            who_switched=lambda: (_latest_statement(live, loop), None),
        )

    def end(self) -> None:
        """Stop, with a last beat: the loop may not come to its next one."""
        if not self.loop.is_closed():
            if self._timer is not None:
                self._timer.cancel()
            self._beat()
        self.stop()


def _latest_statement(live: Live, loop: asyncio.AbstractEventLoop) -> Site:
    """The line of the latest statement on a connection that the loop's task holds."""
    task = asyncio.current_task(loop)
    return next((hold.at for hold in list(live.holds.values()) if hold.task is task), NOWHERE)
