"""One request's time, phase by phase.

What happens is noted as it happens, from any task or thread, and added up once: at every instant the request is in
exactly one phase, so the phases and the unattributed remainder are its time, whatever was noted.
"""

from __future__ import annotations

import threading
from contextvars import ContextVar
from typing import Final, NamedTuple

from headgate.names import UNATTRIBUTED

MOST_NOTES: Final = 4_096
"""Of a ledger; a request of a million statements keeps no more, and has the oldest ones added up early."""

MOST_IN_TURN: Final = 8
"""Notes of a ledger that is looked through for one thing after the other; more are hardly ever that."""

Note = tuple[int, int, int]
"""When, which phase, and 1 where it begins or -1 where it ends; phases may overlap each other and themselves."""


class Account(NamedTuple):
    """A request's time, added up.

    :ivar times_ns: one for each of ``PHASES``; their sum is ``total_ns``.
    """

    total_ns: int
    times_ns: tuple[int, ...]


class Ledger:
    """What one request does; every method may be called from any task or thread.

    :ivar began_ns: when it came.
    :ivar notes: what has been noted and not been added up early; hardly out of order.
    """

    __slots__ = ("_early", "began_ns", "notes")

    def __init__(self, began_ns: int) -> None:
        self.began_ns = began_ns
        self.notes: list[Note] = []
        self._early: _Reading | None = None

    def enter(self, phase: int, now_ns: int) -> None:
        """Note that a phase begins; one that has begun before goes on until it has ended as often."""
        notes = self.notes
        notes.append((now_ns, phase, 1))
        if len(notes) > MOST_NOTES:
            self._add_up_early()

    def leave(self, phase: int, now_ns: int) -> None:
        """Note that it ends."""
        self.notes.append((now_ns, phase, -1))

    def spend(self, phase: int, from_ns: int, to_ns: int) -> None:
        """Note a phase afterwards."""
        self.notes += ((from_ns, phase, 1), (to_ns, phase, -1))

    def account(self, now_ns: int) -> Account:
        """Its time until now; also until an earlier instant, such as its answer, if that is not too long ago."""
        with _ADDING_UP:
            early, notes = self._early, self.notes.copy()
        if early is None:
            if not notes:
                return Account(now_ns - self.began_ns, (*_NAMED, now_ns - self.began_ns))
            early = _begin(self.began_ns)
        until_ns = max(now_ns, early.at_ns)
        return Account(until_ns - self.began_ns, tuple(_read(early, notes, until_ns).times_ns))

    def charge(self, times_ns: list[int], until_ns: int) -> None:
        """Add its time until an instant that is not before its last note to ``times_ns``, by phase.

        As ``account`` has it, and for a request that has done one thing after the other a good deal cheaper.
        """
        at_ns, notes = self.began_ns, self.notes
        if self._early is None and len(notes) <= MOST_IN_TURN and not len(notes) % 2:
            before = times_ns.copy()
            remainder_ns = until_ns - at_ns
            pairs = iter(notes)
            for (from_ns, phase, begins), (to_ns, ended, _) in zip(pairs, pairs, strict=True):
                if phase != ended or begins < 0 or not at_ns <= from_ns <= to_ns <= until_ns:
                    times_ns[:] = before
                    break
                at_ns = to_ns
                times_ns[phase] += to_ns - from_ns
                remainder_ns -= to_ns - from_ns
            else:
                times_ns[UNATTRIBUTED] += remainder_ns
                return
        for phase, time_ns in enumerate(self.account(until_ns).times_ns):
            times_ns[phase] += time_ns

    def _add_up_early(self) -> None:
        with _ADDING_UP:
            if len(self.notes) <= MOST_NOTES:  # another thread has done it meanwhile
                return
            oldest = self.notes[: MOST_NOTES // 2]
            until_ns = max(at_ns for at_ns, _, _ in oldest)
            self._early = _read(self._early or _begin(self.began_ns), oldest, until_ns)
            del self.notes[: len(oldest)]


_ADDING_UP: Final = threading.Lock()
"""One for all: it is held for microseconds."""


class _Reading(NamedTuple):
    """Added up until ``at_ns``; ``opened`` says how often each phase has begun without having ended."""

    at_ns: int
    times_ns: list[int]
    opened: list[int]


def _begin(began_ns: int) -> _Reading:
    return _Reading(began_ns, [*_NAMED, 0], [*_NAMED, 1])  # the remainder is open all the time, and last


_NAMED: Final = (0,) * UNATTRIBUTED


def _read(early: _Reading, notes: list[Note], until_ns: int) -> _Reading:
    """Charge every instant up to ``until_ns`` to the first of ``PHASES`` that is open then."""
    at_ns, times_ns, opened = early.at_ns, early.times_ns.copy(), early.opened.copy()
    phase = next(phase for phase, count in enumerate(opened) if count > 0)
    notes.sort()
    for now_ns, changed, change in notes:
        if at_ns < now_ns:
            if now_ns > until_ns:
                now_ns = until_ns
            times_ns[phase] += now_ns - at_ns
            at_ns = now_ns
        opened[changed] += change
        if change > 0:
            if changed < phase and opened[changed] > 0:
                phase = changed
        elif changed == phase:
            while opened[phase] <= 0:
                phase += 1
    times_ns[phase] += until_ns - at_ns
    return _Reading(until_ns, times_ns, opened)


current_ledger: Final[ContextVar[Ledger | None]] = ContextVar("headgate_ledger", default=None)
"""The request that runs here; set once by the outermost middleware and never again, so that whatever runs below, in
tasks or threads, writes into the same one."""
