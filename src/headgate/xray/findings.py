"""What fails a test, in sentences: the line, what happened there, the cure. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Final, Literal, get_args

from headgate.xray.allowing import plain_name
from headgate.xray.explain import seconds
from headgate.xray.foreign import Foreign
from headgate.xray.observation import Site

Kind = Literal["stall", "hold", "leak", "repeat"]

KINDS: Final[tuple[Kind, ...]] = get_args(Kind)

MOST_TOLD: Final = 20
"""Findings of one test."""

MOST_OF_STATEMENT: Final = 200
"""Characters."""

_QUERY: Final = re.compile(r"(?:\s|\(|--[^\n]*\n|/\*.*?\*/)*(?:select|with|values|table)\b", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that fails a test.

    :ivar site: the line to look at.
    :ivar fact: what happened there; ``cure``: what to do about it.
    :ivar during: the request, as ``GET /items/{id}``; '' for the test's own code.
    """

    kind: Kind
    site: Site
    fact: str
    cure: str
    during: str = ""


def find_stall(site: Site, what: str, lasted_ns: int) -> Finding:
    """Code kept the event loop."""
    return Finding(
        "stall",
        site,
        f"The event loop stood still for {seconds(lasted_ns / 1e9)} at least: {what or 'this code'} ran on it.",
        "await what does the same asynchronously, or run it in a thread: await asyncio.to_thread(…).",
    )


def find_hold(acquired: Site, awaited: Foreign, during: str) -> Finding:
    """A connection was held across a foreign await."""
    caller = _caller(acquired, awaited)
    function = f"{PurePath(caller.file).stem}:{plain_name(caller)}"
    at = f" acquired at {acquired}" if acquired.file else ""
    through = "" if caller is awaited.site else f", through {caller} in {plain_name(caller)},"
    return Finding(
        "hold",
        awaited.site,
        f"The connection{at} is held while {awaited.what} is awaited{through} and nobody else can use it.",
        "end the transaction before this line (commit, rollback, or close the session), or await first and open the "
        "session afterwards; headgate.AsyncSession gives the connection back by itself after it has read. "
        f"If it has to be so: @headgate.xray.hold_ok, or headgate_xray_allow = {function}",
        during,
    )


def _caller(acquired: Site, awaited: Foreign) -> Site:
    """Which of the lines that lead to a foreign await is to be changed: that of the function that has acquired."""
    own = (caller for caller in reversed(awaited.callers) if caller[:1] + caller[2:] == acquired[:1] + acquired[2:])
    return next(own, awaited.site)


def find_second(first: Site, second: Site, during: str) -> Finding:
    """A connection was acquired while another one of the same pool was held."""
    return Finding(
        "hold",
        second,
        f"A second connection is acquired while the one acquired at {first} is held: when each of them holds its first "
        "and waits for its second, nobody goes on.",
        "use the session that is open, or close it first.",
        during,
    )


def find_leak(acquired: Site, *, was_collected: bool) -> Finding:
    """A connection was not given back."""
    fact = (
        "was never given back: the garbage collector found it"
        if was_collected
        else "is still checked out, although the test and its fixtures have ended"
    )
    return Finding(
        "leak",
        acquired,
        f"The connection acquired here {fact}.",
        "close the session or connection in every case: async with (or with) around it, or a dependency with yield.",
    )


def find_repeat(shape: str, site: Site, times: int, cause: str, during: str) -> Finding:
    """One line sent queries of one shape again and again."""
    shape = shape if len(shape) <= MOST_OF_STATEMENT else f"{shape[:MOST_OF_STATEMENT]}…"
    loading = f", to load {cause} one by one" if cause else ""
    cure = (
        f"load it with the rest: select(…).options(selectinload({cause}))."
        if cause
        else "ask once for all of them: WHERE … IN (…), a join, or selectinload(…) for what is loaded lazily."
    )
    return Finding("repeat", site, f"The same query is sent {times} times{loading}: {shape}", cure, during)


def is_query(text: str) -> bool:
    """Whether a statement asks for rows. Writes that are alike are another matter: the ORM sends some one by one."""
    return _QUERY.match(text) is not None


def format_findings(findings: Sequence[Finding]) -> str:
    """As a failing test tells them."""
    count = f"{len(findings)} finding{'s' if len(findings) > 1 else ''}"
    blocks = ["\n".join(_lines(finding)) for finding in findings[:MOST_TOLD]]
    if len(findings) > MOST_TOLD:
        blocks.append(f"… and {len(findings) - MOST_TOLD} more")
    return "\n\n".join([f"headgate X-ray: {count}", *blocks])


def _lines(finding: Finding) -> Iterator[str]:
    site = finding.site
    where = f"{site} in {plain_name(site)}" if site.file else "no line of the application's"
    yield f"{finding.kind}: {where}{f' during {finding.during}' if finding.during else ''}"
    if site.text:
        yield f"    {site.text}"
    yield f"  {finding.fact}"
    yield f"  Cure: {finding.cure}"
