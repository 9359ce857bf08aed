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
    :ivar max_wait: seconds a request waits for its first connection at most before it is dropped; 0 turns waiting
        off. It bounds the burst that passes, and how old an answer can be: choose it well below what callers wait.
    :ivar max_pending: how many may wait at once; one more newcomer is shed. 0 turns waiting off. It bounds memory only.
    :ivar max_stall: seconds a request that has held a connection waits for its next one although nobody gets any.
    :ivar reserve: connections of the budget that only the high lane may use; fewer than ``connections``.
    """

    connections: int = 15
    max_wait: float = 0.5
    max_pending: int = 1000
    max_stall: float = 5.0
    reserve: int = 0

    def __post_init__(self) -> None:
        for option in ("connections", "max_pending", "reserve"):
            _require(isinstance(getattr(self, option), int), option, getattr(self, option), "use a whole number")
        _require(self.connections >= 1, "connections", self.connections, "use at least 1")
        for option in ("max_wait", "max_stall"):
            seconds = getattr(self, option)
            _require(isinstance(seconds, int | float), option, seconds, "use a number of seconds")
            finite = 0 <= seconds < threading.TIMEOUT_MAX
            _require(finite, option, seconds, "use 0 (never wait) or a finite number of seconds")
        held_back = 0 <= self.reserve < self.connections
        _require(held_back, "reserve", self.reserve, f"use 0 to {self.connections - 1}, fewer than connections=")
        _require(self.max_pending >= 0, "max_pending", self.max_pending, "use 0 (never wait) or more")


@dataclass(frozen=True, slots=True)
class LeaseOptions:
    """How a pool leases.

    :ivar enabled: False gives stock SQLAlchemy behaviour.
    :ivar read_functions: names of SQL functions and types of your own that only read; statements with them stay
        proved reads.
    :ivar strict: raise where leases would be off with a WARNING, because the installed SQLAlchemy is unknown.
    :ivar guard: PostgreSQL itself refuses what a proved read would write; off where a pooler forbids it.
    :ivar on_pin: ``"warn"`` or ``"error"`` where a connection is pinned by something else than a write; None says
        nothing.
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
    :ivar header: the name of the header that says when to come again.
    :ivar early: in overload, and while a burst fills the line, turn requests away before routing whose route is known
        to need the database.
    """

    status: int = 503
    header: str = "Retry-After"
    early: bool = True

    def __post_init__(self) -> None:
        _require(self.status in (429, 503), "status", self.status, "use 503 or 429")
        named = isinstance(self.header, str) and self.header.replace("-", "").isalnum() and self.header.isascii()
        _require(named, "header", self.header, "use a header's name, as 'Retry-After'")


@dataclass(frozen=True, slots=True)
class DeadlineOptions:
    """When nobody wants a request's answer any more: what it waits for is ended then, what it runs is cancelled.

    :ivar seconds: after a request has come; None for no deadline.
    :ivar header: the name of a request header with milliseconds that may shorten it; None to read none, as whoever
        is not trusted could send it.
    :ivar stop_when_gone: methods whose requests are given up when their client has gone. Any other request goes on,
        unless it still waits for its first connection: it may have done half of something elsewhere. Once a response
        has begun, no request is given up for its client.
    """

    seconds: float | None = None
    header: str | None = None
    stop_when_gone: frozenset[str] = frozenset({"GET", "HEAD", "QUERY"})

    def __post_init__(self) -> None:
        require_deadline("seconds", self.seconds)
        named = self.header is None or (self.header.replace("-", "").isalnum() and self.header.isascii())
        _require(named, "header", self.header, "use a header's name, as 'X-Request-Timeout-Ms', or None")
        methods = self.stop_when_gone
        are_named = not isinstance(methods, str) and all(isinstance(name, str) and name.isupper() for name in methods)
        _require(are_named, "stop_when_gone", methods, "use names of methods, as frozenset({'GET', 'HEAD'})")


def is_switched_off(environ: Mapping[str, str] = os.environ) -> bool:
    """Tell whether ``HEADGATE=off`` is set."""
    return environ.get(SWITCH, "").strip().lower() == "off"


def budget_of(pool_size: int, max_overflow: int) -> int:
    """How many connections a queue pool allows.

    :raises ConfigError: it sets no bound.
    """
    if pool_size == 0 or max_overflow < 0:
        raise ConfigError(
            f"pool_size={pool_size}, max_overflow={max_overflow} sets no bound, and a budget needs one: "
            "use pool_size >= 1 and max_overflow >= 0"
        )
    return pool_size + max_overflow


def require_deadline(option: str, seconds: float | None) -> None:
    """Nothing, if a request can have such a deadline.

    :raises ConfigError: it is neither None nor a number of seconds above 0.
    """
    positive = seconds is None or (isinstance(seconds, int | float) and 0 < seconds < 1e9)
    _require(positive, option, seconds, "use a number of seconds above 0, or None")


def _require(holds: bool, option: str, value: object, remedy: str) -> None:
    if not holds:
        raise ConfigError(f"{option}={value!r} cannot work: {remedy}")


Clock = Callable[[], int]
"""Monotonic time in nanoseconds."""
