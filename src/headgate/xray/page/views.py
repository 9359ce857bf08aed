"""What the page shows, worked out before any markup: every number's wording is decided here. Pure."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from headgate.names import PHASES
from headgate.xray.explain import Explanation, RouteReport, Sentence, rate, seconds
from headgate.xray.observation import HoldSum, Observation, Offer, PoolFacts, RouteSum, Site, Stall, StatementSum
from headgate.xray.output import Latency, latency_of
from headgate.xray.page.timeline import RequestView, Segment, mean_bar, share_of, show_requests
from headgate.xray.sentences import Kind
from headgate.xray.sweep import RouteSweep

Item = TypeVar("Item")
Row = TypeVar("Row")

MOST_ROWS: Final = 30
"""Of a table; the rest is counted."""

MEANINGS: Final = {
    "stalled": "the event loop was busy with somebody else’s code",
    "connect": "a connection is opened, or asked whether it lives",
    "gate_wait": "it waits for a connection",
    "database": "a statement runs",
    "thread_wait": "it waits for a worker thread",
    "serialize": "the response’s body is made of what the endpoint returned",
    "send": "the response is on its way",
    "held_idle": "it holds a connection on which no statement runs",
    "unattributed": "whatever else: the endpoint’s own code, and what it awaits without a connection",
}

TAGS: Final[dict[Kind, str]] = {
    "connections": "limit",
    "threads": "limit",
    "core": "limit",
    "loop": "limit",
    "client": "limit",
    "server": "limit",
    "not saturated": "no limit",
    "twice": "twice held",
    "after answer": "held late",
}
"""Where the kind of a sentence is not the word to show."""


@dataclass(frozen=True, slots=True)
class SentenceView:
    """A sentence, and the line of code it speaks of."""

    tag: str
    kind: str
    text: str
    code: str


@dataclass(frozen=True, slots=True)
class PhaseRow:
    """One phase of an average request."""

    phase: str
    meaning: str
    mean: str
    share: str


@dataclass(frozen=True, slots=True)
class SiteView:
    """A line of code: where, and what is written there."""

    place: str
    code: str


@dataclass(frozen=True, slots=True)
class HoldRow:
    """Connections that were acquired at one line; times are means."""

    site: SiteView
    pool: str
    count: str
    held: str
    busy: str
    idle_share: str
    after_answer: str
    awaited: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class StatementRow:
    """A statement's shape at one line."""

    shape: str
    site: SiteView
    cause: str
    count: str
    each: str
    most: str
    mean: str
    share: str


@dataclass(frozen=True, slots=True)
class Table(Generic[Row]):
    """Rows, and how many are left out."""

    rows: tuple[Row, ...]
    left_out: int


@dataclass(frozen=True, slots=True)
class RouteView:
    """One route."""

    index: int
    name: str
    headline: str
    sentences: tuple[SentenceView, ...]
    count: str
    unfinished: int
    statuses: tuple[tuple[str, str], ...]
    latency: tuple[tuple[str, str], ...]
    latency_count: str
    mean: str
    bar: tuple[Segment, ...]
    phases: tuple[PhaseRow, ...]
    requests: tuple[RequestView, ...]
    holds: Table[HoldRow]
    statements: Table[StatementRow]
    threads: tuple[str, str, str] | None


@dataclass(frozen=True, slots=True)
class Page:
    """The whole page; rows of the plain tables are texts."""

    title: str
    about: tuple[tuple[str, str], ...]
    routes: tuple[RouteView, ...]
    service: tuple[SentenceView, ...]
    sweeps: tuple[SweepView, ...]
    client: tuple[tuple[str, ...], ...]
    stalls: tuple[tuple[SiteView, tuple[str, ...]], ...]
    pools: tuple[tuple[str, ...], ...]
    facts: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class SweepView:
    """One route over the sizes of a pool."""

    route: str
    offered: str
    text: str
    rows: tuple[tuple[str, ...], ...]
    bars: tuple[tuple[str, str], ...]
    """Measured and predicted, in per cent of the greatest."""


