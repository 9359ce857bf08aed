"""What is requested of an app: one kind of request, and a choice of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Final

MOST_ASKS: Final = 200
"""Each is sent at the whole rate."""

MOST_NAMED: Final = 8


@dataclass(frozen=True, slots=True)
class Ask:
    """One kind of request that is sent to the app.

    :ivar path: with its query, percent-encoded.
    :ivar rate: requests per second; None for what the options say.
    """

    method: str
    path: str = field(repr=False)
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    body: bytes = field(default=b"", repr=False)
    rate: Fraction | None = None

    @property
    def label(self) -> str:
        """Without its query, which may hold a secret."""
        return f"{self.method} {self.path.partition('?')[0]}"


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A request that is not sent, and why not."""

    what: str
    why: str


@dataclass(frozen=True, slots=True)
class Choice:
    """What a schema or a recording gives to request."""

    asks: tuple[Ask, ...]
    left_out: tuple[LeftOut, ...] = ()

    def left_out_lines(self) -> list[str]:
        """What is left out, together where it is for the same reason."""
        by_why: dict[str, list[str]] = {}
        for one in self.left_out:
            by_why.setdefault(one.why, []).append(one.what)
        return [f"left out: {_some(whats)}: {why}" for why, whats in by_why.items()]


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:MOST_NAMED])
    return f"{shown} and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else shown
