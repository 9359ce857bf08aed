"""Where a service still pins a connection although it does not write, said once for each place."""

from __future__ import annotations

import logging
import threading
from typing import Final

from headgate.config import OnPin
from headgate.errors import LeaseError

log = logging.getLogger("headgate.pins")

MAX_PLACES: Final = 1_000
"""Beyond that nobody reads them, and a service that generates SQL could go on forever."""

PINNED: Final = ("the end of its transaction", "commit before anything slow")
TAINTED: Final = (
    "its session commits or rolls back (a Core connection: until it is closed)",
    "commit before anything slow (a Core connection: close it)",
)
"""Until when a connection is kept, and what to do."""


class PinWatch:
    """What happens when a connection is pinned by something else than a write.

    :param on_pin: ``"warn"`` logs each place once, ``"error"`` raises there, None says nothing.
    """

    def __init__(self, name: str, on_pin: OnPin | None) -> None:
        self.is_watching = on_pin is not None
        self._name = name
        self._raises = on_pin == "error"
        self._seen: set[tuple[str, str]] = set()
        self._lock = threading.Lock()

    def saw(self, site: str, reason: str, *, is_tainted: bool) -> None:
        """A connection is about to be pinned at ``site`` (file:line).

        :param is_tainted: no commit ends it, only the end of its checkout.
        :raises LeaseError: with ``on_pin="error"``.
        """
        until, go_back = TAINTED if is_tainted else PINNED
        message = (
            f"database {self._name!r}: a connection is kept until {until}, because {reason}.\n"
            f"Where: {site or 'not in the application'}.\n"
            f"Remedies: 1. {go_back}, so that it goes back. 2. if a function or type of your own only "
            "reads, list it in read_functions=. 3. if it must be so, say it with session.pin()."
        )
        if self._raises:
            raise LeaseError(message)
        with self._lock:
            if (site, reason) in self._seen or len(self._seen) >= MAX_PLACES:
                return
            self._seen.add((site, reason))
        log.warning("%s", message)
