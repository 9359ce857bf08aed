"""A refusal over HTTP: problem+json, a status, and when to come again; and one line a second in the log."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Final, NamedTuple

from headgate.config import Clock, RefusalOptions

log = logging.getLogger("headgate.fastapi")

REFUSAL_LOG_INTERVAL_NS: Final = 1_000_000_000

SAFE = "nothing was executed; safe to retry"


class Problem(NamedTuple):
    """An answer, ready to be sent."""

    status: int
    headers: dict[str, str]
    body: bytes


def describe_refusal(
    options: RefusalOptions, *, database: str, reason: str, retry_after_s: int, nothing_executed: bool
) -> Problem:
    """Return the answer to a request that was refused, or given up at its deadline.

    The error's own message names lines of the app: it is for the log, not for the client.
    """
    safe = f" Of this request {SAFE}." if nothing_executed else ""
    fact = "It was not done in time" if reason == "deadline" else "The database is busy"
    problem = {
        "type": "about:blank",
        "title": HTTPStatus(options.status).phrase,
        "status": options.status,
        "detail": f"{fact}. Try again in {retry_after_s} s.{safe}",
        "database": database,
        "reason": reason,
        "safe_to_retry": nothing_executed,
    }
    headers = {options.header: str(retry_after_s), "Content-Type": "application/problem+json"}
    return Problem(options.status, headers, json.dumps(problem).encode())


class RefusalLog:
    """One WARNING a second at most: under overload a line for each refusal would be one more load."""

    def __init__(self, clock: Clock = time.monotonic_ns) -> None:
        self._clock = clock
        self._next_ns = 0
        self._unsaid = 0

    def say(self, describe: Callable[[], object]) -> None:
        """Log what ``describe`` returns, if it is time to."""
        now_ns = self._clock()
        if now_ns < self._next_ns:
            self._unsaid += 1
            return
        others = f" ({self._unsaid} refusals before this one were not logged)" if self._unsaid else ""
        self._next_ns, self._unsaid = now_ns + REFUSAL_LOG_INTERVAL_NS, 0
        log.warning("%s%s", describe(), others)
