"""Places: the connections of one pool that are really open, counted in the gate, and how room is made for one more."""

from __future__ import annotations

import socket
import weakref
from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING, Any

from headgate.drivers import has_input
from headgate.errors import LeaseError
from headgate.gate import Gate

if TYPE_CHECKING:
    from headgate.pool import _Leasing

END_TIMEOUT_MS = 100
"""How long a server may take to let go of a connection that was ended; it takes one or two."""

PAUSE_S = 0.002
ATTEMPTS = 2500
"""Closing takes milliseconds; whoever needs the place comes back that often, five seconds in all."""


class Places:
    """The places that the connections of one pool have taken in the gate."""

    def __init__(self, pool: _Leasing, gate: Gate) -> None:
        self._pool = weakref.ref(pool)
        self._gate = gate
        self._taken: set[int] = set()
        self.kin: list[weakref.ref[_Leasing]] = []
        """The other pools of the gate, which make room for each other."""

    def __len__(self) -> int:
        return len(self._taken)

    def pools(self) -> list[_Leasing]:
        """Every pool of the gate that still lives, this one last."""
        found = [ref() for ref in (*self.kin, self._pool)]
        return [pool for pool in found if pool is not None]

    def take(self) -> None:
        """Find room for one more connection; an idle one of either kind is ended if need be.

        Whoever has a permit finds a place: what is open and not idle is on its way from one state to the other.

        :raises LeaseError: nothing became idle for five seconds.
        """
        *_, own = self.pools()
        for _ in range(ATTEMPTS):
            if self._gate.take_place_nowait():
                return
            # A pool that was disposed of meanwhile has left its idle connections' room to its successor.
            known = dict.fromkeys((*self.pools(), *own.current().places.pools()))
            if not any(_evict_idle(pool, own) for pool in known):
                own.pause(PAUSE_S)
        raise LeaseError(
            f"database {self._gate.name!r}: all {self._gate.connections} connections of the budget are open "
            f"and none became idle within {ATTEMPTS * PAUSE_S:.0f} s.\n"
            f"State: {self._gate!r}.\nHeld by: {self._gate.describe_holders() or 'unknown'}.\n"
            "Remedies: 1. close detached connections. 2. raise connections=."
        )

    def remember(self, connection: Any) -> None:
        """The place just taken is this connection's."""
        self._taken.add(id(connection))

    def has(self, connection: Any) -> bool:
        """True until the connection has given its place back."""
        return id(connection) in self._taken

    def forget(self) -> None:
        """In a forked child: the connections are the parent's."""
        self._taken.clear()

    def give(self, connection: Any) -> None:
        """Give a connection's place back; once only, because a close that was interrupted is tried again."""
        try:
            self._taken.remove(id(connection))
        except KeyError:
            return
        self._gate.give_place()

    def end(self, connection: Any) -> None:
        """Give a connection's place back, having ended it if that has not happened; from anywhere, never awaits."""
        pool = self._pool()
        if pool is None or not self.has(connection):
            return
        if pool.driver.is_dead(connection):
            self.give(connection)
        else:
            _end(pool, connection, lambda descriptor: has_input(descriptor, END_TIMEOUT_MS))


def unite(one: _Leasing, other: _Leasing) -> None:
    """Make two pools of one gate make room for each other."""
    one.places.kin = [weakref.ref(other)]
    other.places.kin = [weakref.ref(one)]


def _evict_idle(pool: _Leasing, waits: _Leasing) -> bool:
    """End one idle connection of a pool, if there is one; called from any thread and from any event loop."""
    while (entry := pool.take_idle()) is not None:
        record: Any = entry
        connection = record.dbapi_connection
        if connection is None:
            continue
        record.dbapi_connection = None
        try:
            if pool.dispatch.close:
                pool.dispatch.close(connection, record)
        finally:
            _end(pool, connection, waits.wait_for_end)
        return True
    return False


def _end(pool: _Leasing, connection: Any, wait_for_end: Callable[[int], object]) -> None:
    try:
        descriptor = pool.driver.abort(connection)
        if descriptor is not None:
            with closing(socket.socket(fileno=descriptor)):
                wait_for_end(descriptor)
    finally:
        pool.places.give(connection)
