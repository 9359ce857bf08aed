"""The waiting rules: who waits, for how long, who is next, who is turned away. Pure: time comes in as ``now_ns``."""

from __future__ import annotations

from collections import OrderedDict
from enum import IntEnum
from typing import Final, Generic, Literal, NamedTuple, TypeVar

from headgate.overload import Drain, OverloadRule

WaiterT = TypeVar("WaiterT")

Kind = Literal["sync", "async"]
"""Who can use a connection: a thread with the sync driver, or a task with the async one."""

OTHER: Final[dict[Kind, Kind]] = {"sync": "async", "async": "sync"}

PATIENCE_NS = 50_000_000
"""A connection stays with its kind until the other has waited that much longer, or has waited that long for any."""

LEAST_ROOM: Final = 2
"""In overload that many may wait however slow the connections are: one to go on at once, one behind it."""


SPARE: Final = 1.1
"""Whoever is let in should be served in time although its wait is only an estimate: else half of those at the end of a
full line would wait in vain."""


class Rank(IntEnum):
    """Who goes first. Whoever is under way is never turned away for somebody who has not begun."""

    HIGH = 0
    UNDER_WAY = 1
    NORMAL = 2
    LOW = 3


NEWCOMERS: Final = (Rank.NORMAL, Rank.LOW)
"""Who may be turned away because there are too many of them."""

Reason = Literal["full", "overload", "deadline", "stalled", "gone"]
"""Why somebody is turned away: more wait already than can be served in time; a standing queue; too late to be
answered in time; nobody has got a connection for as long as it has waited; its client has gone."""


class Joined(NamedTuple, Generic[WaiterT]):
    """A waiter is in the line until ``deadline_ns``, if any; whoever was ``evicted`` for it is not any more."""

    deadline_ns: int | None
    evicted: WaiterT | None