def build_page(observation: Observation, explanation: Explanation, sweep: tuple[RouteSweep, ...]) -> Page:
    """The page of an observation."""
    words = _Words(observation.about.get("directory", ""))
    sums = {route.route: route for route in observation.routes}
    return Page(
        title=observation.about.get("app", "a recorded X-ray"),
        about=tuple((name, value) for name, value in observation.about.items() if name not in ("app", "directory")),
        routes=tuple(
            _route(index, report, sums.get(report.route), words) for index, report in enumerate(explanation.routes)
        ),
        service=tuple(words.sentence(one) for one in explanation.service),
        sweeps=tuple(map(_sweep, sweep)),
        client=tuple(map(_offer, observation.offers)),
        stalls=tuple(_stall(one, words) for one in sorted(observation.stalls, key=lambda one: -one.total_ns)),
        pools=tuple(map(_pool, observation.pools)),
        facts=_facts(observation),
    )


class _Words:
    """Texts with paths as they are seen from the directory that the service was started in."""

    def __init__(self, directory: str) -> None:
        self._directory = directory + os.sep if directory else ""

    def text(self, text: str) -> str:
        return text.replace(self._directory, "") if self._directory else text

    def site(self, site: Site) -> SiteView:
        return SiteView(self.text(str(site)) if site.file else "not seen", site.text)

    def sentence(self, sentence: Sentence) -> SentenceView:
        code = "" if sentence.site is None else sentence.site.text
        tag = TAGS.get(sentence.kind, sentence.kind)
        return SentenceView(tag, sentence.kind.replace(" ", "-"), self.text(sentence.text), code)


def _route(index: int, report: RouteReport, route: RouteSum | None, words: _Words) -> RouteView:
    found = route or RouteSum(report.route, 0, (0,) * len(PHASES), {}, (), 0, 0, 0)
    count = max(1, found.count)
    latency = latency_of(found)
    total_ns = sum(found.times_ns)
    return RouteView(
        index=index,
        name=report.route,
        headline=report.headline,
        sentences=tuple(words.sentence(one) for one in report.sentences),
        count=f"{found.count:,}",
        unfinished=found.unfinished,
        statuses=tuple((_status(status), f"{number:,}") for status, number in found.statuses.items()),
        latency=_latencies(latency),
        latency_count=f"{latency.count:,}" if latency else "0",
        mean=seconds(total_ns / count / 1e9),
        bar=mean_bar(found.times_ns, count),
        phases=tuple(
            PhaseRow(phase, MEANINGS[phase], seconds(time_ns / count / 1e9), share_of(time_ns, total_ns))
            for phase, time_ns in zip(PHASES, found.times_ns, strict=True)
            if time_ns
        ),
        requests=show_requests(found),
        holds=_table(sorted(found.holds, key=lambda one: -one.held_ns), lambda one: _hold(one, words)),
        statements=_statements(found, words),
        threads=_threads(found),
    )


def _status(status: str) -> str:
    return "without an answer" if status == "0" else f"of status {status}"


def _latencies(latency: Latency | None) -> tuple[tuple[str, str], ...]:
    if latency is None:
        return ()
    return tuple((name, seconds(getattr(latency, name))) for name in ("p50", "p99", "max"))


def _table(items: Sequence[Item], row: Callable[[Item], Row]) -> Table[Row]:
    return Table(tuple(map(row, items[:MOST_ROWS])), max(0, len(items) - MOST_ROWS))


