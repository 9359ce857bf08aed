"""Who waits for a connection of SQLAlchemy's own pools, and who has waited in vain."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import Pool, QueuePool

from headgate.ledger import Ledger, current_ledger
from headgate.xray.seams import Seam
from headgate.xray.sql_hooks import LEASING

clock = time.monotonic_ns

_TOLD: Final = "_headgate_told"
"""An attribute of an error that has been told."""


class Wait(NamedTuple):
    """Somebody who waits.

    :ivar request: whose wait it is; None outside of requests.
    """

    pool: QueuePool
    began_ns: int
    request: Ledger | None


class PoolWaits:
    """Everybody who waits for a connection of a pool that may time out.

    :param on_timeout: called where the pool raises its timeout, with the wait that it ends; must not raise.
    """

    def __init__(self, on_timeout: Callable[[Wait], None]) -> None:
        self._on_timeout = on_timeout
        self._waits: dict[int, Wait] = {}

    def seams(self) -> Iterator[Seam]:
        """Wrap the one method that waits; leases have a gate, whose refusals say who holds."""
        yield Seam(QueuePool, "_do_get", self._waiting)

    def of(self, pool: Pool | None) -> list[Wait]:
        """Who waits for a connection of a pool now."""
        return [wait for wait in list(self._waits.values()) if wait.pool is pool]

    def forget(self) -> None:
        """In a forked child: whoever waits does so in the parent."""
        self._waits.clear()

    def _waiting(self, original: Any) -> Callable[[QueuePool], Any]:
        waits = self._waits

        def _do_get(pool: QueuePool) -> Any:
            if isinstance(pool, LEASING):
                return original(pool)
            wait = Wait(pool, clock(), current_ledger.get())
            waits[id(wait)] = wait
            try:
                return original(pool)
            except PoolTimeoutError as error:
                if _is_new(error):
                    self._on_timeout(wait)
                raise
            finally:
                waits.pop(id(wait), None)

        return _do_get


def _is_new(error: PoolTimeoutError) -> bool:
    """Not so the second time: if somebody was faster, the pool's method calls itself, and both calls see the error."""
    facts = vars(error)
    is_new = _TOLD not in facts
    facts[_TOLD] = True
    return is_new
