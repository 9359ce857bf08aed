"""``connection.info`` of a virtual connection: the checkout's own notes, over those about the physical connection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

OURS = "headgate."
"""What keys in a physical connection's dictionary begin with that are no business of the application's."""


class CheckoutInfo(dict[Any, Any]):
    """A dictionary that outlives the leases of one checkout; what they brought with them goes with them."""

    __slots__ = ("_brought",)

    def __init__(self) -> None:
        super().__init__()
        self._brought: dict[Any, Any] = {}

    def follow(self, info: Mapping[Any, Any]) -> None:
        """Take over what, for example, a ``connect`` listener has noted about the connection leased now.

        What the checkout has noted itself, or changed, stays.
        """
        for key, value in self._brought.items():
            if key in self and self[key] is value:
                del self[key]
        self._brought = {key: value for key, value in info.items() if key not in self and not _is_ours(key)}
        self.update(self._brought)


def _is_ours(key: Any) -> bool:
    return isinstance(key, str) and key.startswith(OURS)
