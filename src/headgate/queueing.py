"""The waiting rules: who waits, for how long, who is next. Pure: time comes in as ``now_ns``."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Generic, TypeVar

WaiterT = TypeVar("WaiterT")

MAX_RETRY_AFTER_S = 30
"""A client told to stay away longer than this is better served by a human."""


class WaitingLine(Generic[WaiterT]):
    """First come, first served, bounded in number and in time.

    Only live waiters are in the line: whoever times out or is cancelled takes itself out.
    """

    __slots__ = ("_line", "max_pending", "max_wait_ns")

    def __init__(self, *, max_pending: int, max_wait_ns: int) -> None:
        self.max_pending = max_pending
        self.max_wait_ns = max_wait_ns
        self._line: OrderedDict[WaiterT, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._line)

    def join(self, waiter: WaiterT, now_ns: int) -> int | None:
        """Put a waiter at the end; return its deadline in ns, or None when the line is full."""
        if len(self._line) >= self.max_pending:
            return None
        self._line[waiter] = now_ns
        return now_ns + self.max_wait_ns

    def leave(self, waiter: WaiterT) -> bool:
        """Take a waiter out; False if it was not in the line any more."""
        return self._line.pop(waiter, None) is not None

    def next(self) -> tuple[WaiterT, int] | None:
        """Take out whoever has waited longest, with the time in ns it joined."""
        return self._line.popitem(last=False) if self._line else None

    def oldest_wait_ns(self, now_ns: int) -> int:
        """How long the first in line has waited; 0 for an empty line."""
        return now_ns - next(iter(self._line.values())) if self._line else 0


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
