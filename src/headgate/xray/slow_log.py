"""One structured line in the log for a request that took long, so many at most."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any, Final

from headgate.config import Clock
from headgate.ledger import Account
from headgate.names import PHASES
from headgate.xray.live import MOST_STATEMENTS, LiveRequest
from headgate.xray.sums import route_label

LOGGER: Final = "headgate.xray"

MOST_LINES: Final = 10
"""In each of ``INTERVAL_NS``: when everything is slow, a line for each request would be one more load."""

INTERVAL_NS: Final = 10_000_000_000


class SlowLog:
    """Says each request that took ``threshold_ns`` or longer; may be called from any thread."""

    def __init__(self, threshold_ns: int, clock: Clock = time.monotonic_ns) -> None:
        self.threshold_ns = threshold_ns
        self._clock = clock
        self._interval_began_ns = 0
        self._said = MOST_LINES
        self._unsaid = 0
        self._lock = threading.Lock()

    def say(self, request: LiveRequest, account: Account) -> None:
        """Log it, unless enough has been said."""
        unsaid = self._may_say()
        if unsaid is None:
            return
        facts = describe(request, account)
        # Made late: an app that sets up its logging disables the loggers it finds.
        logging.getLogger(LOGGER).warning("%s", in_words(facts, unsaid), extra={**facts, "unlogged": unsaid})

    def _may_say(self) -> int | None:
        """How many have not been said since the last line; None to say nothing."""
        now_ns = self._clock()
        with self._lock:
            if now_ns - self._interval_began_ns >= INTERVAL_NS or not self._interval_began_ns:
                self._interval_began_ns, self._said = now_ns, 0
            if self._said >= MOST_LINES:
                self._unsaid += 1
                return None
            self._said += 1
            unsaid, self._unsaid = self._unsaid, 0
        return unsaid


def describe(request: LiveRequest, account: Account) -> dict[str, Any]:
    """The facts of a request, as a log's structured fields: nothing in them is of the client's choice."""
    return {
        "route": route_label(request.scope),
        "status": request.status,
        "total_ms": _ms(account.total_ns),
        "phases_ms": {name: _ms(time_ns) for name, time_ns in zip(PHASES, account.times_ns, strict=True) if time_ns},
        "holds": len(request.holds),
        "statements": len(request.statements),
    }


def in_words(facts: dict[str, Any], unsaid: int) -> str:
    """The same in one line."""
    longest = sorted(facts["phases_ms"].items(), key=lambda phase: -phase[1])
    phases = ", ".join(f"{name} {ms:g}" for name, ms in longest)
    count = facts["statements"]
    statements = f"{count} or more" if count >= MOST_STATEMENTS else str(count)
    before = f" ({unsaid} slow requests before this one were not logged)" if unsaid else ""
    return (
        f"slow request: {facts['route']} {facts['status'] or 'without an answer'} took {facts['total_ms']:g} ms: "
        f"{phases} ms; statements {statements}, holds {facts['holds']}{before}"
    )


def _ms(time_ns: int) -> float:
    return round(time_ns / 1e6, 1)
