"""Admission: a request is let in once, at its first lease; from then on it goes before all newcomers.

A request's later leases are never shed, because half-done work that is thrown away was done for nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, Protocol

from headgate.cancelling import Cancelling, cancel_all
from headgate.config import Clock, require_deadline
from headgate.deadlines import ALARM, Timer
from headgate.errors import ConfigError
from headgate.queueing import Rank, Reason

if TYPE_CHECKING:
    from headgate.gate import Gate
    from headgate.lent import Lease


class Unfinished(Protocol):
    """What a request is waiting for: its turn, or a block within it."""

    def end(self, reason: Reason) -> None:
        """Give it up; safe from any thread."""
        ...


class Threads(Protocol):
    """The worker threads that a request's sync code runs in."""

    def lend(self, *, is_bounded: bool) -> bool:
        """Allow one more, because the calling one waits; False if too many wait already."""
        ...

    def take_back(self) -> None:
        """Allow one less, because the calling one goes on."""
        ...


class Admission:
    """What one request is to the gates of its databases.

    :ivar rank: its lane; what has not held a connection yet waits in it.
    :ivar deadline_ns: when nobody wants its answer any more; None if somebody will wait for ever.
    :ivar threads: what its sync code runs in; None outside of a web application.
    :ivar ended: why it was given up, None while somebody wants its answer.
    :ivar began_ns: when it came.
    :ivar asked: the gates it has asked for a connection.
    :ivar running: its statements that run now, by their leases.
    :ivar cancellings: those that are being cancelled.
    :ivar timer: what ends it at its deadline; told when that changes.
    """

    __slots__ = (
        "_gates",
        "_unfinished",
        "_unwanted",
        "asked",
        "began_ns",
        "cancellings",
        "deadline_ns",
        "ended",
        "rank",
        "running",
        "threads",
        "timer",
    )

    def __init__(self, began_ns: int, rank: Rank = Rank.NORMAL, threads: Threads | None = None) -> None:
        self.rank = rank
        self.began_ns = began_ns
        self.threads = threads
        self.deadline_ns: int | None = None
        self.ended: Reason | None = None
        self.asked: tuple[Gate, ...] = ()
        self.running: set[Lease] = set()
        self.cancellings: dict[Lease, Cancelling] = {}
        self.timer: Timer | None = None
        self._gates: tuple[Gate, ...] = ()
        self._unfinished: list[Unfinished] = []
        self._unwanted: Reason | None = None

    def admit(self, gate: Gate) -> None:
        """Note that it has held a connection of this gate."""
        if gate not in self._gates:
            self._gates = (*self._gates, gate)

    def ask(self, gate: Gate, *, is_under_way: bool) -> Ask:
        """What it wants of this gate now.

        :param is_under_way: the connection it is for has been leased before.
        """
        if gate not in self.asked:
            self.asked = (*self.asked, gate)
            gate.arrive(self)
        if not (is_under_way or gate in self._gates):
            return Ask(self.rank, self)
        return Ask(min(self.rank, Rank.UNDER_WAY), self, has_begun=True)

    @property
    def has_begun(self) -> bool:
        """True if it has held a connection at all: something may have been executed for it."""
        return bool(self._gates)

    def shorten(self, seconds: float) -> None:
        """Let its deadline be no later than so many seconds after it came."""
        deadline_ns = self.began_ns + round(seconds * 1e9)
        if self.deadline_ns is None or deadline_ns < self.deadline_ns:
            self.deadline_ns = deadline_ns
            if self.timer is not None:
                self.timer.set(deadline_ns)

    def begin(self, unfinished: Unfinished) -> None:
        """Note something to be given up when the request is."""
        self._unfinished.append(unfinished)
        if self.ended is not None:  # in between, by another thread, which knew nothing of this one
            unfinished.end(self.ended)
        elif self._unwanted is not None:
            self.end_unbegun(self._unwanted)

    def finish(self, unfinished: Unfinished) -> None:
        """Note that it is over."""
        self._unfinished.remove(unfinished)

    def end(self, reason: Reason) -> None:
        """Give up whatever the request waits for and runs; what it asks for from now on is refused."""
        if self.ended is not None:
            return
        self.ended = reason
        for unfinished in tuple(self._unfinished):
            unfinished.end(reason)
        cancel_all(self)

    def end_unbegun(self, reason: Reason) -> None:
        """Give it up if it waits for its first connection, now or later."""
        self._unwanted = reason
        if not self.has_begun and any(not isinstance(unfinished, Admission) for unfinished in self._unfinished):
            self.end(reason)

    def answer(self) -> None:
        """The response is complete: what still runs in its name has no deadline, and nobody waits for it."""
        self.ended = self.deadline_ns = self._unwanted = None


current_admission: Final[ContextVar[Admission | None]] = ContextVar("headgate_admission", default=None)
"""The request that runs here; threads and tasks that it starts inherit it."""


Lane = Literal["high", "normal", "low"]

LANES: Final[dict[Lane, Rank]] = {"high": Rank.HIGH, "normal": Rank.NORMAL, "low": Rank.LOW}


@contextmanager
def lane(name: Lane = "normal", *, deadline: float | None = None, clock: Clock = time.monotonic_ns) -> Iterator[None]:
    """A block whose sessions count as one request: the first lease is admitted, its later ones go before newcomers.

    For jobs and workers; requests have theirs from ``install`` and change it with ``Lane`` and ``Deadline``.

    :param name: ``high`` goes before everybody and may use the reserve, ``low`` goes last.
    :param deadline: seconds from now after which nobody wants the result.
    :raises ConfigError: an unknown lane, or a deadline that is not above 0.
    """
    require_deadline("deadline", deadline)
    outer, alarm = current_admission.get(), None
    admission = Admission(clock(), rank_of(name), threads=outer.threads if outer is not None else None)
    if deadline is not None:
        admission.shorten(deadline)
        alarm = ALARM.set(admission, deadline)
    if outer is not None:
        outer.begin(admission)
    token = current_admission.set(admission)
    try:
        yield
    finally:
        current_admission.reset(token)
        ALARM.forget(alarm)
        if outer is not None:
            outer.finish(admission)


def rank_of(name: Lane) -> Rank:
    """Return the rank of a lane.

    :raises ConfigError: there is no such lane.
    """
    if name not in LANES:
        raise ConfigError(f"lane {name!r} cannot work: use one of {', '.join(map(repr, LANES))}")
    return LANES[name]


class Ask(NamedTuple):
    """What somebody wants of a gate.

    :ivar rank: who goes before it.
    :ivar admission: the request it is for.
    :ivar has_begun: it has held a connection before, whatever its rank.
    """

    rank: Rank = Rank.NORMAL
    admission: Admission | None = None
    has_begun: bool = False

    @property
    def is_under_way(self) -> bool:
        """It is never turned away for being too many."""
        return self.has_begun or self.rank is Rank.UNDER_WAY

    @property
    def deadline_ns(self) -> int | None:
        """When it no longer wants anything."""
        return None if self.admission is None else self.admission.deadline_ns

    @property
    def threads(self) -> Threads | None:
        """The worker threads that a sync session waits in."""
        return None if self.admission is None else self.admission.threads


ORDINARY: Final = Ask()
"""Outside of a request, the first lease of a connection."""

UNDER_WAY: Final = Ask(Rank.UNDER_WAY, has_begun=True)
"""Outside of a request, its later leases."""
