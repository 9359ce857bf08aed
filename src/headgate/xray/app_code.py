"""Which code is the application's: neither Python's own, nor an installed package's, nor ours."""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path
from types import CodeType, FrameType
from typing import Final

import greenlet

from headgate.xray.observation import NOWHERE, Site

_OTHERS: Final = (
    *(str(Path(sysconfig.get_path(name)).resolve()) for name in ("stdlib", "platstdlib", "purelib", "platlib")),
    str(Path(__file__).resolve().parents[1]),
)
_MOST_FRAMES: Final = 200
_known: dict[str, bool] = {}
"""By file name."""


def is_app_code(code: CodeType) -> bool:
    """Tell whether code is the application's."""
    name = code.co_filename
    known = _known.get(name)
    if known is None:
        known = _known[name] = _is_app_file(name)
    return known


def _is_app_file(name: str) -> bool:
    if name.startswith("<"):  # a dataclass's own methods, a template, the import system
        return False
    path = str(Path(name).resolve())
    return not path.startswith(_OTHERS) and "site-packages" not in path and "dist-packages" not in path


def site_of(frame: FrameType) -> Site:
    """The line a frame is at."""
    code = frame.f_code
    return Site(code.co_filename, frame.f_lineno, code.co_qualname)


def app_frame(frame: FrameType | None) -> FrameType | None:
    """The nearest frame of the application's, from one outwards; None if there is none."""
    known, frames = _known, _MOST_FRAMES
    while frame is not None and frames:
        # Every statement walks some twenty frames, so nothing is called for a file that is known.
        code = frame.f_code
        is_app = known.get(code.co_filename)
        if is_app or (is_app is None and is_app_code(code)):
            return frame
        frame = frame.f_back
        frames -= 1
    return None


def calling_site() -> Site:
    """The application's line that led here, across SQLAlchemy's greenlets; ``NOWHERE`` if none did."""
    found = app_frame(sys._getframe(1))
    if found is None:
        parent = greenlet.getcurrent().parent
        found = None if parent is None else app_frame(parent.gr_frame)
        if found is None:
            return NOWHERE
    line, code = found.f_lineno, found.f_code
    remembered = _sites.get((id(code), line))
    if remembered is not None:
        return remembered[1]
    if len(_sites) >= _MOST_SITES:
        _sites.clear()
    site = site_of(found)
    _sites[id(code), line] = code, site
    return site


_MOST_SITES: Final = 5_000
_sites: dict[tuple[int, int], tuple[CodeType, Site]] = {}
"""Lines that were met, with their code, so that no other gets its identity; the code's own hash reads all of it."""
