"""Attributes of other packages that are wrapped while the X-ray watches, and put back afterwards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Seam:
    """One attribute, wrapped."""

    def __init__(self, owner: Any, name: str, wrap: Callable[[Any], Any]) -> None:
        self._owner = owner
        self._name = name
        self._original = vars(owner)[name]
        self._wrapped = wrap(self._original)
        setattr(owner, name, self._wrapped)

    def undo(self) -> None:
        """Put back what was there, unless somebody has put something else there since."""
        if vars(self._owner).get(self._name) is self._wrapped:
            setattr(self._owner, self._name, self._original)
