"""Exit codes and the one line that goes with them."""

from __future__ import annotations

FAILURE = 1
USAGE = 2
INTERRUPTED = 130
"""128 + SIGINT, as shells report it."""
TERMINATED = 143
"""128 + SIGTERM."""


def one_line(error: BaseException) -> str:
    """Return an error's message, which may have several lines, as one."""
    return " ".join(str(error).split())
