"""Watches one test: what it does with connections and with the event loop, in its own code and in its requests."""

from __future__ import annotations

import asyncio
import functools
import inspect
import linecache
import logging
import os
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple, ParamSpec, TypeVar, cast

from headgate.ledger import current_ledger
from headgate.xray.allowing import Allowed, is_hold_ok, parse_allowed
from headgate.xray.collected import collection_seams
from headgate.xray.driving import Drive, current_drive, drive
from headgate.xray.explain import SAME_STATEMENT
from headgate.xray.findings import (
    KINDS,
    Finding,
    Kind,
    find_hold,
    find_leak,
    find_repeat,
    find_second,
    find_stall,
    format_findings,
    is_query,
)
from headgate.xray.foreign import Foreign
from headgate.xray.live import Live, LiveHold, LiveRequest, LiveStatement
from headgate.xray.loops import Loops
from headgate.xray.observation import Site, with_text
from headgate.xray.seams import Seam
from headgate.xray.shapes import statement_shape
from headgate.xray.sql_hooks import lease_seams, sql_seams
from headgate.xray.stalls import STALL_NS

try:
    from headgate.xray.driven_requests import request_seams
except ImportError:  # an app without Starlette
    request_seams = None  # type: ignore[assignment]

log = logging.getLogger("headgate.xray")

GRACE_S: Final = 0.2
"""After a test: what runs in other threads may be about to give its connection back."""

_PAUSE_S: Final = 0.005

Value = TypeVar("Value")
Arguments = ParamSpec("Arguments")


@dataclass(frozen=True, slots=True)
class Options:
    """What fails a test.

    :ivar kinds: of findings.
    :ivar stall_ns: how long code may keep the event loop.
    :ivar repeats: so many equal queries from one line are too many.
    :ivar allow: functions that may do it.
    """

    kinds: frozenset[Kind] = field(default_factory=lambda: frozenset(KINDS))
    stall_ns: int = STALL_NS
    repeats: int = SAME_STATEMENT
    allow: tuple[Allowed, ...] = ()


class _Acquired(NamedTuple):
    """A connection, who acquired it, and whether that was for a fixture that outlives the test."""

    hold: LiveHold
    drive: Drive | None
    is_spared: bool


def _harmless(method: Callable[Arguments, None]) -> Callable[Arguments, None]:
    """An error of ours is logged, and never reaches what is tested."""

    @functools.wraps(method)
    def call(*args: Arguments.args, **options: Arguments.kwargs) -> None:
        try:
            method(*args, **options)
        except Exception:
            log.exception("%s failed; the test goes on", method.__name__)

    return call


class _Live(Live):
    """What is going on, with somebody who is told of holds."""

    def __init__(self, check: Check) -> None:
        super().__init__(check._begin_request, check._end_request, lambda hold: None)
        self._check = check

    def hold(self, entry: object, hold: LiveHold) -> None:
        if id(entry) not in self.holds:  # else it is told twice
            self._check._note_hold(entry, hold)
        super().hold(entry, hold)

    def let_go(self, entry: object, now_ns: int) -> None:
        self._check._note_let_go(entry)
        super().let_go(entry, now_ns)


