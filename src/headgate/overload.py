"""Is the line a burst that passes, or a standing queue? Pure: time comes in as ``now_ns``."""

from __future__ import annotations

import math
from collections import deque
from typing import Final

MAX_RETRY_AFTER_S = 30
"""A client told to stay away longer than this is better served by a human."""

RELAPSE_NS: Final = 10_000_000_000
"""Overload that comes back within this time of its end needs a tenth of the time to be seen."""

FITS: Final = 0.02
"""Overload is over when an interval has refused no more of its newcomers than this share of them."""


class OverloadRule:
    """Overload begins when newcomers have waited too long for a whole interval, and ends when they fit again.

    As in CoDel the *shortest* wait of an interval counts: a burst is gone within it, a standing queue is not. While
    overloaded the line is kept short by refusals, so its waits no longer tell; how many were refused does.

    :param target_ns: a wait that may stand.
    :param interval_ns: how long a longer one may stand.
    """

    __slots__ = (
        "_above_since_ns",
        "_empty_since_ns",
        "_ended_ns",
        "_is_overloaded",
        "_newcomers",
        "_refused",
        "_refused_before",
        "_was_stalled",
        "_window_ns",
        "interval_ns",
        "target_ns",
    )

    def __init__(self, *, target_ns: int, interval_ns: int) -> None:
        self.target_ns = target_ns
        self.interval_ns = interval_ns
        self._is_overloaded = False
        self._above_since_ns: int | None = None
        self._empty_since_ns: int | None = None
        self._ended_ns: int | None = None
        self._was_stalled = False
        self._window_ns = 0
        self._newcomers = self._refused = self._refused_before = 0

    def is_overloaded(self, now_ns: int) -> bool:
        """Tell whether newcomers are to be kept few; ends an overload that is over."""
        empty_since_ns = self._empty_since_ns
        if empty_since_ns is not None and now_ns - empty_since_ns >= self.interval_ns // 10:
            self._end(now_ns)
        if now_ns - self._window_ns >= self.interval_ns // 3:
            self._end_window(now_ns)
        return self._is_overloaded

    @property
    def has_begun(self) -> bool:
        """True from its beginning until somebody has found that it is over."""
        return self._is_overloaded

    def observe(self, standing_ns: int | None, now_ns: int) -> None:
        """Note how long the newcomer that has waited longest has waited; None if nobody waits.

        While overloaded, nobody waiting for a while says that it is over: the refused have come in bursts with
        pauses, and each burst is refused for the one before.
        """
        if self._is_overloaded:
            if standing_ns is not None:
                self._empty_since_ns = None
            elif self._empty_since_ns is None:
                self._empty_since_ns = now_ns
        elif standing_ns is None or standing_ns <= self.target_ns:
            self._above_since_ns = None
        elif self._above_since_ns is None:
            self._above_since_ns = now_ns
        elif now_ns - self._above_since_ns >= self._patience_ns(now_ns):
            self._is_overloaded, self._above_since_ns, self._empty_since_ns = True, None, None
            self._window_ns, self._newcomers, self._refused = now_ns, 0, 0
            self._was_stalled = False

    def count_newcomer(self, *, refused: bool) -> None:
        """Note that somebody came, and whether it, or another one in its place, was turned away."""
        self._newcomers += 1
        self._refused += refused

    def count_drop(self) -> None:
        """Note that somebody was turned away who had been let in."""
        self._refused += 1

    def count_stall(self) -> None:
        """Note that nobody gets a connection at all: this overload tells nothing of how much is offered."""
        self._was_stalled = True

    def recently_refused(self, now_ns: int) -> int:
        """How many were refused in this window and the one before; they will come back."""
        self.is_overloaded(now_ns)
        return self._refused + self._refused_before

    def _patience_ns(self, now_ns: int) -> int:
        relapsed = self._ended_ns is not None and now_ns - self._ended_ns < RELAPSE_NS
        return self.interval_ns // 10 if relapsed else self.interval_ns

    def _end(self, now_ns: int) -> None:
        self._is_overloaded, self._empty_since_ns = False, None
        self._ended_ns, self._was_stalled = None if self._was_stalled else now_ns, False

    def _end_window(self, now_ns: int) -> None:
        is_recent = now_ns - self._window_ns < 2 * (self.interval_ns // 3)
        if self._is_overloaded and (not is_recent or self._refused <= self._newcomers * FITS):
            self._end(now_ns)  # in a window that nobody has looked at nobody was refused
        self._refused_before, self._refused = self._refused if is_recent else 0, 0
        self._window_ns, self._newcomers = now_ns, 0


class Drain:
    """How fast newcomers get connections: the mean time between two grants while somebody waits.

    :param connections: of the budget; connections that were taken together come back together, so a mean over
        fewer grants than that would swing.
    :param fresh_ns: how long a measurement tells something about what comes next.
    """

    __slots__ = ("_connections", "_expires_ns", "_fresh_ns", "_grants_ns", "_step_ns")

    def __init__(self, connections: int, fresh_ns: int) -> None:
        self._connections = connections
        self._fresh_ns = fresh_ns
        self._grants_ns: deque[int] = deque(maxlen=2 * connections + 1)
        self._step_ns = 0.0
        self._expires_ns = 0

    def note_grant(self, now_ns: int, *, still_waiting: bool) -> None:
        """Note that a newcomer was granted a connection, and whether another one still waits."""
        grants = self._grants_ns
        if grants and now_ns - grants[-1] > self._fresh_ns:
            grants.clear()  # everything stood still in between
        grants.append(now_ns)
        if len(grants) > self._connections:
            self._step_ns = (now_ns - grants[0]) / (len(grants) - 1)
            self._expires_ns = now_ns + self._fresh_ns
        if not still_waiting:
            self.pause()

    def pause(self) -> None:
        """Note that nobody waits: until somebody does, grants do not tell how fast they could come."""
        self._grants_ns.clear()

    def measured_ns(self, now_ns: int) -> float:
        """Mean time between two grants; 0 if it has not been measured lately."""
        return self._step_ns if now_ns < self._expires_ns else 0.0

    def estimated_ns(self, now_ns: int, use_ns: float) -> float:
        """The same; with nothing measured, what uses of ``use_ns`` allow by Little's law."""
        return self.measured_ns(now_ns) or use_ns / self._connections


def smooth(mean_ns: float, sample_ns: int, weight: float = 0.1) -> float:
    """Exponentially weighted mean; the first sample is taken whole."""
    return float(sample_ns) if mean_ns == 0 else mean_ns + weight * (sample_ns - mean_ns)


def retry_after_s(*, waiting: int, step_ns: float, jitter: float) -> int:
    """Whole seconds until those who wait, or will come back, should have been served; at least 1.

    ``jitter`` in [0, 1) spreads the answer from one half to one and a half of that, so that the refused do not
    all come back at once.
    """
    drain_s = waiting * step_ns / 1e9
    return max(1, min(MAX_RETRY_AFTER_S, math.ceil(drain_s * (0.5 + jitter))))
