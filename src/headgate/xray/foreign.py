"""Is what a suspended coroutine waits for the database's own, or foreign?"""

from __future__ import annotations

from collections.abc import Coroutine
from types import FrameType
from typing import Any, Final, NamedTuple

from headgate.xray.app_code import is_app_code, site_of
from headgate.xray.awaiting import _chain, _future_name
from headgate.xray.observation import Site

DATABASE: Final = frozenset(
    {
        "aiomysql",
        "aioodbc",
        "aiosqlite",
        "asyncmy",
        "asyncpg",
        "headgate",
        "oracledb",
        "psycopg",
        "psycopg_pool",
        "sqlalchemy",
        "sqlmodel",
    }
)
"""Packages whose waits are the database's."""

_OURS: Final = "headgate.xray"


class Foreign(NamedTuple):
    """A wait that is not the database's.

    :ivar site: the application's line.
    :ivar what: the function that is awaited there.
    :ivar callers: the application's lines that lead there, the outermost first, that one last.
    """

    site: Site
    what: str
    callers: tuple[Site, ...]


def foreign_await(coroutine: Coroutine[Any, Any, Any], future: object) -> Foreign | None:
    """What a suspended coroutine waits for, if that is foreign and a line of the application's awaits it.

    Where no line of the application's is involved, as while a framework sends its response, there is none to change.

    :param future: what it has yielded to the loop.
    """
    callers: list[Site] = []
    what = ""
    is_database = False
    for link in _chain(coroutine):
        frame, name = link[0], link[-1]
        if frame is None or not is_app_code(frame.f_code):
            module = _module_of(frame)
            is_database = is_database or _is_of_database(module)
            what = what or ("" if frame is None or module.startswith(_OURS) else name)
        else:
            callers.append(site_of(frame))
            what, is_database = "", False
    if not callers or is_database:
        return None
    return Foreign(callers[-1], what or ("its next turn" if future is None else _future_name(future)), tuple(callers))


def _module_of(frame: FrameType | None) -> str:
    return "" if frame is None else str(frame.f_globals.get("__name__", ""))


def _is_of_database(module: str) -> bool:
    return module.partition(".")[0] in DATABASE and not module.startswith(_OURS)
