"""The waiting rules: who waits, for how long, who is next. Pure: time comes in as ``now_ns``."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Final, Generic, Literal, TypeVar

WaiterT = TypeVar("WaiterT")

Kind = Literal["sync", "async"]
"""Who can use a connection: a thread with the sync driver, or a task with the async one."""

OTHER: Final[dict[Kind, Kind]] = {"sync": "async", "async": "sync"}

MAX_RETRY_AFTER_S = 30
"""A client told to stay away longer than this is better served by a human."""

PATIENCE_NS = 50_000_000
"""A connection stays with its kind until the other has waited that much longer, or has waited that long for any."""


class WaitingLine(Generic[WaiterT]):
    """First come, first served within each kind, bounded in number and in time.

    Between the kinds a connection goes to a waiter who can use it as it is, unless the other kind has waited
    longer, or for any connection at all, by more than ``PATIENCE_NS``. Only live waiters are in the line: whoever
    times out or is cancelled takes itself out.
    """

    __slots__ = ("_lines", "_patience_ns", "_served_ns", "max_pending", "max_wait_ns")

    def __init__(self, *, max_pending: int, max_wait_ns: int) -> None:
        self.max_pending = max_pending
        self.max_wait_ns = max_wait_ns
        self._patience_ns = min(PATIENCE_NS, max_wait_ns // 2)
        self._served_ns: dict[Kind, int] = {"sync": 0, "async": 0}
        self._lines: dict[Kind, OrderedDict[WaiterT, int]] = {"sync": OrderedDict(), "async": OrderedDict()}

    def __len__(self) -> int:
        return len(self._lines["sync"]) + len(self._lines["async"])

    def __bool__(self) -> bool:
        return bool(self._lines["sync"] or self._lines["async"])

    def join(self, waiter: WaiterT, kind: Kind, now_ns: int) -> int | None:
        """Put a waiter at the end; return its deadline in ns, or None when the line is full."""
        if len(self) >= self.max_pending:
            return None
        self._lines[kind][waiter] = now_ns
        return now_ns + self.max_wait_ns

    def leave(self, waiter: WaiterT) -> bool:
        """Take a waiter out; False if it was not in the line any more."""
        return any(line.pop(waiter, None) is not None for line in self._lines.values())

    def longest_waiting(self) -> Kind:
        """The kind of the waiter that has waited longest; of a line that is not empty."""
        heads: dict[Kind, int] = {kind: next(iter(line.values())) for kind, line in self._lines.items() if line}
        return min(heads, key=lambda kind: heads[kind])

    def next_kind(self, kind: Kind, now_ns: int, *, may_switch: bool = True) -> Kind | None:
        """The kind of waiter that a connection of ``kind`` should go to; None for an empty line.

        ``may_switch=False`` keeps the connection with its kind as long as anybody of that kind waits.
        """
        own, other = self._wait_ns(kind, now_ns), self._wait_ns(OTHER[kind], now_ns)
        if own is None or other is None:
            return OTHER[kind] if other is not None else kind if own is not None else None
        # Where everybody waits nearly max_wait nobody waits longer, and a kind without connections would get none.
        starves = min(other, now_ns - self._served_ns[OTHER[kind]]) > self._patience_ns
        return OTHER[kind] if may_switch and (other - own > self._patience_ns or starves) else kind

    def next(self, kind: Kind, now_ns: int) -> tuple[WaiterT, int]:
        """Take out the waiter of this kind that has waited longest, with the time in ns it joined.

        :raises KeyError: nobody of this kind waits.
        """
        self._served_ns[kind] = now_ns
        return self._lines[kind].popitem(last=False)

    def oldest_wait_ns(self, now_ns: int) -> int:
        """How long the one that has waited longest has waited; 0 for an empty line."""
        return max((self._wait_ns(kind, now_ns) or 0 for kind in self._lines), default=0)

    def _wait_ns(self, kind: Kind, now_ns: int) -> int | None:
        line = self._lines[kind]
        return now_ns - next(iter(line.values())) if line else None


def smooth(mean_ns: float, sample_ns: int, weight: float = 0.1) -> float:
    """Exponentially weighted mean; the first sample is taken whole."""
    return float(sample_ns) if mean_ns == 0 else mean_ns + weight * (sample_ns - mean_ns)


def retry_after_s(*, pending: int, connections: int, mean_use_ns: float, jitter: float) -> int:
    """Whole seconds until the line should have drained, at least 1.

    Little's law: ``pending`` waiters leave at ``connections / mean use``. ``jitter`` in [0, 1) stretches the
    answer by up to one half, so that the refused do not all come back at once.
    """
    drain_s = pending * mean_use_ns / connections / 1e9
    return max(1, min(MAX_RETRY_AFTER_S, math.ceil(drain_s * (1 + jitter / 2) + jitter)))
