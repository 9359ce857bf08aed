"""What can be chosen about watching a process, in code and in its environment."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from headgate.errors import ConfigError

OVERDUE: Final = "HEADGATE_XRAY_OVERDUE"
"""Environment variable: ``overdue_s``, for every process that inherits it."""


@dataclass(frozen=True, slots=True)
class WatchOptions:
    """Every option of a watch with its one default.

    :ivar overdue_s: seconds after which a connection that is still held is reported; 0 for never.
    """

    overdue_s: float = 10.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.overdue_s) and self.overdue_s >= 0):
            raise ConfigError(f"overdue={self.overdue_s!r} is no time; use seconds, or 0 to report none")


DEFAULTS: Final = WatchOptions()


def to_environment(options: WatchOptions) -> dict[str, str]:
    """The variables that say the same."""
    return {OVERDUE: f"{options.overdue_s:g}"}


def from_environment(environment: Mapping[str, str]) -> WatchOptions:
    """What the variables say.

    :raises ConfigError: one says nothing sensible.
    """
    text = environment.get(OVERDUE)
    if not text:
        return DEFAULTS
    try:
        return WatchOptions(float(text))
    except ValueError:  # of float, or ours
        raise ConfigError(f"{OVERDUE}={text!r} is no time; use seconds, or 0 to report none") from None
