"""SIGTERM ends a command as Ctrl-C does: every block ends what it started."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from headgate.cli.exits import TERMINATED


class Terminated(SystemExit):
    """SIGTERM; a SystemExit, as tasks of an event loop let only that and KeyboardInterrupt through."""


@contextmanager
def ending_on_sigterm() -> Iterator[None]:
    """Raise Terminated in the main thread when SIGTERM comes."""

    def end(number: int, frame: FrameType | None) -> NoReturn:
        raise Terminated(TERMINATED)

    previous = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
