"""Where in the application's code something happened, as ``file:line``."""

from __future__ import annotations

import sys
from types import FrameType

import greenlet

_MACHINERY = ("headgate.", "sqlalchemy.", "sqlmodel.", "contextlib", "asyncio.", "greenlet")
_MAX_FRAMES = 60


def calling_site() -> str:
    """``file:line`` of the application's code that led here, across SQLAlchemy's greenlets; '' if unknown."""
    frame: FrameType | None = sys._getframe(1)
    crossed = False
    for _ in range(_MAX_FRAMES):
        if frame is None:
            parent = None if crossed else greenlet.getcurrent().parent
            frame, crossed = (None if parent is None else parent.gr_frame), True
            if frame is None:
                return ""
        if not frame.f_globals.get("__name__", "").startswith(_MACHINERY):
            return f"{frame.f_code.co_filename}:{frame.f_lineno}"
        frame = frame.f_back
    return ""
