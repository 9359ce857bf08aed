"""Who holds a pool's connections, in words for a log: the fact, the state, where, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from headgate.xray.observation import Site

MOST_GROUPS: Final = 10
"""Named in one report, the greatest first."""

MOST_REMEDIES: Final = 3

LONGEST_ROUTE: Final = 100
"""Characters: where no route was found it is the path, which the client has chosen."""

Doing = Literal["waits", "runs", "executes", "asks", "left"]


@dataclass(frozen=True, slots=True)
class Holder:
    """Somebody who holds a connection.

    :ivar route: '' outside of requests.
    :ivar acquired: the line that acquired it; ``now``: the line its holder is at.
    :ivar doing: its holder ``waits`` for ``what``, ``runs`` code of its own, ``executes`` a statement, ``asks`` for one
        more connection, or has ``left``: ``what``, its request or its task, is over.
    """

    route: str
    acquired: Site
    now: Site
    doing: Doing
    what: str
    age_ns: int


@dataclass(frozen=True, slots=True)
class PoolState:
    """A pool at one instant.

    :ivar database: what it leads to, in words.
    :ivar limit: None where it sets none.
    """

    database: str
    in_use: int
    limit: int | None
    idle: int
    pending: int
    oldest_wait_ns: int


class Group(NamedTuple):
    """Holders who differ in nothing but their age."""

    like: Holder
    size: int
    youngest_ns: int
    oldest_ns: int


def group_holders(holders: Iterable[Holder]) -> list[Group]:
    """The greatest group first; of equal ones the one that has held longest."""
    alike: dict[tuple[object, ...], list[Holder]] = {}
    for one in holders:
        alike.setdefault((one.route, one.acquired, one.now, one.doing, one.what), []).append(one)
    groups = [
        Group(some[0], len(some), min(one.age_ns for one in some), max(one.age_ns for one in some))
        for some in alike.values()
    ]
    return sorted(groups, key=lambda group: (-group.size, -group.oldest_ns))


def describe_timeout(
    state: PoolState, holders: Sequence[Holder], *, timeout_s: float, timeouts: int = 1, since_ns: int = 0
) -> str:
    """No connection came free in time.

    :param holders: all that are known of; the pool may have lent more.
    :param timeouts: how often that happened, this time included, in the latest ``since_ns``.
    """
    fact = f"no connection came free within {show_time(round(timeout_s * 1e9))}"
    if timeouts > 1:
        fact += f", {timeouts} times in {show_time(since_ns)}"
    limit = "" if state.limit is None else f" ({state.limit} connections in all)"
    larger = (
        f"raise pool_size or max_overflow{limit} only if the holders need their connections all that time "
        "and the database has room for more"
    )
    unknown = max(0, state.in_use - len(holders))
    return _compose(state, fact, group_holders(holders), unknown=unknown, more=(larger,))


def describe_overdue(state: PoolState, holders: Sequence[Holder], *, overdue_s: float) -> str:
    """Connections that are held for too long."""
    verb = "has" if len(holders) == 1 else "have"
    fact = f"{_connections(len(holders))} {verb} been held for more than {show_time(round(overdue_s * 1e9))}"
    return _compose(state, fact, group_holders(holders))


def describe_left(state: PoolState, holders: Sequence[Holder]) -> str:
    """Connections whose holders are gone without having given them back."""
    verb = "was" if len(holders) == 1 else "were"
    fact = f"{_connections(len(holders))} {verb} not given back by whoever acquired {_them(len(holders))}"
    return _compose(state, fact, group_holders(holders))


def describe_returned(database: str, holders: Sequence[Holder]) -> str:
    """Connections that were reported, and have come back since."""
    verb = "has" if len(holders) == 1 else "have"
    lines = [f"{database}: {_connections(len(holders))} reported above {verb} come back."]
    groups = group_holders(holders)
    lines += [f"  {_count(group)}, after {_ages(group)}" for group in groups[:MOST_GROUPS]]
    return "\n".join((*lines, *_omitted(groups)))


def show_time(time_ns: int) -> str:
    """``480 ms``, ``12.3 s``, ``5 min``."""
    if time_ns < 1_000_000_000:
        return f"{time_ns / 1e6:.0f} ms"
    if time_ns < 120_000_000_000:
        return f"{time_ns / 1e9:.1f} s".replace(".0 s", " s")
    return f"{time_ns / 60e9:.0f} min"


def show_route(route: str) -> str:
    """A route as it may stand in a log: in one line, and not endless."""
    shown = "".join(character if character.isprintable() else "?" for character in route[: LONGEST_ROUTE + 1])
    return shown if len(shown) <= LONGEST_ROUTE else f"{shown[:LONGEST_ROUTE]}..."


def _compose(state: PoolState, fact: str, groups: list[Group], *, unknown: int = 0, more: tuple[str, ...] = ()) -> str:
    remedies = (*_remedies(groups), *more)
    lines = [f"{state.database}: {fact}.", f"State: {_state(state)}.", "Held by:"]
    lines += [f"  {_count(group)}, {_place(group.like)}, for {_ages(group)}" for group in groups[:MOST_GROUPS]]
    lines += _omitted(groups)
    if unknown:
        lines.append(f"  {unknown} more, unknown: acquired before the X-ray watched, or being opened now")
    numbered = " ".join(f"{number}. {remedy}." for number, remedy in enumerate(remedies, 1))
    return "\n".join((*lines, f"Remedies: {numbered}"))


def _state(state: PoolState) -> str:
    limit = "" if state.limit is None else f" of {state.limit}"
    wait = f", oldest wait {show_time(state.oldest_wait_ns)}" if state.pending else ""
    return f"in use {state.in_use}{limit}, idle {state.idle}, pending {state.pending}{wait}"


def _count(group: Group) -> str:
    return f"{group.size} by {_who(group.like)}: acquired at {_line(group.like.acquired)}"


def _place(holder: Holder) -> str:
    if holder.doing == "left":
        return f"its {holder.what} is over"
    doing = {
        "waits": f"awaiting {holder.what}",
        "runs": "running its own code",
        "executes": "executing a statement",
        "asks": "asking for one more connection",
    }[holder.doing]
    return f"now at {_line(holder.now)} {doing}"


def _ages(group: Group) -> str:
    youngest, oldest = show_time(group.youngest_ns), show_time(group.oldest_ns)
    return oldest if youngest == oldest else f"{youngest} to {oldest}"


def _omitted(groups: list[Group]) -> list[str]:
    rest = groups[MOST_GROUPS:]
    return [f"  {sum(group.size for group in rest)} more, at {len(rest)} other places"] if rest else []


def _remedies(groups: list[Group]) -> Iterator[str]:
    """One for each kind of thing that the holders do, that of the greatest group first."""
    seen: dict[Doing, Holder] = {}
    for group in groups:
        seen.setdefault(group.like.doing, group.like)
    for holder in list(seen.values())[:MOST_REMEDIES]:
        yield _remedy(holder)


def _remedy(holder: Holder) -> str:
    now = _line(holder.now)
    ends = f"let {_who(holder)} commit, or close its session,"
    return {
        "waits": f"{ends} before it awaits at {now}; Headgate's sessions give the connection back by themselves "
        "after reads",
        "runs": f"{ends} before its code at {now}",
        "executes": f"make the statement at {now} faster, or bound it by a statement timeout",
        "asks": f"let {now} use the session that holds a connection already: whoever asks for a second one while it "
        "keeps the first can wait for itself",
        "left": f"close what {_line(holder.acquired)} opens, by with, async with or a dependency that closes it",
    }[holder.doing]


def _who(holder: Holder) -> str:
    return holder.route or "code outside of requests"


def _line(site: Site) -> str:
    return str(site) if site.file else "an unknown line"


def _connections(count: int) -> str:
    return "1 connection" if count == 1 else f"{count} connections"


def _them(count: int) -> str:
    return "it" if count == 1 else "them"
