"""What a forked child does with its parent's connections: it leaves them alone and starts with a whole budget.

Both processes would talk to the server through one socket otherwise. SQLAlchemy asks for ``dispose(close=False)`` in
the child for that; here it happens by itself, and does no harm twice.
"""

from __future__ import annotations

import os
import weakref
from typing import Any, Final, Protocol


class Inheritable(Protocol):
    """A pool, as far as a fork is concerned."""

    def leave_to_parent(self) -> list[Any]: ...


_pools: Final[weakref.WeakSet[Any]] = weakref.WeakSet()
_inherited: Final[list[Any]] = []
"""Kept as long as the child lives: closing them would say good-bye to the server in the parent's name."""


def watch_forks(pool: Inheritable) -> None:
    """Start this pool anew in every child."""
    _pools.add(pool)


def _start_anew() -> None:
    for pool in list(_pools):
        _inherited.extend(pool.leave_to_parent())


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_start_anew)
