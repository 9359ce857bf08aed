"""``on_acquire`` and ``on_release`` where connections are not leased: at each checkout and checkin."""

from __future__ import annotations

from typing import Any, TypeVar

from sqlalchemy import event
from sqlalchemy.pool import Pool

from headgate.config import Hook, LeaseOptions

PoolT = TypeVar("PoolT", bound=Pool)


def with_hooks(pool: PoolT, options: LeaseOptions) -> PoolT:
    """The same pool; what the hooks set is committed, so that no rollback of the session undoes it."""
    if options.on_acquire is not None:
        event.listen(pool, "checkout", _committed(options.on_acquire))
    if options.on_release is not None:
        event.listen(pool, "checkin", _committed(options.on_release))
    return pool


def _committed(hook: Hook) -> Any:
    def listener(dbapi: Any, *_: Any) -> None:
        if dbapi is not None:  # None: the connection has been invalidated
            hook(dbapi)
            dbapi.commit()

    return listener
