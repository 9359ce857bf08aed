"""Says in the log who holds connections: at a pool's timeout, and when they are held for too long or were left behind.

Timeouts are told where they are raised; the rest is looked for on the beat of the event loops. A hold is reported
once, and once more when it has come back.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from sqlalchemy.pool import Pool

from headgate.config import Clock
from headgate.xray.app_code import calling_site
from headgate.xray.holders import PoolState, describe_left, describe_overdue, describe_returned, describe_timeout
from headgate.xray.holding import left_by, look_at_holders, look_at_pool, recall_holder
from headgate.xray.live import Live, LiveHold, PoolTally
from headgate.xray.options import WatchOptions
from headgate.xray.pool_waits import PoolWaits, Wait

LOGGER: Final = "headgate.xray"

QUIET_NS: Final = 10_000_000_000
"""Between two reports of one kind about one pool."""

LOOK_NS: Final = 1_000_000_000
"""Between two looks at who holds."""

GRACE_NS: Final = 1_000_000_000
"""Whoever has gone may still be giving back: a cancelled session is closed in a task of its own."""

MOST_REMEMBERED: Final = 1_000
"""Reported holds whose return will be told, and pools whose last report is remembered."""


class Pause(NamedTuple):
    """When something was reported last, and how often it has happened since."""

    since_ns: int
    times: int


class HoldReporter:
    """Reports on the holds of one process; no method raises, and each may be called from any thread.

    :param name_of: what a pool leads to, in words; '' if that is unknown.
    :param say: takes the reports.
    """

    def __init__(
        self,
        live: Live,
        options: WatchOptions,
        *,
        name_of: Callable[[Pool], str],
        say: Callable[[str], None] | None = None,
        clock: Clock = time.monotonic_ns,
    ) -> None:
        self.waits = PoolWaits(self.tell_timeout)
        self._live = live
        self._overdue_s = options.overdue_s
        self._overdue_ns = round(options.overdue_s * 1e9)
        self._look_every_ns = min(LOOK_NS, self._overdue_ns // 4) or LOOK_NS
        self._name_of = name_of
        self._say = say or warn
        self._clock = clock
        self._has_failed = False
        self.start_anew()

    def start_anew(self) -> None:
        """Forget everything: in a forked child it is the parent's, and a lock may be held by a thread of the parent."""
        self._counting, self._looking = threading.Lock(), threading.Lock()
        self._pauses: dict[tuple[str, int], Pause] = {}
        self._told: list[LiveHold] = []
        self._suspects: dict[tuple[int, int], int] = {}
        self._look_again_ns = 0
        self.waits.forget()

    # at a timeout

    def tell_timeout(self, wait: Wait) -> None:
        """Say who holds the connections that somebody has waited for in vain."""
        try:
            now_ns = self._clock()
            paused = self._end_pause("timeout", wait.pool, now_ns)
            if paused is not None:
                self._say(self._timeout(wait, paused, now_ns))
        except Exception as error:
            self.fail(error)

    def _timeout(self, wait: Wait, paused: Pause, now_ns: int) -> str:
        tally = self._live.know_pool(wait.pool)
        waits = self.waits.of(wait.pool)
        holders = look_at_holders(self._holds_of(tally), now_ns, waits, asker=wait.request, asked_at=calling_site())
        others = [now_ns - one.began_ns for one in waits if one is not wait]
        return describe_timeout(
            look_at_pool(wait.pool, self._database(tally), tally.limit, len(holders), others),
            holders,
            timeout_s=wait.pool.timeout(),
            timeouts=paused.times,
            since_ns=now_ns - paused.since_ns,
        )

    def _end_pause(self, kind: str, pool: object, now_ns: int) -> Pause | None:
        """Count something, and tell how often it has been counted if it may be reported now."""
        key = (kind, id(pool))
        with self._counting:
            paused = self._pauses.get(key, Pause(now_ns - QUIET_NS, 0))
            paused = paused._replace(times=paused.times + 1)
            may_report = now_ns - paused.since_ns >= QUIET_NS
            if len(self._pauses) >= MOST_REMEMBERED:
                self._pauses.clear()
            self._pauses[key] = Pause(now_ns, 0) if may_report else paused
        return paused if may_report else None

    # on the beat

    def look(self, now_ns: int) -> None:
        """Report who has left a connection behind, who holds one for too long, and what has come back."""
        if now_ns < self._look_again_ns or not self._looking.acquire(blocking=False):
            return
        try:
            self._look_again_ns = now_ns + self._look_every_ns
            self._tell_returned()
            holds = [hold for hold in list(self._live.holds.values()) if not hold.has_been_told]
            self._tell_left(holds, now_ns)
            self._tell_overdue(holds, now_ns)
        except Exception as error:
            self.fail(error)
        finally:
            self._looking.release()

    def _tell_returned(self) -> None:
        returned = [hold for hold in self._told if hold.ended_ns]
        if returned:
            self._told = [hold for hold in self._told if not hold.ended_ns]
        for tally, holds in _by_pool(returned):
            self._say(describe_returned(self._database(tally), [recall_holder(hold) for hold in holds]))

    def _tell_left(self, holds: list[LiveHold], now_ns: int) -> None:
        suspects = {(id(hold), hold.began_ns): hold for hold in holds if left_by(hold)}
        self._suspects = {key: self._suspects.get(key, now_ns) for key in suspects}
        late = [hold for key, hold in suspects.items() if now_ns - self._suspects[key] >= GRACE_NS]
        for tally, some in self._reportable("left", late, now_ns):
            holders = look_at_holders(some, now_ns, ())
            self._tell(some, describe_left(self._state(tally, now_ns), holders))

    def _tell_overdue(self, holds: list[LiveHold], now_ns: int) -> None:
        if not self._overdue_ns:
            return
        overdue = [hold for hold in holds if now_ns - hold.began_ns >= self._overdue_ns and not hold.has_been_told]
        for tally, some in self._reportable("overdue", overdue, now_ns):
            holders = look_at_holders(some, now_ns, self.waits.of(tally.pool()))
            self._tell(some, describe_overdue(self._state(tally, now_ns), holders, overdue_s=self._overdue_s))

    def _reportable(self, kind: str, holds: Iterable[LiveHold], now_ns: int) -> list[tuple[PoolTally, list[LiveHold]]]:
        """Those of pools that this was not reported of lately, the others wait."""
        pools = _by_pool(holds)
        return [one for one in pools if self._end_pause(kind, one[0], now_ns) is not None]

    def _tell(self, holds: list[LiveHold], report: str) -> None:
        for hold in holds:
            hold.has_been_told = True
        self._told += holds[: MOST_REMEMBERED - len(self._told)]
        self._say(report)

    # what is known

    def _holds_of(self, tally: PoolTally) -> list[LiveHold]:
        return [hold for hold in list(self._live.holds.values()) if hold.pool is tally]

    def _state(self, tally: PoolTally, now_ns: int) -> PoolState:
        pool = tally.pool()
        waits = [now_ns - wait.began_ns for wait in self.waits.of(pool)]
        return look_at_pool(pool, self._database(tally), tally.limit, len(self._holds_of(tally)), waits)

    def _database(self, tally: PoolTally) -> str:
        pool = tally.pool()
        return ("" if pool is None else self._name_of(pool)) or f"pool {tally.name}"

    def fail(self, error: Exception) -> None:
        """Say, once, that something of ours went wrong; the service has nothing to do with it."""
        if not self._has_failed:
            self._has_failed = True
            complain("the X-ray has failed, and the service goes on", error)


def warn(report: str) -> None:
    """Log it. The logger is made late: an app that sets up its logging disables those it finds."""
    logging.getLogger(LOGGER).warning("%s", report)


def complain(fact: str, error: BaseException) -> None:
    """One line on standard error, for what is ours and not the service's."""
    if sys.stderr is not None:
        message = " ".join(str(error).split())
        print(f"headgate: {fact}: {type(error).__name__}: {message}", file=sys.stderr, flush=True)


def _by_pool(holds: Iterable[LiveHold]) -> list[tuple[PoolTally, list[LiveHold]]]:
    found: dict[int, tuple[PoolTally, list[LiveHold]]] = {}
    for hold in holds:
        found.setdefault(id(hold.pool), (hold.pool, []))[1].append(hold)
    return list(found.values())
