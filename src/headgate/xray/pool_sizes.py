"""Pools of another size than the app asks for, to see what each would do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy.pool import QueuePool

from headgate.pool import AsyncLeasePool, LeasePool
from headgate.xray.seams import Seam


def pools_of(size: int) -> Seam:
    """Give every stock pool that is made from now on this many connections and none beyond them.

    A leasing pool keeps its budget: what it is asked for is not how many connections are held.
    """
    return Seam(QueuePool, "__init__", lambda original: _making(original, size))


def _making(original: Any, size: int) -> Callable[..., None]:
    def make(
        pool: QueuePool, creator: Any, pool_size: int = 5, max_overflow: int = 10, *args: Any, **more: Any
    ) -> None:
        if not isinstance(pool, LeasePool | AsyncLeasePool):
            pool_size, max_overflow = size, 0
        original(pool, creator, pool_size, max_overflow, *args, **more)

    return make
