"""One waiter's way through the gate's line: it joins, waits, and leaves with a grant or a refusal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar, cast

from headgate.admission import Ask
from headgate.queueing import NEWCOMERS, Reason
from headgate.waiters import Grant, TaskWaiter, ThreadWaiter

if TYPE_CHECKING:
    from headgate.gate import Gate

WaiterT = TypeVar("WaiterT", ThreadWaiter, TaskWaiter)


class Turn(Generic[WaiterT]):
    """A context: whoever leaves it without a grant is gone from the line.

    :ivar joined_ns: since when it waits.
    :ivar until_ns: when it is to be looked at again.
    :ivar has_waited: it has been looked at before.
    """

    __slots__ = ("_ask", "_gate", "has_waited", "joined_ns", "until_ns", "waiter")

    def __init__(self, gate: Gate, waiter: WaiterT, ask: Ask) -> None:
        self._gate: Gate = gate
        self._ask: Ask = ask
        self.waiter: WaiterT = waiter
        self.joined_ns = self.until_ns = gate.clock()
        self.has_waited = False

    def __enter__(self) -> Turn[WaiterT]:
        try:
            self.until_ns = self._gate.join(self, self._ask)
        except BaseException:
            self._gate.abandon(self.waiter)
            raise
        if self._ask.admission is not None:
            self._ask.admission.begin(self)
        return self

    def __exit__(self, error_type: type[BaseException] | None, *exc: object) -> None:
        if self._ask.admission is not None:
            self._ask.admission.finish(self)
        if error_type is not None:
            self._gate.abandon(self.waiter)

    def seconds_left(self) -> float | None:
        """How long to wait until it is to be looked at again; None once it has a grant.

        :raises Overloaded: it is turned away.
        """
        left_ns = self._gate.settle(self, self._ask)
        self.has_waited = True  # as long as it was told, or until something became of it
        return None if left_ns is None else left_ns / 1e9

    @property
    def grant(self) -> Grant:
        """What it was granted."""
        return cast(Grant, self.waiter.outcome)

    def end(self, reason: Reason) -> None:
        """Give it up, because nobody wants the answer any more; safe from any thread."""
        self.waiter.refuse(reason)

    def look_again(self, now_ns: int, moved_ns: int, max_stall_ns: int) -> Reason | None:
        """Why its wait is over, or None if it may go on until a later ``until_ns``.

        Whoever is under way goes on waiting as long as connections move.

        :param moved_ns: when a connection went from somebody to somebody last.
        """
        stalls_ns = moved_ns + max_stall_ns  # it has joined an empty line, or others were before it
        deadline_ns = self._ask.deadline_ns
        is_late = not self._ask.is_under_way or (deadline_ns is not None and now_ns >= deadline_ns)
        if now_ns >= stalls_ns:
            return "stalled"
        if is_late:
            return "deadline"
        self.until_ns = stalls_ns if deadline_ns is None else min(stalls_ns, deadline_ns)
        self.waiter.rearm()
        return None

    @property
    def is_newcomer(self) -> bool:
        """True if it may be turned away for somebody else."""
        return self._ask.rank in NEWCOMERS
