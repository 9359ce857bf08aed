"""One X-ray of an app: serves it as it is in a process of its own, offers it a load, and takes down what it did."""

from __future__ import annotations

import os
import platform
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import unquote

import sqlalchemy

from headgate.errors import HostingError, XrayError
from headgate.hosting.service import Loop, Service, last_line
from headgate.load import driver, pacer
from headgate.load.checks import check_load
from headgate.load.driver import LoadPlan, LoadResult, OnProgress
from headgate.load.sample import Sample
from headgate.load.summary import summarize
from headgate.load.target import Target, build_request
from headgate.version import __version__
from headgate.xray.asks import MOST_ASKS, Ask
from headgate.xray.observation import Observation, Offer, decode
from headgate.xray.openapi import choose_from_schema

ANSWER_SECONDS: Final = 5.0
"""For an order: a thread of the service's own answers it, whatever its event loop does."""

MOST_WORDS: Final = 12
"""Lines of a failed app's last words."""

_UNUSED_URL: Final = "http://127.0.0.1:9"

Say = Callable[[str], None]
"""Takes each line that people should read meanwhile."""

Showing = Callable[[str], AbstractContextManager[OnProgress | None]]
"""Shows how far a load has come, under a title."""


@dataclass(frozen=True, slots=True)
class XrayOptions:
    """Every option of an X-ray with its one default.

    :ivar rate: requests per second, for each path.
    :ivar warm_up_s: the same load before it, which is forgotten: a pool fills, and what is imported late is imported.
    :ivar max_connections: of the client; None: as many as it takes.
    :ivar loop: uvicorn's option of that name.
    :ivar from_schema: request also what the app's own schema gives, with ``headers``.
    :ivar pool_size: connections of each stock pool instead of what the app asks for.
    :ivar against: hosts of databases beyond this machine that the load may meet.
    :ivar directories: where the app is imported from.
    :ivar log: keeps what the app writes; None: nothing does.
    """

    rate: Fraction = Fraction(100)
    duration_s: Fraction = Fraction(5)
    warm_up_s: Fraction = Fraction(1)
    timeout_s: float = 30.0
    max_connections: int | None = None
    loop: Loop = "auto"
    is_factory: bool = False
    from_schema: bool = False
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    pool_size: int | None = None
    against: tuple[str, ...] = ()
    directories: tuple[str, ...] = (".",)
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ), repr=False)
    log: Path | None = None


DEFAULTS = XrayOptions()


def check_asks(asks: Sequence[Ask], options: XrayOptions) -> None:
    """Say what is wrong with a load before anything is started for it.

    :raises HeadgateError: with the value and the remedy.
    """
    if options.warm_up_s < 0:
        raise XrayError(f"a warm-up of {float(options.warm_up_s):g} s cannot be; give 0 or more seconds")
    if len(asks) > MOST_ASKS:
        raise XrayError(f"{len(asks)} different requests are more than the {MOST_ASKS} of one X-ray; choose fewer")
    plan = _plan(_UNUSED_URL, asks or (Ask("GET", "/"),), options, options.duration_s)
    for target in plan.targets:
        build_request(target)


@contextmanager
def observed(
    app: str, asks: Sequence[Ask], options: XrayOptions, *, say: Say, showing: Showing
) -> Iterator[Observation]:
    """X-ray an app: yields what was observed, and ends the app after the block.

    :param app: ``module:attribute``.
    :raises XrayError: the app cannot be imported, does not start or dies (its last words are said), or a database
        of its is barred.
    :raises LoadError: the load cannot be offered.
    """
    with tempfile.TemporaryDirectory(prefix="headgate-xray-") as scratch:
        log = options.log or Path(scratch) / "service.log"
        probe = Probe(app, options, log)
        is_well = False
        try:
            with _telling_its_end(app, log, say):
                say(f"starting {app}; its own start-up code runs")
                probe.start()
                observation = _observe(app, probe, asks, options, say, showing)
            yield observation
            is_well = True
        finally:
            with suppress(HostingError):  # it had to be killed
                probe.close(gracefully=is_well)


