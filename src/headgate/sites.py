"""Where in the application's code something happened, as ``file:line``."""

from __future__ import annotations

import sys
from types import CodeType, FrameType

import greenlet

_MACHINERY = ("headgate.", "sqlalchemy.", "sqlmodel.", "contextlib", "asyncio.", "greenlet")
_MAX_FRAMES = 60
_is_machinery: dict[str, bool] = {}
"""By file name: every pinned transaction walks past some thirty frames of SQLAlchemy."""


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
        code = frame.f_code
        known = _is_machinery.get(code.co_filename)
        if known is False or (known is None and not _learn(code, frame)):
            return f"{code.co_filename}:{frame.f_lineno}"
        frame = frame.f_back
    return ""


def _learn(code: CodeType, frame: FrameType) -> bool:
    known = frame.f_globals.get("__name__", "").startswith(_MACHINERY)
    if not code.co_filename.startswith("<"):  # "<string>" is many modules
        _is_machinery[code.co_filename] = known
    return bool(known)
