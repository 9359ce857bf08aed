"""Every point at which somebody else can come in between: one thread, one step of the interpreter at a time."""

from __future__ import annotations

import dis
import sys
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import cache, partial
from itertools import count
from types import CodeType, FrameType
from typing import Any, Protocol

import pytest

import headgate.admission
import headgate.draining
import headgate.gate
import headgate.overload
import headgate.queueing
import headgate.tallies
import headgate.turns
import headgate.waiters
from headgate.gate import Gate

MODULES = (
    headgate.admission,
    headgate.draining,
    headgate.gate,
    headgate.overload,
    headgate.queueing,
    headgate.tallies,
    headgate.turns,
    headgate.waiters,
)
GATE_FILES = {module.__file__ for module in MODULES}
UNLOCKED_FILES = GATE_FILES - {headgate.overload.__file__, headgate.queueing.__file__, headgate.tallies.__file__}
"""Without what is only ever done under the gate's lock, where another thread can but wait."""
ONLY_TELLING = {"refusal", "_retry_after_s", "statistics", "retry_after_s"}
OF_NO_CONCERN_TO_OTHERS = (
    *("BUILD", "CACHE", "COPY", "IS_OP", "JUMP", "KW_NAMES", "LOAD_CONST", "LOAD_FAST", "LOAD_GLOBAL", "LOAD_METHOD"),
    *("NOP", "POP_TOP", "PRECALL", "PUSH_NULL", "RESUME", "RETURN", "STORE_FAST", "SWAP", "UNPACK"),
)


@cache
def steps_of(code: CodeType) -> frozenset[int]:
    """Where in this code somebody else may come in between, and it makes a difference."""
    return frozenset(
        instruction.offset
        for instruction in dis.get_instructions(code)
        if not instruction.opname.startswith(OF_NO_CONCERN_TO_OTHERS)
    )


@contextmanager
def called_before_step(
    number: int, call: Callable[[], object], files: Collection[str | None] = GATE_FILES
) -> Iterator[None]:
    """Call something before one step, an instruction of the interpreter, that this thread takes in these files."""
    steps = count(1)

    def trace(frame: FrameType, event: str, _: object) -> Any:
        if frame.f_code.co_filename not in files or frame.f_code.co_name in ONLY_TELLING:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode" and frame.f_lasti in steps_of(frame.f_code) and next(steps) == number:
            sys.settrace(before)  # the rest is of no interest, and a trace is slow
            call()
            return None
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


def run_interleaved(
    gate: Gate,
    one: Callable[[], object],
    other: Callable[[], object],
    at_step: int,
    files: Collection[str | None] = UNLOCKED_FILES,
) -> bool:
    """Run ``one``; before that step of it a second thread runs ``other`` as far as it gets.

    :returns: False if ``one`` ended earlier, so that ``other`` came after it.
    """
    stopped, failures = threading.Event(), list[BaseException]()

    def run_other() -> None:
        try:
            other()
        except BaseException as error:
            failures.append(error)
        stopped.set()

    def let_other_run() -> None:
        second.start()
        assert stopped.wait(5)

    second = threading.Thread(target=run_other, daemon=True)
    gate._lock.blocked = stopped.set  # type: ignore[attr-defined]
    with called_before_step(at_step, let_other_run, files):
        one()
    was_in_time = second.ident is not None
    if not was_in_time:
        second.start()
    second.join(5)
    assert not second.is_alive()
    assert failures == []
    return was_in_time


class Play(Protocol):
    """Somebody's part at a gate; its methods without arguments are what can be done, and ``check`` holds after any."""

    gate: Gate

    def check(self) -> None: ...


def act(play: Play, names: str) -> None:
    for name in names.split():
        getattr(play, name)()


def play_interleaved(begin: Callable[[], Play], before: str, one: str, other: str) -> None:
    """Check what comes of it wherever ``other``, of a second thread, comes in between the steps of ``one``."""
    for at_step in count(1):
        play = begin()
        act(play, before)
        was_in_time = run_interleaved(play.gate, partial(act, play, one), partial(act, play, other), at_step)
        play.check()
        if not was_in_time:
            break


def play_interrupted(begin: Callable[[], Play], before: str, interrupted: str, finalizer: str) -> None:
    """Check what comes of it wherever a finalizer runs in the same thread."""
    for at_step in count(1):
        play, ran = begin(), list[str]()

        def finalize(play: Play = play, ran: list[str] = ran) -> None:
            ran.append(finalizer)
            act(play, finalizer)

        act(play, before)
        with called_before_step(at_step, finalize):
            act(play, interrupted)
        if not ran:
            break
        play.check()


def in_both_orders(before: str, one: str, other: str) -> Iterator[Any]:
    for first, second in ((one, other), (other, one)):
        yield pytest.param(before, first, second, id=f"{before}: {first} before {second}")