class Probe:
    """An app that is served as it is and watched, for one load after the other."""

    def __init__(self, app: str, options: XrayOptions, log: Path) -> None:
        self._service = _service(app, options, log)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Import and serve the app.

        :raises HostingError: it cannot be imported or does not start.
        """
        self._service.start()

    def close(self, *, gracefully: bool = True) -> None:
        """End it."""
        self._service.close(gracefully=gracefully)

    @property
    def pid(self) -> int:
        """The process it runs in."""
        return self._service.pid

    def ask(self, what: str) -> dict[str, Any]:
        """Have an order answered, whatever the app does.

        :raises XrayError: it went wrong, or a database of the app's is barred.
        """
        answer = self._service.ask({"do": what}, timeout=ANSWER_SECONDS)
        if problem := answer["refused"] or answer.get("error"):
            raise XrayError(problem)
        return answer

    def offer(
        self, asks: Sequence[Ask], options: XrayOptions, duration_s: Fraction, on_progress: OnProgress | None = None
    ) -> LoadResult:
        """Offer a load.

        :raises LoadError: it cannot be offered.
        """
        return driver.run(_plan(self._service.url, asks, options, duration_s), on_progress=on_progress)

    def observe(self, asks: Sequence[Ask], options: XrayOptions, on_progress: OnProgress | None = None) -> Observation:
        """Offer a load and take down what the app did meanwhile."""
        self.ask("begin")
        result = self.offer(asks, options, options.duration_s, on_progress)
        observation = decode(self.ask("observe")["observation"])
        return replace(
            observation,
            offers=_offers(asks, observation.paths, options, result),
            notes=(*observation.notes, *_doubts(result, options)),
        )


def _observe(
    app: str, probe: Probe, asks: Sequence[Ask], options: XrayOptions, say: Say, showing: Showing
) -> Observation:
    known = _say_databases(probe.ask("databases"), (), say)
    asks = (*asks, *(_from_schema(probe, options, say) if options.from_schema else ()))
    check_asks(asks, options)
    if not asks:
        raise XrayError("nothing to request; name a path by --get")
    say(f"load: {_load_in_words(asks, options)}")
    if options.warm_up_s:
        with showing("warming up") as on_progress:
            probe.offer(asks, options, options.warm_up_s, on_progress)
    _say_databases(probe.ask("databases"), known, say)
    started_at = datetime.now(UTC)
    with showing("under load") as on_progress:
        observation = probe.observe(asks, options, on_progress)
    return replace(observation, about=_about(app, asks, options, started_at))


def _say_databases(answer: Mapping[str, Any], known: Sequence[str], say: Say) -> list[str]:
    for database in answer["databases"]:
        if database not in known:
            say(f"its database: {database}")
    return list(answer["databases"])


def _load_in_words(asks: Sequence[Ask], options: XrayOptions) -> str:
    each = f"{float(options.rate):g} requests/s for {float(options.duration_s):g} s"
    total = float(options.rate * len(asks))
    return (
        f"{each} to {asks[0].label}" if len(asks) == 1 else f"{each} to each of {len(asks)} paths, {total:g}/s in all"
    )


def _about(app: str, asks: Sequence[Ask], options: XrayOptions, started_at: datetime) -> dict[str, str]:
    size = {} if options.pool_size is None else {"connections of each pool": str(options.pool_size)}
    return {
        "app": app,
        "at": f"{started_at:%Y-%m-%d %H:%M:%S} UTC",
        "load": _load_in_words(asks, options),
        **size,
        "headgate": __version__,
        "python": platform.python_version(),
        "sqlalchemy": sqlalchemy.__version__,
        "directory": str(Path.cwd()),
    }


# The service.


def _service(app: str, options: XrayOptions, log: Path) -> Service:
    configuration = {
        "app": app,
        "is_factory": options.is_factory,
        "directories": [str(Path(one).resolve()) for one in options.directories],
        "against": list(options.against),
        "pool_size": options.pool_size,
    }
    return Service(
        "headgate.xray.hosted:make_app",
        configuration,
        log=log,
        environment=options.environment,
        obey="headgate.xray.hosted:obey",
        loop=options.loop,
    )


@contextmanager
def _telling_its_end(app: str, log: Path, say: Say) -> Iterator[None]:
    """Of an app that does not start, or dies, tell its last words: they are gone with its log."""
    try:
        yield
    except HostingError as error:
        how = what_ended(str(error))
        if not how:
            raise
        words = log.read_text(errors="replace")
        if refusal := refusal_in(words):
            raise XrayError(refusal) from None
        for line in words.strip().splitlines()[-MOST_WORDS:]:
            say(f"  {line}")
        raise XrayError(f"{app} {how}: {last_line(words)}") from None


def refusal_in(words: str) -> str:
    """Why a database was barred, if that ended an app."""
    mark = f"{XrayError.__module__}.{XrayError.__qualname__}: "
    return next((line.partition(mark)[2].strip() for line in words.splitlines() if mark in line), "")


def what_ended(message: str) -> str:
    """How it ended, of a hosting error's message; '' if it did not, as when there is no port for it."""
    ends = {
        "died at startup": "does not start",
        "did not answer": "does not answer, something in it holds Python's interpreter lock; its last words",
        "died": "has died",
    }
    return next((words for sign, words in ends.items() if sign in message), "")


