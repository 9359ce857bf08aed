"""The phases of a request, by their names.

Plain numbers, because they are noted several times a request. Of several phases at once the first in this order
counts, so that none is charged for what another explains: a statement during which the event loop stood still is no
slow database, a leased connection is waited for within its statement, and it is not held idle while one runs.
"""

from __future__ import annotations

from typing import Final

STALLED: Final = 0
"""The event loop was busy with somebody else's code."""
CONNECT: Final = 1
"""A physical connection is opened, or asked whether it lives."""
GATE_WAIT: Final = 2
"""It waits for a connection."""
DATABASE: Final = 3
"""A statement runs."""
THREAD_WAIT: Final = 4
"""It waits for a worker thread."""
SERIALIZE: Final = 5
"""FastAPI makes the response's body of what the endpoint returned."""
SEND: Final = 6
"""The response is on its way, a connection held meanwhile included."""
HELD_IDLE: Final = 7
"""It holds a connection on which no statement runs."""
UNATTRIBUTED: Final = 8
"""Whatever else: the endpoint's own code, and what it waits for without a connection."""

PHASES: Final = (
    "stalled",
    "connect",
    "gate_wait",
    "database",
    "thread_wait",
    "serialize",
    "send",
    "held_idle",
    "unattributed",
)
"""As they are written everywhere, by their numbers."""