class Check:
    """Watches one test while it is open.

    :param own_file: the test's.
    """

    def __init__(self, options: Options, own_file: str) -> None:
        self._options = options
        self._own_file = own_file
        self._allowed = list(options.allow)
        self._live = _Live(self)
        self._loops = Loops(self._live, options.stall_ns, self._add_stall) if "stall" in options.kinds else None
        self._seams: list[Seam] = []
        self._found: dict[tuple[object, ...], Finding] = {}
        """By what is not worth telling twice."""
        self._told = 0
        self._acquired: dict[int, _Acquired] = {}
        """And not given back so far, by the pool's entry."""
        self._collected: list[LiveHold] = []
        self._requests = 0
        self._outer: dict[int, Drive | None] = {}
        """Who has made a request, by its identity: a test."""
        self._spared = 0

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What was found so far."""
        return tuple(self._found.values())

    def allow(self, *functions: str) -> None:
        """Let functions, as ``package.module:function``, do in this test what otherwise fails it, from now on."""
        self._allowed += map(parse_allowed, functions)

    def open(self) -> None:
        """Begin to watch."""
        for seams in (sql_seams(self._live), lease_seams(self._live), collection_seams(self._note_collected)):
            self._seams.extend(seams)
        if request_seams is not None:
            self._seams.extend(request_seams(self._live, self.drive))

    def close(self) -> None:
        """Put back everything that was there."""
        while self._seams:
            self._seams.pop().undo()
        if self._loops is not None:
            self._loops.close()

    @contextmanager
    def sparing(self) -> Iterator[None]:
        """What is acquired meanwhile may outlive the test: a fixture of a wider scope is set up."""
        self._spared += 1
        try:
            yield
        finally:
            self._spared -= 1

    def take_untold(self) -> str:
        """What was found since this was asked last, for people; '' if nothing was."""
        untold = self.findings[self._told :]
        self._told += len(untold)
        if not untold:
            return ""
        told = [cast("Finding", with_text(finding, linecache.getline)) for finding in untold]
        return format_findings(told).replace(f"{Path.cwd()}{os.sep}", "")

    # what is tested

    def wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A test's function, driven if it is a coroutine's."""
        if not inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            def called(*args: Any, **options: Any) -> Any:
                __tracebackhide__ = True
                with self._as_one_request():
                    return function(*args, **options)

            return called

        @functools.wraps(function)
        async def driven(*args: Any, **options: Any) -> Any:
            __tracebackhide__ = True
            with self._as_one_request():
                return await self.drive(function(*args, **options))

        return driven

    @contextmanager
    def _as_one_request(self) -> Iterator[None]:
        """Statements of the test's own code count as one request's, if it makes none itself."""
        ledger, requests = LiveRequest({"type": "test", "method": "", "path": ""}, time.monotonic_ns()), self._requests
        token = current_ledger.set(ledger)
        try:
            yield
        finally:
            with suppress(ValueError):  # it is closed from outside of its task, by the garbage collector
                current_ledger.reset(token)
            if self._requests == requests:
                self._judge_repeats(ledger.statements, "")

    async def drive(self, coroutine: Coroutine[Any, Any, Value], name: Callable[[], str] | None = None) -> Value:
        """Await a coroutine and look at its suspensions.

        :param name: of the request that it answers; None for the test itself.
        """
        __tracebackhide__ = True
        loop, outer = _running_loop(), current_drive.get()
        if loop is None or (outer is not None and outer.is_request and outer.task is asyncio.current_task()):
            return await coroutine  # another backend; or an app that is mounted in one that is driven already
        one = Drive(coroutine, self._add_hold, name)
        with self._watching(loop), one.within(outer):
            return await drive(coroutine, one)

    @contextmanager
    def _watching(self, loop: asyncio.AbstractEventLoop) -> Iterator[None]:
        self._enter(loop)
        try:
            yield
        finally:
            self._leave(loop)

    # what happens

    @_harmless
    def _enter(self, loop: asyncio.AbstractEventLoop | None) -> None:
        if self._loops is not None and loop is not None:
            self._loops.enter(loop)

    @_harmless
    def _leave(self, loop: asyncio.AbstractEventLoop | None) -> None:
        if self._loops is not None and loop is not None:
            self._loops.leave(loop)

    @_harmless
    def _begin_request(self, request: LiveRequest) -> None:
        self._requests += 1
        self._outer[id(request)] = outer = current_drive.get()
        if outer is not None:
            outer.begin_inner()
        self._enter(request.loop)

    @_harmless
    def _end_request(self, request: LiveRequest) -> None:
        outer = self._outer.pop(id(request), None)
        if outer is not None:
            outer.end_inner()
        self._leave(request.loop)
        self._judge_repeats(request.statements, request.route)

    @_harmless
    def _note_hold(self, entry: object, hold: LiveHold) -> None:
        one = current_drive.get()
        if one is not None:
            self._judge_second(one, hold)
            one.holds[id(entry)] = hold
        self._acquired[id(entry)] = _Acquired(hold, one, is_spared=self._spared > 0)

    @_harmless
    def _note_let_go(self, entry: object) -> None:
        acquired = self._acquired.pop(id(entry), None)
        if acquired is not None and acquired.drive is not None:
            acquired.drive.holds.pop(id(entry), None)

    @_harmless
    def _note_collected(self, entry: object) -> None:
        acquired = self._acquired.get(id(entry))
        if acquired is not None and not acquired.is_spared:
            self._collected.append(acquired.hold)
            self._note_let_go(entry)

    # what is found

    @_harmless
    def _add_stall(self, site: Site, what: str, lasted_ns: int) -> None:
        self._add(("stall", site), find_stall(site, what, lasted_ns), site)

    def _add_hold(self, one: Drive, hold: LiveHold, awaited: Foreign) -> None:
        if not any(map(is_hold_ok, awaited.callers)):
            found = find_hold(hold.site, awaited, one.name)
            self._add((found,), found, *awaited.callers)

    def _judge_second(self, one: Drive, hold: LiveHold) -> None:
        for first in list(one.holds.values()):
            is_tests_own = first.site.file == hold.site.file == self._own_file
            if first.pool is hold.pool and first.task is hold.task and not is_tests_own:
                found = find_second(first.site, hold.site, one.name)
                self._add((found,), found, first.site, hold.site)

    def _judge_repeats(self, statements: list[LiveStatement], during: str) -> None:
        sent: dict[tuple[str, Site], list[LiveStatement]] = {}
        for statement in statements:
            if is_query(statement.text):
                sent.setdefault((statement_shape(statement.text), statement.site), []).append(statement)
        for (shape, site), alike in sent.items():
            if len(alike) >= self._options.repeats:
                cause = next((one.cause for one in alike if one.cause), "")
                self._add((shape, site, during), find_repeat(shape, site, len(alike), cause, during), site)

    def look_for_leaks(self) -> None:
        """To be called when the test and its fixtures have ended."""
        if "leak" not in self._options.kinds:
            return
        until_s = time.monotonic() + GRACE_S
        here = threading.get_ident()
        while any(hold.thread != here for hold in self._not_given_back()) and time.monotonic() < until_s:
            time.sleep(_PAUSE_S)
        for hold in self._collected:
            self._add(("collected", hold.site), find_leak(hold.site, was_collected=True), hold.site)
        for hold in self._not_given_back():
            self._add(("out", hold.site), find_leak(hold.site, was_collected=False), hold.site)

    def _not_given_back(self) -> list[LiveHold]:
        return [acquired.hold for acquired in list(self._acquired.values()) if not acquired.is_spared]

    def _add(self, key: tuple[object, ...], finding: Finding, *callers: Site) -> None:
        is_allowed = any(allowed.is_at(site) for allowed in self._allowed for site in callers)
        if finding.kind in self._options.kinds and not is_allowed:
            self._found.setdefault(key, finding)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
