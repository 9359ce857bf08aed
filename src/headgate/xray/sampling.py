"""Beat by beat, what those wait for who hold a connection on which no statement runs."""

from __future__ import annotations

import asyncio
from typing import Final

from headgate.xray.awaiting import what_awaits, what_runs
from headgate.xray.live import Live, LiveHold
from headgate.xray.observation import NOWHERE, THE_DATABASE, Site

MOST_SAMPLED: Final = 100
"""Holds a beat: five microseconds each."""

MOST_PLACES: Final = 50
"""Of one hold."""

NOBODY: Final = "nobody: the task that acquired it has ended"


def sample_holds(live: Live, loop: asyncio.AbstractEventLoop, weight_ns: int) -> None:
    """Look at every idle hold of a loop's requests, once; ``weight_ns`` is the time since the last look."""
    for number, hold in enumerate(live.idle_holds()):
        if number >= MOST_SAMPLED:
            return
        if _belongs_to(hold, loop):
            place = where_held(hold)
            if place[1] == THE_DATABASE:
                hold.busy_ns += weight_ns
            elif place in hold.seen or len(hold.seen) < MOST_PLACES:
                hold.seen[place] = hold.seen.get(place, 0) + weight_ns


def _belongs_to(hold: LiveHold, loop: asyncio.AbstractEventLoop) -> bool:
    task = hold.task or (hold.request.task if hold.request is not None else None)
    return task is None or task.get_loop() is loop


def where_held(hold: LiveHold) -> tuple[Site, str]:
    """The line its holder is at now, and what it awaits there."""
    request, task = hold.request, hold.task
    if task is None and request is None:
        return what_runs(hold.thread)
    if request is not None and request.sender is not None and not request.sender.done():
        return what_awaits(request.sender)
    if request is not None and (task is None or task.done()):
        if task is None and request.thread:
            return what_runs(request.thread)
        task = request.task
    return (NOWHERE, NOBODY) if task is None or task.done() else what_awaits(task)
