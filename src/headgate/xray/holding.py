"""What those do now who hold a connection, and how its pool is."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from typing import Final

from sqlalchemy.pool import Pool, QueuePool

from headgate.xray.holders import Doing, Holder, PoolState, show_route
from headgate.xray.live import LiveHold
from headgate.xray.observation import NOWHERE, RUNS, THE_DATABASE, Site
from headgate.xray.pool_waits import Wait
from headgate.xray.sampling import where_held
from headgate.xray.sql_hooks import LEASING

MOST_LOOKED_AT: Final = 200
"""Holders in one report, those who have held longest: some five microseconds each."""


def left_by(hold: LiveHold) -> str:
    """What of its holder is over, ``request`` or ``task``; '' while there is somebody to give it back."""
    request, task = hold.request, hold.task
    if request is None:
        return "task" if task is not None and task.done() else ""
    if not request.ended_ns:
        return ""
    # A task of its own may outlive the request it was started in.
    return "request" if task is None or task is request.task or task.done() else ""


def look_at_holders(
    holds: Iterable[LiveHold], now_ns: int, waits: Collection[Wait], *, asker: object = None, asked_at: Site = NOWHERE
) -> list[Holder]:
    """What those do who have held longest.

    :param waits: for a connection of the same pool.
    :param asker: the request that runs here and now, at ``asked_at``: nobody can look at it from outside.
    """
    asking = {id(wait.request) for wait in waits if wait.request is not None}
    longest = sorted(holds, key=lambda hold: hold.began_ns)[:MOST_LOOKED_AT]
    return [
        look_at_holder(
            hold,
            now_ns,
            asks=id(hold.request) in asking,
            at=asked_at if asker is not None and hold.request is asker else None,
        )
        for hold in longest
    ]


def look_at_holder(hold: LiveHold, now_ns: int, *, asks: bool = False, at: Site | None = None) -> Holder:
    """What one holder does.

    :param asks: it waits for one more connection of the pool; ``at`` the line, where that is known.
    """
    now, doing, what = _doing(hold, asks=asks, at=at)
    return Holder(_route(hold), _shorten(hold.site), _shorten(now), doing, what, max(0, now_ns - hold.began_ns))


def recall_holder(hold: LiveHold) -> Holder:
    """Somebody whose hold has ended."""
    return Holder(_route(hold), _shorten(hold.site), NOWHERE, "left", "", hold.ended_ns - hold.began_ns)


def look_at_pool(pool: Pool | None, database: str, limit: int | None, held: int, waits: list[int]) -> PoolState:
    """How a pool is.

    :param held: connections that are known to be held.
    :param waits: how long everybody has waited who waits.
    """
    in_use, idle = held, 0
    if isinstance(pool, QueuePool) and not isinstance(pool, LEASING):
        in_use, idle = pool.checkedout(), pool.checkedin()
    return PoolState(database, in_use, limit, idle, len(waits), max(waits, default=0))


def _doing(hold: LiveHold, *, asks: bool, at: Site | None) -> tuple[Site, Doing, str]:
    if over := left_by(hold):
        return NOWHERE, "left", over
    if hold.busy_since_ns:
        return hold.at, "executes", ""
    if at is not None:
        return at, "asks", ""
    now, what = where_held(hold)
    if asks:
        return now, "asks", ""
    if what == THE_DATABASE:
        return now, "executes", ""
    return (now, "waits", what) if what and what != RUNS else (now, "runs", "")


def _route(hold: LiveHold) -> str:
    return "" if hold.request is None else show_route(hold.request.route)


def _shorten(site: Site) -> Site:
    """Of a file below the working directory, without that."""
    return site._replace(file=site.file.removeprefix(_HERE), text="")


def _here() -> str:
    try:
        here = os.getcwd()
    except OSError:  # it has been removed
        return ""
    return "" if here == os.sep else here + os.sep


_HERE: Final = _here()
