"""A few requests of each route, instant by instant: the slowest, and some spread evenly over all of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from headgate.ledger import Account, Note
from headgate.names import PHASES, UNATTRIBUTED
from headgate.xray.live import LiveRequest
from headgate.xray.observation import Mark, RequestSample

MOST_SLOW: Final = 3
MOST_SPREAD: Final = 5
MOST_NOTES: Final = 200
"""Of a sample; what it did afterwards is in its sums only."""


class _Kept(NamedTuple):
    total_ns: int
    began_ns: int
    status: int
    account: Account
    notes: tuple[Note, ...]


class Samples:
    """Those of one route, in bounded memory."""

    __slots__ = ("_bar_ns", "_every", "_seen", "_slow", "_spread")

    def __init__(self) -> None:
        self._slow: list[_Kept] = []
        self._spread: list[_Kept] = []
        self._bar_ns = -1
        self._every = 1
        self._seen = 0

    def add(self, request: LiveRequest, account: Account) -> None:
        """Look at a request that has ended; most are forgotten at once."""
        self._seen += 1
        is_slow, is_next = account.total_ns > self._bar_ns, self._seen % self._every == 0
        if is_slow or is_next:
            notes = tuple(request.notes[:MOST_NOTES])
            kept = _Kept(account.total_ns, request.began_ns, request.status, account, notes)
            if is_slow:
                self._keep_slow(kept)
            if is_next:
                self._keep_spread(kept)

    def _keep_slow(self, kept: _Kept) -> None:
        self._slow.append(kept)
        self._slow.sort(key=lambda one: -one.total_ns)
        del self._slow[MOST_SLOW:]
        if len(self._slow) == MOST_SLOW:
            self._bar_ns = self._slow[-1].total_ns

    def _keep_spread(self, kept: _Kept) -> None:
        self._spread.append(kept)
        if len(self._spread) >= 2 * MOST_SPREAD:
            del self._spread[::2]
            self._every *= 2

    def chosen(self, since_ns: int) -> tuple[RequestSample, ...]:
        """The slowest first, then the others in the order they came."""
        slow = [_sample(one, since_ns, is_slow=True) for one in self._slow]
        return (*slow, *(_sample(one, since_ns, is_slow=False) for one in _evenly(self._spread)))


def _evenly(kept: list[_Kept]) -> list[_Kept]:
    last = len(kept) - 1
    if last < MOST_SPREAD:
        return kept
    return [kept[number * last // (MOST_SPREAD - 1)] for number in range(MOST_SPREAD)]


def _sample(kept: _Kept, since_ns: int, *, is_slow: bool) -> RequestSample:
    return RequestSample(
        is_slow=is_slow,
        came_ns=max(0, kept.began_ns - since_ns),
        total_ns=kept.total_ns,
        status=kept.status,
        times_ns=kept.account.times_ns,
        marks=marks_of(kept.notes, kept.began_ns, kept.total_ns),
    )


def marks_of(notes: Iterable[Note], began_ns: int, total_ns: int) -> tuple[Mark, ...]:
    """When each phase was open, counted from the beginning; what is open several times at once is open once."""
    opened = [0] * len(PHASES)
    since_ns = [0] * len(PHASES)
    marks: list[Mark] = []
    for at_ns, phase, change in sorted(notes):
        now_ns = min(max(0, at_ns - began_ns), total_ns)
        was_open = opened[phase] > 0
        opened[phase] += change
        if opened[phase] > 0 and not was_open:
            since_ns[phase] = now_ns
        elif was_open and opened[phase] <= 0 and now_ns > since_ns[phase]:
            marks.append((phase, since_ns[phase], now_ns))
    still_open = (phase for phase in range(UNATTRIBUTED) if opened[phase] > 0 and since_ns[phase] < total_ns)
    marks += [(phase, since_ns[phase], total_ns) for phase in still_open]
    return tuple(sorted(marks, key=lambda mark: (mark[1], mark[0])))
