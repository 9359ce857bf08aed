"""Has this process watched, from a line of code on."""

from __future__ import annotations

import threading
from typing import Final

from headgate.xray.watch import Watch


def attach(app: object = None) -> Watch:
    """Watch this process from now on; again, it gives the watch that there is.

    :param app: any; it makes the line readable.
    """
    global _watch
    with _changing:
        if _watch is None:
            _watch = Watch()
            _watch.is_recording = False  # nobody will ask it for an observation
            _watch.open()
        return _watch


_changing: Final = threading.Lock()

_watch: Watch | None = None
"""The one of this process."""
