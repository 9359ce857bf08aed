"""What is said of the whole service: stalls of its event loop, its server's refusals, leaks, and its workers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from headgate.xray.constraints import ON_LOOP
from headgate.xray.observation import NOWHERE, Observation, PoolFacts, ProcessFacts, Stall
from headgate.xray.sentences import Sentence, many, place, seconds

FEW: Final = 0.01
"""Of the time: less than this in stalls that are nobody's fault is not worth a word."""

LONG_NS: Final = 200_000_000
"""One such stall that is."""

USUAL_MAX_CONNECTIONS: Final = 100
"""PostgreSQL's, if nobody sets another."""

SYNC_DRIVERS: Final = ("sqlalchemy.", "psycopg.", "psycopg2.", "pymysql.", "MySQLdb.", "sqlite3.", "oracledb.")


def about_service(observation: Observation) -> Iterator[Sentence]:
    """Everything that does not belong to one route."""
    told = {route.route for route in observation.routes if route.count}
    for stall in sorted(observation.stalls, key=lambda one: -one.total_ns):
        if stall.verdict in ON_LOOP and stall.route in told:
            continue
        if stall.verdict in ON_LOOP or _is_much(stall, observation.process):
            yield told_of_stall(stall, "the event loop stood still")
    for pool in observation.pools:
        yield from _about_pool(pool, observation.process)
    for leak in observation.leaks:
        verb = "its request is" if leak.count == 1 else "their requests are"
        yield Sentence(
            "leak",
            f"never given back: {many(leak.count, 'connection')} acquired at {leak.site}; {verb} over",
            {"count": float(leak.count)},
            leak.site,
        )
    for note in observation.notes:
        yield Sentence("note", note)


def stalls_of(observation: Observation, route: str) -> list[Stall]:
    """Those that a route's own code caused, the longest in all first."""
    own = [stall for stall in observation.stalls if stall.verdict in ON_LOOP and stall.route == route]
    return sorted(own, key=lambda one: -one.total_ns)


def _is_much(stall: Stall, process: ProcessFacts) -> bool:
    return stall.longest_ns > LONG_NS or stall.total_ns > FEW * process.wall_ns


def told_of_stall(stall: Stall, what_happened: str) -> Sentence:
    """How often and how long it was, why, what to do about it, and who waited."""
    figures = {
        "count": float(stall.count),
        "total_s": stall.total_ns / 1e9,
        "longest_s": stall.longest_ns / 1e9,
        "victims": float(stall.victims),
    }
    victims = f"; {many(stall.victims, 'other request')} waited" if stall.victims else ""
    text = f"{what_happened} {_how_long(stall)}{_because(stall)}{victims}{_cure(stall)}"
    return Sentence("stall", text, figures, None if stall.site == NOWHERE else stall.site)


def _how_long(stall: Stall) -> str:
    if stall.count == 1:
        return f"once, for {seconds(stall.total_ns / 1e9)}"
    often = "twice" if stall.count == 2 else f"{stall.count:,} times"
    return f"{often}, {seconds(stall.total_ns / 1e9)} in all and {seconds(stall.longest_ns / 1e9)} at most"


def _because(stall: Stall) -> str:
    where = place(stall.site, stall.what)
    route = f" ({stall.route})" if stall.route else ""
    return {
        "code": f", because of {where}{route}" if stall.what or stall.site != NOWHERE else ", computing",
        "collection": ": Python collected garbage, which is not the doing of a line of the app",
        "import": f": {place(stall.site, f'the import of {stall.what}')}",
        "thread": f", waiting for another thread in {where}{route}",
        "contended": ": the other threads of the process kept the interpreter busy",
        "descheduled": ": the process was not allowed to run, the machine was busy with something else",
        "suspended": ": the process was suspended, or given no processor",
    }[stall.verdict]


def _cure(stall: Stall) -> str:
    if stall.verdict == "import":
        return "; import it when the service starts"
    if stall.verdict == "collection":
        return "; gc.freeze() once the app is loaded leaves it less to walk through"
    if stall.verdict != "code" or stall.site == NOWHERE:
        return ""
    if not stall.what and "sleep(" in stall.site.text:
        return "; await asyncio.sleep(…) instead"
    if stall.what.startswith(SYNC_DRIVERS):
        return "; use an AsyncSession, or a plain def endpoint, which runs in a worker thread"
    if stall.what.startswith("async "):
        return "; it works through many rows at once: fetch fewer, or columns instead of objects, or stream them"
    return "; run it in a worker thread: await run_in_threadpool(…), or a plain def endpoint"


def _about_pool(pool: PoolFacts, process: ProcessFacts) -> Iterator[Sentence]:
    if pool.refusals:
        yield Sentence(
            "server",
            f"the server refused {many(pool.refusals, 'connection')} when {pool.most} were open: {pool.refused}",
            {"refusals": float(pool.refusals), "most": float(pool.most)},
        )
    if process.workers > 1 and pool.limit:
        wanted, allowed = process.workers * pool.limit, process.max_connections or USUAL_MAX_CONNECTIONS
        if wanted > allowed:
            whose = "the server's" if process.max_connections else "PostgreSQL's usual"
            yield Sentence(
                "server",
                f"{process.workers} workers × {pool.limit} connections = {wanted}, and {whose} max_connections is "
                f"{allowed}: some will be refused; {allowed // process.workers} a worker are allowed at most",
                {"wanted": float(wanted), "allowed": float(allowed)},
            )
