"""What is known of this process while it works: what metrics, log lines and the console are made of."""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Callable
from typing import Final, Protocol

from headgate.config import Clock
from headgate.gate import Gate
from headgate.xray.live import LiveHold, LiveRequest, PoolTally
from headgate.xray.observation import Stall
from headgate.xray.pools import PoolNow, label_of, look_at_pools
from headgate.xray.slow_log import SlowLog
from headgate.xray.sums import PoolFigures, RouteFigures, Sums
from headgate.xray.watch import Watch


class Meter(Protocol):
    """Is told each hold that has ended and each connection that was opened, with the name of its pool."""

    def hold(self, pool: str, waited_ns: int, used_ns: int) -> None:
        """Somebody has held a connection; ``waited_ns`` is -1 where it was not asked for."""

    def creation(self, pool: str, took_ns: int) -> None:
        """A connection was opened."""


class Export(Protocol):
    """Shows figures somewhere else."""

    def start(self, figures: Figures) -> None:
        """Begin; called once."""


class Figures:
    """One a watch.

    :ivar began_ns: when it began to count.
    """

    def __init__(self, watch: Watch, clock: Clock = time.monotonic_ns) -> None:
        self.watch = watch
        self.clock = clock
        self.began_ns = clock()
        self.meters: list[Meter] = []
        self.slow_log: SlowLog | None = None
        self._sums = Sums(lambda tally: label_of(tally, watch.databases))
        self._gates: list[weakref.ref[Gate]] = []
        self._exports: list[Export] = []
        self._left_out: set[int] = set()

    # what is to be shown, and where

    def know_gate(self, gate: Gate) -> None:
        """Show a gate also before its first lease."""
        self._gates = [known for known in self._gates if known() not in (None, gate)] + [weakref.ref(gate)]

    def export(self, export: Export) -> None:
        """Begin to show them somewhere else, once."""
        if export not in self._exports:
            self._exports.append(export)
            export.start(self)

    def leave_out(self, request: LiveRequest) -> None:
        """Do not count a request of our own."""
        self._left_out.add(id(request))

    def is_left_out(self, request: LiveRequest) -> bool:
        """Whether it is one of our own."""
        return id(request) in self._left_out

    # what happens: told by the watch

    def end_request(self, request: LiveRequest) -> None:
        """Add up a request that has ended."""
        if self._left_out and id(request) in self._left_out:
            self._left_out.discard(id(request))
            return
        until_ns = request.answered_ns or request.ended_ns
        self._sums.add_request(request, until_ns)
        if self.slow_log is not None and until_ns - request.began_ns >= self.slow_log.threshold_ns:
            self.slow_log.say(request, request.account(until_ns))
        if self.meters:
            for hold in request.holds:
                if hold.ended_ns:
                    self._measure(hold)

    def end_hold(self, hold: LiveHold) -> None:
        """Add up a hold of no request, or of one that has ended before it."""
        self._sums.add_hold(hold)
        self._measure(hold)

    def connect(self, pool: PoolTally, took_ns: int) -> None:
        """Add up a connection that was opened."""
        self._sums.add_creation(pool, took_ns)
        for meter in self.meters:
            meter.creation(self._sums.label(pool), took_ns)

    def _measure(self, hold: LiveHold) -> None:
        for meter in self.meters:
            meter.hold(self._sums.label(hold.pool), hold.waited_ns, max(0, hold.ended_ns - hold.began_ns))

    def start_anew(self) -> None:
        """In a forked child."""
        self._sums.start_anew()
        self._left_out.clear()
        self.began_ns = self.clock()

    # what is known

    def routes(self) -> list[RouteFigures]:
        """The requests so far, by route."""
        return self._sums.routes()

    def uses(self) -> list[PoolFigures]:
        """The connections so far, by the name of their pools."""
        return self._sums.pools()

    def pools(self) -> list[PoolNow]:
        """The pools now."""
        live = self.watch.live
        gates = [gate for known in self._gates if (gate := known()) is not None]
        tallies = [(self._sums.label(tally), tally) for tally in list(live.pools.values())]
        return look_at_pools(gates, tallies, list(live.holds.values()))

    def stalls(self) -> tuple[Stall, ...]:
        """The stalls so far."""
        return self.watch.stalls()

    def requests(self) -> list[LiveRequest]:
        """Those in flight, our own left out; the oldest first."""
        found = [one for one in list(self.watch.live.requests.values()) if not self.is_left_out(one)]
        return sorted(found, key=lambda request: request.began_ns)

    def holds(self) -> list[LiveHold]:
        """Those that last, the oldest first."""
        holds = list(self.watch.live.holds.values())  # at once, because other threads change it
        return sorted(holds, key=lambda hold: hold.began_ns)


def figures_of(watch: Watch, make: Callable[[Watch], Figures] = Figures) -> Figures:
    """Those of a watch, which counts from the first time they are asked for."""
    found = next((listener for listener in watch.listeners if isinstance(listener, Figures)), None)
    if found is None:
        found = make(watch)
        watch.listeners.append(found)
        _all.add(found)
    return found


_all: Final[weakref.WeakSet[Figures]] = weakref.WeakSet()


def _start_anew() -> None:
    for figures in list(_all):
        figures.start_anew()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_start_anew)
