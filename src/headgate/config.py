"""Every option of the runtime and its one default."""

from __future__ import annotations

import inspect
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from headgate.errors import ConfigError

SWITCH = "HEADGATE"
"""``HEADGATE=off`` in the environment gives stock SQLAlchemy behaviour with the same code."""


OnPin = Literal["warn", "error"]

Hook = Callable[[Any], object]
"""Called with a DBAPI connection, as the listeners of SQLAlchemy's pool are."""


@dataclass(frozen=True, slots=True)
class GateOptions:
    """Who may hold a connection and who may wait for one.

    :ivar connections: budget of one process, sync and async together; at least 1.
    :ivar max_wait: seconds a waiter waits at most before it is dropped; 0 turns waiting off.
    :ivar max_pending: how many may wait at once; one more is shed. 0 turns waiting off.
    """

    connections: int = 15
    max_wait: float = 1.0
    max_pending: int = 1000

    def __post_init__(self) -> None:
        for option in ("connections", "max_pending"):
            _require(isinstance(getattr(self, option), int), option, getattr(self, option), "use a whole number")
        _require(isinstance(self.max_wait, int | float), "max_wait", self.max_wait, "use a number of seconds")
        _require(self.connections >= 1, "connections", self.connections, "use at least 1")
        finite = 0 <= self.max_wait < threading.TIMEOUT_MAX
        _require(finite, "max_wait", self.max_wait, "use 0 (never wait) or a finite number of seconds")
        _require(self.max_pending >= 0, "max_pending", self.max_pending, "use 0 (never wait) or more")


@dataclass(frozen=True, slots=True)
class LeaseOptions:
    """How a pool leases.

    :ivar enabled: False gives stock SQLAlchemy behaviour.
    :ivar read_functions: names of SQL functions of your own that only read; their calls stay proved reads.
    :ivar strict: raise where leases would be off with a WARNING, because the installed SQLAlchemy is unknown.
    :ivar guard: PostgreSQL itself refuses what a proved read would write; off where a pooler forbids it.
    :ivar on_pin: ``"warn"`` or ``"error"`` where a connection is pinned by something else than a write.
    :ivar on_acquire: called with the DBAPI connection, in autocommit, each time one is acquired.
    :ivar on_release: called likewise before a connection goes to somebody else.
    """

    enabled: bool = True
    read_functions: frozenset[str] = field(default_factory=frozenset)
    strict: bool = False
    guard: bool = True
    on_pin: OnPin | None = None
    on_acquire: Hook | None = None
    on_release: Hook | None = None

    def __post_init__(self) -> None:
        _require(self.on_pin in (None, "warn", "error"), "on_pin", self.on_pin, "use 'warn', 'error' or None")
        for option in ("on_acquire", "on_release"):
            hook = getattr(self, option)
            _require(hook is None or callable(hook), option, hook, "give a function of the DBAPI connection")
            is_coroutine = inspect.iscoroutinefunction(hook)
            _require(
                not is_coroutine, option, hook, "give a plain def; the async drivers' connection is used as a sync one"
            )


@dataclass(frozen=True, slots=True)
class RefusalOptions:
    """How a refusal is answered over HTTP.

    :ivar status: 503, or 429 where a load balancer takes 503 for a broken server.
    """

    status: int = 503

    def __post_init__(self) -> None:
        _require(self.status in (429, 503), "status", self.status, "use 503 or 429")


def is_switched_off(environ: Mapping[str, str] = os.environ) -> bool:
    """Tell whether ``HEADGATE=off`` is set."""
    return environ.get(SWITCH, "").strip().lower() == "off"


def _require(holds: bool, option: str, value: object, remedy: str) -> None:
    if not holds:
        raise ConfigError(f"{option}={value!r} cannot work: {remedy}")


Clock = Callable[[], int]
"""Monotonic time in nanoseconds."""
