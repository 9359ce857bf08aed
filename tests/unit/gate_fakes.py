"""What the tests of the gate share: a gate with a fake clock, leases, and waiters that take their steps by hand."""

from __future__ import annotations

import _thread
import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ClassVar, cast

import pytest

from headgate.admission import ORDINARY, Ask
from headgate.config import GateOptions
from headgate.gate import Gate
from headgate.queueing import Kind
from headgate.turns import Turn
from headgate.waiters import GAVE_UP, PERMIT, Grant, ThreadWaiter

FOREVER = 1e6
MS = 1_000_000
KINDS: tuple[Kind, Kind] = ("sync", "async")
both_kinds = pytest.mark.parametrize("kind", KINDS)


class FakeClock:
    def __init__(self) -> None:
        self.now_ns = 0

    def __call__(self) -> int:
        return self.now_ns


class WatchedLock:
    """A lock that fails where the real one would wait for ever: for its own thread."""

    def __init__(self) -> None:
        self._lock = _thread.allocate_lock()
        self._owner = 0
        self.blocked: Callable[[], object] = lambda: None

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        taken = self._lock.acquire(blocking=False)
        if not taken and blocking:
            assert timeout >= 0 or self._owner != threading.get_ident(), "this thread waits for itself"
            self.blocked()
            taken = self._lock.acquire(timeout=timeout)
        if taken:
            self._owner = threading.get_ident()
        return taken

    def locked(self) -> bool:
        return self._lock.locked()

    def release(self) -> None:
        self._owner = 0
        self._lock.release()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *exc: object) -> None:
        self.release()


def make_gate(
    connections: int = 1,
    *,
    max_wait: float = FOREVER,
    max_pending: int = 1000,
    max_stall: float = 5.0,
    reserve: int = 0,
    clock: FakeClock | None = None,
) -> Gate:
    options = GateOptions(
        connections=connections, max_wait=max_wait, max_pending=max_pending, max_stall=max_stall, reserve=reserve
    )
    gate = Gate(options, name="shop", clock=clock or FakeClock(), jitter=lambda: 0.0)
    gate._lock = gate._draining._lock = WatchedLock()  # type: ignore[assignment]
    return gate


class FakeLease:
    """A lease as the gate knows it; given back, it gives its permit back, as a pool's does."""

    kind: Kind

    def __init__(self, gate: Gate, kind: Kind = "sync", *, is_reserved: bool = False) -> None:
        self.gate = gate
        self.is_reserved = is_reserved
        self.kind = kind
        self.given_back = 0

    def give_back(self) -> None:
        self.given_back += 1
        self.gate.release(kind=self.kind)

    def rest(self) -> None:
        self.gate.rest(self, self.kind)

    def resume(self) -> bool:
        return self.gate.resume(self, self.kind)

    @property
    def is_warm(self) -> bool:
        return self.gate.is_warm(self, self.kind)


def rested(gate: Gate, kind: Kind = "sync") -> FakeLease:
    """A new lease that its holder has left warm."""
    assert gate.acquire_nowait(kind) is PERMIT
    lease = FakeLease(gate, kind)
    lease.rest()
    return lease


class SyncWaiter(ThreadWaiter):
    """A thread that waits, without the thread: the test takes its steps."""


class AsyncWaiter(ThreadWaiter):
    """A task that waits, without the task."""

    kind: ClassVar[Kind] = "async"


class DeafWaiter(ThreadWaiter):
    """One that can no longer be told, because its event loop has been closed."""

    def wake(self) -> bool:
        return False


WAITERS: dict[Kind, type[ThreadWaiter]] = {"sync": SyncWaiter, "async": AsyncWaiter}


def join(
    gate: Gate, kind: Kind = "sync", ask: Ask = ORDINARY, *, waiter: ThreadWaiter | None = None
) -> Turn[ThreadWaiter]:
    """Somebody begins to wait."""
    return Turn(gate, waiter or WAITERS[kind](), ask).__enter__()


def grant_of(turn: Turn[ThreadWaiter]) -> Grant | None:
    """What it has been granted; None if nothing (yet)."""
    outcome = turn.waiter.outcome
    return None if outcome is None or outcome is GAVE_UP or isinstance(outcome, str) else cast(Grant, outcome)


def interrupt(turn: Turn[ThreadWaiter]) -> None:
    """It gives up by itself."""
    turn.__exit__(KeyboardInterrupt)


def time_out(turn: Turn[ThreadWaiter]) -> Grant:
    """Its wait has lasted as long as it was told.

    :raises Overloaded: it had to go.
    """
    turn.has_waited = True
    assert turn.seconds_left() is None
    turn.__exit__(None)
    return turn.grant


async def run_tasks() -> None:
    """Let every task run until it waits for something."""
    for _ in range(10):
        await asyncio.sleep(0)


def numbers(gate: Gate) -> tuple[int, int]:
    now = gate.statistics()
    return now.in_use, now.pending


@contextmanager
def waiting_thread(gate: Gate) -> Iterator[threading.Event]:
    """A thread that waits for a permit, keeps it until told and gives it back."""
    holds, may_end = threading.Event(), threading.Event()

    def run() -> None:
        gate.acquire()
        holds.set()
        may_end.wait(5)
        gate.release()

    before = gate.statistics().pending
    thread = threading.Thread(target=run)
    thread.start()
    while gate.statistics().pending == before:
        threading.Event().wait(0.0001)
    try:
        yield holds
    finally:
        may_end.set()
        thread.join(5)
        assert not thread.is_alive()