# The load.


def _from_schema(probe: Probe, options: XrayOptions, say: Say) -> tuple[Ask, ...]:
    schema = probe.ask("openapi")["openapi"]
    if schema is None:
        raise XrayError("the app has no OpenAPI schema to take requests from; name its paths by --get")
    choice = choose_from_schema(schema, options.headers)
    for line in choice.left_out_lines():
        say(line)
    if not choice.asks:
        raise XrayError("the app's schema gives no request that can be sent; name a path by --get")
    return choice.asks


def _plan(url: str, asks: Sequence[Ask], options: XrayOptions, duration_s: Fraction) -> LoadPlan:
    targets = tuple(Target(ask.label, url + ask.path, ask.method, ask.headers, ask.body) for ask in asks)
    streams = [pacer.constant(ask.rate or options.rate, duration_s) for ask in asks]
    return LoadPlan(targets, pacer.together(streams), options.max_connections, options.timeout_s, must_reach=True)


def _offers(
    asks: Sequence[Ask], paths: Mapping[str, str], options: XrayOptions, result: LoadResult
) -> tuple[Offer, ...]:
    """What was asked of each route and answered, by whichever of its paths."""
    asked: defaultdict[str, list[Ask]] = defaultdict(list)
    for ask in asks:
        asked[route_of(ask.label, paths)].append(ask)
    samples: defaultdict[str, list[Sample]] = defaultdict(list)
    for sample in result.samples:
        samples[route_of(sample.target, paths)].append(sample)
    return tuple(_summed(route, asked[route], of_it, options) for route, of_it in samples.items())


def _doubts(result: LoadResult, options: XrayOptions) -> list[str]:
    """Where the generator itself was the limit, and not the app."""
    samples = list(result.samples)
    checks = check_load(samples, planned=result.planned, issued=result.issued, generator_cpu=result.generator_cpu)
    bounded = options.max_connections is not None  # then requests wait in it by intention, and the explanation says so
    return [
        f"the client itself was at its limit, so its latencies are in doubt: {one.name}, {one.detail}"
        for one in checks
        if not one.ok and not (bounded and one.name == "lateness")
    ]


def _summed(route: str, asks: list[Ask], samples: list[Sample], options: XrayOptions) -> Offer:
    result = summarize(route, samples)
    more = len({ask.label for ask in asks}) - 1
    return Offer(
        label=asks[0].label + (f" and {more} more" if more else ""),
        route=route,
        sent=result.requests,
        answered=result.successes,
        failed=dict(result.errors),
        rate=float(sum(ask.rate or options.rate for ask in asks)),
        throughput=result.throughput,
        latency_ns=round(result.latency_success.p50 * 1e9),
        connections=options.max_connections,
    )


def route_of(label: str, paths: Mapping[str, str]) -> str:
    """The route that a request's path led to, which the app knows decoded; the path itself if it led nowhere."""
    method, _, path = label.partition(" ")
    return paths.get(f"{method} {unquote(path)}", label)
