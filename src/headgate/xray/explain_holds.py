"""What is said of connections that are held: what for, how long beyond need, and what giving them back would gain."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

from headgate.ceilings import ceiling
from headgate.xray.constraints import Constraint
from headgate.xray.observation import A_THREAD, NOWHERE, RUNS, HoldSum, PoolFacts, RouteSum, Site
from headgate.xray.sentences import Sentence, place, rate, seconds, share

LONG_S: Final = 0.01
"""A request's idle hold that is worth a word though nobody waits for the connection."""

MOST_PLACES: Final = 3
NEXT: Final = {
    "threads": "the threads bind",
    "core": "the core binds",
    "loop": "the event loop binds",
    "connections": "the other connections bind",
    "server": "the server binds",
}

Idle = list[tuple[tuple[Site, str], float]]
"""What holders waited for while no statement ran, as shares of all their idle time, the largest first."""


def is_idle_long(route: RouteSum, holds: list[HoldSum]) -> bool:
    """Whether connections are mostly held for nothing, and long enough to speak of it."""
    idle_ns = sum(hold.held_ns - hold.busy_ns for hold in holds)
    return idle_ns > 0.5 * sum(hold.held_ns for hold in holds) and idle_ns / route.count > LONG_S * 1e9


def held_idle(route: RouteSum, pool: PoolFacts, holds: list[HoldSum]) -> Iterator[Sentence]:
    """For how much of the time that they are held the database works, and what the rest is."""
    held_s, busy_s = _held_and_busy(route, pool, holds)
    if not held_s:
        return
    found = _idle_by_place(holds)
    rest = f"; the rest is {_plain(found)}" if found and busy_s < 0.95 * held_s else ""
    yield Sentence(
        "hold",
        f"of the {seconds(held_s)} a connection is held, the database works {seconds(busy_s)} "
        f"({share(busy_s / held_s)}){rest}",
        {"held_s": held_s, "busy_s": busy_s},
        found[0][0][0] if found else None,
    )


def remedies(
    route: RouteSum, pool: PoolFacts, holds: list[HoldSum], limit: int, others: list[Constraint]
) -> Iterator[Sentence]:
    """The lines before which to release, each with what that gains on top of those before it."""
    held_s, busy_s = _held_and_busy(route, pool, holds)
    left_s = held_s
    following = min(others, key=lambda one: one.rate, default=None)
    session = "headgate.AsyncSession" if pool.kind.startswith("Async") else "headgate.Session"
    number = 0
    for (site, _), part in _idle_by_place(holds)[:MOST_PLACES]:
        gain_s = (held_s - busy_s) * part
        if gain_s <= 0.1 * held_s or site == NOWHERE:
            continue
        left_s = max(left_s - gain_s, busy_s)
        number += 1
        new = ceiling(limit, left_s)
        yield Sentence(
            "remedy",
            f"{'release' if number == 1 else 'also release'} before {site} → {_allowed(new, following)}. "
            f"{session} does this by itself.",
            {"rate": new, "gain": new / ceiling(limit, held_s), "left_s": left_s},
            site,
        )


def _allowed(new: float, following: Constraint | None) -> str:
    if following is None or following.rate >= new:
        return f"the ceiling becomes {rate(new)} requests/s"
    return (
        f"the connections then allow {rate(new)} requests/s, and {NEXT[following.kind]} next, at {rate(following.rate)}"
    )


def held_beyond(route: RouteSum) -> Iterator[Sentence]:
    """Connections that are held while the response is sent, and after that."""
    for hold in route.holds:
        found = _idle_by_place([hold])
        during = f", during {_plain(found)}" if found else ""
        sending_s, after_s = hold.sending_ns / hold.count / 1e9, hold.after_answer_ns / hold.count / 1e9
        if sending_s > LONG_S and hold.sending_ns > 0.1 * hold.held_ns:
            yield Sentence(
                "send",
                f"the connection acquired at {hold.site} is held for {seconds(sending_s)} while the response is being "
                f"sent{during}; read what is to be sent first, or give the connection back before",
                {"held_s": sending_s},
                hold.site,
            )
        if after_s > LONG_S and hold.after_answer_ns > 0.1 * hold.held_ns:
            yield Sentence(
                "after answer",
                f"the connection acquired at {hold.site} is held for {seconds(after_s)} after the response is "
                f"complete{during}; let background work open a session of its own",
                {"held_s": after_s},
                hold.site,
            )


def _held_and_busy(route: RouteSum, pool: PoolFacts, holds: list[HoldSum]) -> tuple[float, float]:
    """Seconds a request that holds connections holds them, and those in which statements run."""
    requests = max(1, route.holders.get(pool.name, 0))
    held_ns, busy_ns = sum(hold.held_ns for hold in holds), sum(hold.busy_ns for hold in holds)
    return held_ns / requests / 1e9, busy_ns / requests / 1e9


def _idle_by_place(holds: list[HoldSum]) -> Idle:
    idle: Counter[tuple[Site, str]] = Counter()
    for hold in holds:
        for awaited in hold.awaited:
            idle[awaited.site, awaited.what] += round((hold.held_ns - hold.busy_ns) * awaited.share)
    total = sum(hold.held_ns - hold.busy_ns for hold in holds)
    return [(where, time_ns / total) for where, time_ns in idle.most_common()] if total else []


def _plain(found: Idle) -> str:
    (site, what), part = found[0]
    if part > 0.95:
        return _wait(site, what)
    return ", ".join(f"{_wait(site, what)} ({share(part)})" for (site, what), part in found[:MOST_PLACES])


def _wait(site: Site, what: str) -> str:
    if what == A_THREAD:
        return place(site, "the wait for a worker thread")
    return place(site, f"«{site.text}»" if what == RUNS and site.text else what)
