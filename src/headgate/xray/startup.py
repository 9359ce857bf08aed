"""Has this process watched: from its start, by ``headgate run``, or from a line of code on."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from typing import Final

from headgate.xray.options import WatchOptions, from_environment
from headgate.xray.watch import LIBRARIES, Watch


def attach(app: object = None, *, overdue: float | None = None) -> Watch:
    """Watch this process from now on: every pool and every app in it, which stay as they are.

    From then on a timeout of one of SQLAlchemy's own pools says in the log, as ``headgate.xray``, who holds its
    connections, and connections that are held for too long or were left behind are reported. Call it where the app is
    made. Again, or in a process that ``headgate run`` has started, it gives the watch that there is, as it is.

    :param app: any; it makes the line readable.
    :param overdue: seconds after which a connection that is still held is reported, 10 by default; 0 for never.
    :returns: what watches; its ``close()`` puts back everything that was there.
    :raises ConfigError: ``overdue`` is no time.
    """
    return watch_process(LIBRARIES, from_environment(os.environ) if overdue is None else WatchOptions(overdue))


def watch_process(libraries: Iterable[str], options: WatchOptions | None = None) -> Watch:
    """Listen to more of ``LIBRARIES``, which have been imported; the watch is one a process."""
    global _watch
    with _changing:
        if _watch is None or _watch.is_closed:
            _watch = Watch(options=from_environment(os.environ) if options is None else options)
            _watch.is_recording = False  # nobody will ask it for an observation
        watch = _watch
        try:
            for library in libraries:
                watch.open_on(library)
        except BaseException:
            watch.close()
            raise
    return watch


_changing: Final = threading.RLock()
"""Again from the same thread: to listen to a library may import it, and that is told too."""

_watch: Watch | None = None
"""The one of this process."""
