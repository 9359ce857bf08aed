"""Looking at a socket without reading from it."""

from __future__ import annotations

import select


def has_input(descriptor: int, timeout_ms: int = 0) -> bool:
    """Tell whether a socket can be read without waiting, which its end is, too."""
    if not hasattr(select, "poll"):  # Windows
        return bool(select.select([descriptor], [], [], timeout_ms / 1000)[0])
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(timeout_ms))
