"""A running statement is cancelled on the server as soon as nobody wants the answer of its request any more.

Whoever takes a statement out of the request's table has it: its holder, when it is over, or the canceller. A cancel
request may come too late, and would hit what the connection does next, so its holder goes on only when the last one
has been delivered; it may come too early, between two messages of one statement, so it is repeated until it works.
"""

from __future__ import annotations

import logging
import random
import re
import threading
import time
from asyncio import CancelledError, wrap_future
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

from sqlalchemy.util import await_only

from headgate.errors import Overloaded

if TYPE_CHECKING:
    from headgate.admission import Admission
    from headgate.lent import Lease

log = logging.getLogger("headgate.pool")

FIRST_PAUSE_S: Final = 0.03
"""The next cancel request follows after this time, and then after twice as long each time."""

CUT_AFTER_S: Final = 5.0
"""A statement that no cancel request has ended by then loses its connection: the server cannot be reached."""

PAUSES_ALONE_S: Final = (1, 2, 4, 8, 16, 32)
"""Between the attempts to cancel what has lost its connection: the server may come back."""


def run_for(
    admission: Admission, lease: Lease, call: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Any:
    """Call what makes the server work for a request, as long as somebody wants its answer.

    :raises Overloaded: the request was given up; the statement was not sent, or it was cancelled.
    """
    running = admission.running
    running.add(lease)
    try:
        if admission.ended is not None:
            raise given_up(admission, lease, "the statement was not sent")
        return call(*args, **kwargs)
    except Exception as error:
        if admission.ended is not None and lease.lender.driver.was_cancelled(error):
            raise given_up(admission, lease, "the statement was cancelled on the server") from error
        raise
    finally:
        try:
            running.remove(lease)
        except KeyError:  # it has been taken
            _wait_for(admission.cancellings.pop(lease), lease)


def _wait_for(cancelling: Cancelling, lease: Lease) -> None:
    try:
        cancelling.finish()
    except BaseException:
        lease.is_suspect = True  # a cancel request may still be on its way
        raise


def given_up(admission: Admission, lease: Lease, fact: str) -> Overloaded:
    """Return the error for somebody whose request was given up."""
    reason = admission.ended or "deadline"
    admission.admit(lease.lender.gate)  # it has a connection, perhaps from before it began
    return Overloaded(
        f"database {lease.lender.gate.name!r}: {fact}: {_WHY[reason]}.\n"
        "Remedies: 1. make the statement faster. 2. give the request a later deadline.",
        database=lease.lender.gate.name,
        reason=reason,
        retry_after_s=random.randint(1, 3),
    )


_WHY: Final[dict[str, str]] = {
    "deadline": "the request's deadline has passed",
    "gone": "the client has gone, and nobody waits for the answer",
}

_ENDINGS: Final = ("COMMIT", "END", "PREPARE", "ROLLBACK", "ABORT")

_COMMENTS: Final = re.compile(r"(?:\s+|--[^\n]*\n|/\*.*?\*/)*", re.DOTALL)


def ends_transaction(statement: Any) -> bool:
    """Whether a statement is one that must not be cancelled, because nobody could know what became of it."""
    return isinstance(statement, str) and _first_word(statement).startswith(_ENDINGS)


def rolls_back(statement: str) -> bool:
    """Whether a statement that ends a transaction undoes it."""
    return _first_word(statement).startswith(("ROLLBACK", "ABORT"))


def _first_word(statement: str) -> str:
    start = 0 if statement[:1].isalpha() else cast(re.Match[str], _COMMENTS.match(statement)).end()
    return statement[start : start + 8].upper()


def refuse_commit(admission: Admission | None, lease: Lease) -> None:
    """Refuse to commit what belongs to a request that was given up: half of its statements may not have been sent.

    :raises Overloaded: it was given up.
    """
    if admission is not None and admission.ended is not None:
        raise given_up(admission, lease, "the transaction was not committed")


def cancel_all(admission: Admission) -> None:
    """Cancel whatever runs for a request that has been given up; safe from any thread, waits for nothing."""
    for lease in list(admission.running):
        admission.cancellings[lease] = cancelling = Cancelling(lease)  # first: its holder looks for it when it is taken
        try:
            admission.running.remove(lease)
        except KeyError:
            admission.cancellings.pop(lease, None)  # it was over just now
        else:
            cancelling.start()


def leave(lease: Lease, error: BaseException) -> None:
    """Whoever waited for a statement was interrupted: its connection is nobody's any more, nor is what it runs.

    A task that is cancelled again and again does not come to telling the server itself.
    """
    lease.is_suspect = True
    if isinstance(error, CancelledError):
        Cancelling(lease).start_alone()


class Cancelling:
    """Cancels one statement until it is over, from a thread of its own: asking the server takes a connection to it."""

    __slots__ = ("_cancel", "_cut", "_has_told", "_is_async", "_is_over", "_name")

    def __init__(self, lease: Lease) -> None:
        self._cancel = lease.standing.cancel
        self._cut = partial(lease.lender.driver.cut, lease.dbapi)
        self._name = lease.lender.gate.name
        self._is_async = lease.kind == "async"
        self._is_over = threading.Event()
        self._has_told: Future[None] = Future()
        self._has_told.set_running_or_notify_cancel()  # a task that is cancelled while it waits must not cancel it

    def start(self) -> None:
        """Begin."""
        self._start_thread(self._run)

    def start_alone(self) -> None:
        """Begin, with nobody waiting for the statement."""
        self._start_thread(self._cancel_alone)

    def _start_thread(self, run: Callable[[], None]) -> None:
        try:
            threading.Thread(target=run, name="headgate-cancel", daemon=True).start()
        except RuntimeError as error:  # the interpreter ends, or has no thread left
            self._note(error)
            self._has_told.set_result(None)

    def finish(self) -> None:
        """The statement is over: wait until nothing can hit the connection any more."""
        self._is_over.set()
        if self._is_async:
            await_only(wrap_future(self._has_told))
        else:
            self._has_told.result()

    def _run(self) -> None:
        try:
            is_over = self._cancel_until_over()
        finally:
            self._has_told.set_result(None)
        if not is_over:
            self._cancel_alone()

    def _cancel_until_over(self) -> bool:
        """False if the statement goes on without its connection."""
        pause_s, cut_s = FIRST_PAUSE_S, time.monotonic() + CUT_AFTER_S
        while not self._is_over.is_set():
            self._try()
            if not self._is_over.wait(pause_s) and time.monotonic() > cut_s and self._cut():
                return False
            pause_s *= 2
        return True

    def _cancel_alone(self) -> None:
        for pause_s in PAUSES_ALONE_S:
            if self._try():
                return
            time.sleep(pause_s)

    def _try(self) -> bool:
        try:
            self._cancel()
        except Exception as error:  # whatever a driver says: the next attempt may succeed
            self._note(error)
            return False
        return True

    def _note(self, error: Exception) -> None:
        log.info("database %r: a statement could not be cancelled: %s", self._name, type(error).__name__)