def _hold(hold: HoldSum, words: _Words) -> HoldRow:
    return HoldRow(
        site=words.site(hold.site),
        pool=hold.pool,
        count=f"{hold.count:,}",
        held=seconds(hold.held_ns / hold.count / 1e9),
        busy=seconds(hold.busy_ns / hold.count / 1e9),
        idle_share=share_of(max(0, hold.held_ns - hold.busy_ns), hold.held_ns),
        after_answer=seconds(hold.after_answer_ns / hold.count / 1e9) if hold.after_answer_ns else "",
        awaited=tuple(
            (f"{one.what} at {words.site(one.site).place}" if one.site.file else one.what, share_of(one.share, 1.0))
            for one in hold.awaited[:5]
        ),
    )


def _statements(route: RouteSum, words: _Words) -> Table[StatementRow]:
    total_ns = sum(one.time_ns for one in route.statements)

    def row(one: StatementSum) -> StatementRow:
        return StatementRow(
            shape=one.text,
            site=words.site(one.site),
            cause=one.cause,
            count=f"{one.count:,}",
            each=f"{one.count / max(1, one.requests):.1f}".removesuffix(".0"),
            most=f"{one.most:,}",
            mean=seconds(one.time_ns / max(1, one.count) / 1e9),
            share=share_of(one.time_ns, total_ns),
        )

    return _table(sorted(route.statements, key=lambda one: -one.time_ns), row)


def _threads(route: RouteSum) -> tuple[str, str, str] | None:
    if not route.thread_runs:
        return None
    wait, run = (one / route.thread_runs / 1e9 for one in (route.thread_wait_ns, route.thread_run_ns))
    return f"{route.thread_runs:,}", seconds(wait), seconds(run)


def _offer(offer: Offer) -> tuple[str, ...]:
    failed = ", ".join(f"{count:,} {word}" for word, count in offer.failed.items()) or "none"
    return (
        offer.label,
        f"{rate(offer.rate)}/s",
        f"{offer.sent:,}",
        f"{offer.answered:,}",
        failed,
        f"{rate(offer.throughput)}/s",
        seconds(offer.latency_ns / 1e9) if offer.answered else "–",
        "as many as it took" if offer.connections is None else f"{offer.connections:,}",
    )


def _stall(stall: Stall, words: _Words) -> tuple[SiteView, tuple[str, ...]]:
    return words.site(stall.site), (
        stall.verdict,
        stall.what,
        stall.route,
        f"{stall.count:,}",
        seconds(stall.total_ns / 1e9),
        seconds(stall.longest_ns / 1e9),
        f"{stall.victims:,}",
    )


def _pool(pool: PoolFacts) -> tuple[str, ...]:
    limit = "none" if pool.limit is None else f"{pool.limit:,}"
    return (pool.name, pool.kind, limit, f"{pool.opened:,}", f"{pool.timeouts:,}", pool.refused)


def _facts(observation: Observation) -> tuple[tuple[str, str], ...]:
    process = observation.process
    return (
        ("watched for", seconds(process.wall_ns / 1e9)),
        ("CPU of the process", f"{share_of(process.cpu_ns, process.wall_ns)} of a core"),
        ("CPU of the event loop", f"{share_of(process.loop_cpu_ns, process.wall_ns)} of a core"),
        ("cores of the machine", f"{process.cores:,}"),
        ("worker threads at most", f"{process.threads:,}" if process.threads else "not asked for"),
    )


def _sweep(sweep: RouteSweep) -> SweepView:
    greatest = max((max(row.predicted, row.measured) for row in sweep.rows), default=0.0) or 1.0
    return SweepView(
        route=sweep.route,
        offered=f"{rate(sweep.offered)}/s",
        text=sweep.text,
        rows=tuple(
            (
                f"{row.connections:,}",
                f"{rate(row.predicted)}/s",
                f"{rate(row.measured)}/s",
                seconds(row.latency_s) if row.answered else "–",
                f"{row.answered:,}",
                f"{row.used:.0%}".replace("%", " %"),
            )
            for row in sweep.rows
        ),
        bars=tuple(
            (f"{100 * row.measured / greatest:.2f}%", f"{100 * row.predicted / greatest:.2f}%") for row in sweep.rows
        ),
    )
