"""Little's law: which constraint binds a service, and what throughput it allows."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from headgate.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Ceiling:
    """A constraint in words, e.g. ``15 connections ÷ 2 s``, and the requests per second it allows."""

    constraint: str
    throughput: float


def ceiling(limit: float, hold_s: float) -> float:
    """Return the most requests per second that ``limit`` places serve if each is held for ``hold_s`` seconds.

    Little's law, L = λ W, solved for λ: J. D. C. Little, Operations Research 9 (3), 1961. Infinite for a hold
    of 0. Raises ConfigError for a negative argument.
    """
    if limit < 0 or hold_s < 0:
        raise ConfigError(f"limit={limit}, hold_s={hold_s} cannot work: use 0 or more")
    return limit / hold_s if hold_s else math.inf


def places(limit: int, kind: str, hold_s: float) -> Ceiling:
    """Return the ceiling of ``limit`` places of a kind (``connections``, ``threads``), held ``hold_s`` seconds."""
    return Ceiling(f"{limit} {kind} ÷ {hold_s:.3g} s", ceiling(limit, hold_s))


def offered(requests: int, duration_s: float, hold_s: float) -> Ceiling:
    """Return what can be answered of a load at all.

    The last of ``requests`` is sent ``duration_s`` seconds after the first, and answered ``hold_s`` seconds later.
    """
    return Ceiling(
        f"offered: {requests} requests ÷ ({duration_s:.3g} s + {hold_s:.3g} s)",
        ceiling(requests, duration_s + hold_s),
    )


def binding_constraint(ceilings: Iterable[Ceiling]) -> Ceiling:
    """Return the smallest ceiling, of equal ones the first. Raises ConfigError if there is none."""
    smallest = min(ceilings, key=lambda candidate: candidate.throughput, default=None)
    if smallest is None:
        raise ConfigError("no ceilings are given: name at least the offered rate")
    return smallest