class WaitingLine(Generic[WaiterT]):
    """First come, first served within each kind and rank, bounded in number and in time.

    A burst may wait as long as it can be served in time. Once the queue stands, only as many newcomers wait as are
    served within two thirds of the target, and one more takes the place of the one that has waited longest: what is
    served is fresh, and whoever is turned away learns it soon.

    Between the kinds a connection goes to a waiter who can use it as it is, unless the other kind has waited
    longer, or for any connection at all, by more than ``PATIENCE_NS``. Only live waiters are in the line: whoever
    times out or is cancelled takes itself out.
    """

    __slots__ = (
        "_kinds",
        "_lines",
        "_patience_ns",
        "_served_ns",
        "_since_ns",
        "drain",
        "max_pending",
        "max_wait_ns",
        "overload",
    )

    def __init__(self, *, connections: int, max_pending: int, max_wait_ns: int) -> None:
        self.max_pending = max_pending
        self.max_wait_ns = max_wait_ns
        self.overload = OverloadRule(target_ns=max_wait_ns // 10, interval_ns=3 * max_wait_ns)
        self.drain = Drain(connections, fresh_ns=3 * max_wait_ns)
        self._patience_ns = min(PATIENCE_NS, max_wait_ns // 2)
        self._served_ns: dict[Kind, int] = {"sync": 0, "async": 0}
        self._since_ns: dict[Kind, int] = {"sync": 0, "async": 0}
        self._kinds: dict[WaiterT, Kind] = {}
        self._lines: dict[Kind, dict[Rank, OrderedDict[WaiterT, int]]] = {
            kind: {rank: OrderedDict() for rank in Rank} for kind in OTHER
        }

    def __len__(self) -> int:
        return len(self._kinds)

    def __bool__(self) -> bool:
        return bool(self._kinds)

    # coming and going

    def join(
        self,
        waiter: WaiterT,
        kind: Kind,
        now_ns: int,
        *,
        rank: Rank = Rank.NORMAL,
        is_under_way: bool = False,
        deadline_ns: int | None = None,
        use_ns: float = 0,
    ) -> Joined[WaiterT] | Reason:
        """Put a waiter at the end, or say why not.

        :param is_under_way: it is never turned away for being too many.
        :param deadline_ns: when it no longer wants a connection; a newcomer never waits beyond ``max_wait_ns``.
        :param use_ns: mean use of a connection.
        """
        if self._head(kind) is None:
            self._since_ns[kind] = now_ns
        if is_under_way or rank is Rank.UNDER_WAY:
            self._add(waiter, kind, rank, now_ns)
            return Joined(deadline_ns, None)
        latest_ns = now_ns + self.max_wait_ns
        if deadline_ns is not None:
            latest_ns = min(latest_ns, deadline_ns)
        reason = self._why_not(rank, now_ns, latest_ns, use_ns)
        evicted = self._evict_for(rank, kind, now_ns, use_ns) if reason == "overload" else None
        if rank in NEWCOMERS:
            self.overload.count_newcomer(refused=reason is not None)
        if reason is not None and evicted is None:
            return reason
        self._add(waiter, kind, rank, now_ns)
        self._observe(now_ns)
        return Joined(latest_ns, evicted)

    def _add(self, waiter: WaiterT, kind: Kind, rank: Rank, now_ns: int) -> None:
        self._lines[kind][rank][waiter] = now_ns
        self._kinds[waiter] = kind

    def leave(self, waiter: WaiterT, now_ns: int) -> bool:
        """Take a waiter out; False if it was not in the line any more."""
        kind = self._kinds.pop(waiter, None)
        if kind is None:
            return False
        for line in self._lines[kind].values():
            if line.pop(waiter, None) is not None:
                break
        if not self.newcomers():
            self.drain.pause()
        self._observe(now_ns)
        return True

    def next(self, kind: Kind, now_ns: int) -> tuple[WaiterT, int]:
        """Take out the first waiter of this kind, with the time in ns it joined.

        :raises KeyError: nobody of this kind waits.
        """
        self._served_ns[kind] = now_ns
        rank = self._first_rank(kind)
        if rank is None:
            raise KeyError(kind)
        found = self._pop(self._lines[kind][rank])
        if rank in NEWCOMERS:
            self.drain.note_grant(now_ns, still_waiting=self.newcomers() > 0)
            self._observe(now_ns)
        return found

    def next_high(self) -> tuple[WaiterT, int] | None:
        """Take out the first waiter of the highest rank, whatever its kind; None if there is none."""
        lines = [ranks[Rank.HIGH] for ranks in self._lines.values() if ranks[Rank.HIGH]]
        return self._pop(min(lines, key=_joined_ns)) if lines else None

    def _pop(self, line: OrderedDict[WaiterT, int]) -> tuple[WaiterT, int]:
        waiter, joined_ns = line.popitem(last=False)
        del self._kinds[waiter]
        return waiter, joined_ns

    # who is turned away

    def would_refuse(self, now_ns: int, *, expected: int, use_ns: float = 0) -> Reason | None:
        """Why a newcomer that has not even begun would be turned away; None if it would not.

        :param expected: others that are on their way here.
        """
        ahead = self.newcomers() + expected
        if self.overload.is_overloaded(now_ns):
            return "overload" if ahead >= self.room(now_ns, use_ns) else None
        return "full" if SPARE * ahead * self.drain.measured_ns(now_ns) > self.max_wait_ns else None

    def room(self, now_ns: int, use_ns: float = 0) -> float:
        """How many newcomers may wait in overload: as many as are served within two thirds of the target."""
        step_ns = self.drain.estimated_ns(now_ns, use_ns)
        return max(LEAST_ROOM, self.overload.target_ns / 1.5 / step_ns) if step_ns else LEAST_ROOM

    def newcomers(self) -> int:
        """How many wait who may be turned away for being too many."""
        return sum(len(ranks[rank]) for ranks in self._lines.values() for rank in NEWCOMERS)

    def _why_not(self, rank: Rank, now_ns: int, latest_ns: int, use_ns: float) -> Reason | None:
        is_overloaded = self.overload.is_overloaded(now_ns)
        if len(self) >= self.max_pending:
            return "full"
        if latest_ns <= now_ns:
            return "deadline"
        if rank in NEWCOMERS and is_overloaded:
            return "overload" if self.newcomers() >= self.room(now_ns, use_ns) else None
        ahead = sum(
            len(ranks[other]) for ranks in self._lines.values() for other in (Rank.HIGH, *NEWCOMERS) if other <= rank
        )
        return "full" if SPARE * ahead * self.drain.measured_ns(now_ns) > latest_ns - now_ns else None

    def _evict_for(self, rank: Rank, kind: Kind, now_ns: int, use_ns: float) -> WaiterT | None:
        """Take out the newcomer of the last rank that has waited longest, if ``rank`` may have its place.

        One of the same ``kind`` if there is one: whoever is alone of its kind waits for a connection to be replaced.
        """
        last = max(other for ranks in self._lines.values() for other in NEWCOMERS if ranks[other])
        has_backlog = self.newcomers() >= self.room(now_ns, use_ns) + 1
        if last < rank or (last == rank and has_backlog):  # what waits from before the overload is served first
            return None
        return self._pop(self._lines[kind][last] or self._lines[OTHER[kind]][last])[0]

    # between the kinds

    def longest_waiting(self) -> Kind:
        """The kind of the waiter whose turn it is; of a line that is not empty."""
        heads: dict[Kind, tuple[Rank, int]] = {
            kind: head for kind in self._lines if (head := self._head(kind)) is not None
        }
        return min(heads, key=lambda kind: heads[kind])

    def next_kind(self, kind: Kind, now_ns: int, *, may_switch: bool = True) -> Kind | None:
        """The kind of waiter that a connection of ``kind`` should go to; None for an empty line.

        ``may_switch=False`` keeps the connection with its kind as long as anybody of that kind waits.
        """
        own, other = self._head(kind), self._head(OTHER[kind])
        if own is None or other is None:
            return OTHER[kind] if other is not None else kind if own is not None else None
        # Where everybody waits nearly max_wait nobody waits longer, and a kind without connections would get none.
        starves = now_ns - max(self._since_ns[OTHER[kind]], self._served_ns[OTHER[kind]]) > self._patience_ns
        head_start_ns = self._patience_ns if other[0] < own[0] else 0
        is_longer = own[1] - other[1] + head_start_ns > self._patience_ns
        return OTHER[kind] if may_switch and (is_longer or starves) else kind

    # what people see

    def oldest_wait_ns(self, now_ns: int) -> int:
        """How long the one that has waited longest has waited; 0 for an empty line."""
        joined = [_joined_ns(line) for ranks in self._lines.values() for line in ranks.values() if line]
        return now_ns - min(joined, default=now_ns)

    def _observe(self, now_ns: int) -> None:
        heads = [_joined_ns(ranks[rank]) for ranks in self._lines.values() for rank in NEWCOMERS if ranks[rank]]
        self.overload.observe(now_ns - min(heads) if heads else None, now_ns)

    def _first_rank(self, kind: Kind) -> Rank | None:
        return next((rank for rank, line in self._lines[kind].items() if line), None)

    def _head(self, kind: Kind) -> tuple[Rank, int] | None:
        rank = self._first_rank(kind)
        return None if rank is None else (rank, _joined_ns(self._lines[kind][rank]))


def _joined_ns(line: OrderedDict[WaiterT, int]) -> int:
    """When the first of a line that is not empty joined it."""
    return next(iter(line.values()))
