"""One X-ray of an app: serves it as it is in a process of its own, offers it a load, and takes down what it did."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Self

from headgate.hosting.service import Loop, Service
from headgate.load import driver, pacer
from headgate.load.driver import LoadPlan, LoadResult, OnProgress
from headgate.load.summary import PathResult, summarize_paths
from headgate.load.target import Target
from headgate.xray.observation import Observation, Offer, decode

WARM_UP_S = 1.0
"""Long enough for a pool to fill and for Python to have imported what the routes import late."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One kind of request that is sent to the app.

    :ivar rate: requests per second; None for what the options say.
    """

    method: str
    path: str
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    body: bytes = field(default=b"", repr=False)
    rate: Fraction | None = None

    @property
    def label(self) -> str:
        """Without its query, which may hold a secret."""
        return f"{self.method} {self.path.partition('?')[0]}"


@dataclass(frozen=True, slots=True)
class XrayOptions:
    """Every option of an X-ray with its one default.

    :ivar rate: requests per second, for each path.
    :ivar against: hosts of databases beyond this machine that the load may meet.
    :ivar directories: where the app is imported from.
    :ivar loop: uvicorn's option of that name.
    """

    rate: Fraction = Fraction(100)
    duration_s: Fraction = Fraction(5)
    timeout_s: float = 30.0
    max_connections: int | None = None
    is_factory: bool = False
    against: tuple[str, ...] = ()
    directories: tuple[str, ...] = (".",)
    loop: Loop = "auto"
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ), repr=False)


DEFAULTS = XrayOptions()


def xray(
    app: str,
    asks: tuple[Ask, ...],
    options: XrayOptions,
    *,
    say: Callable[[str], None],
    on_progress: OnProgress | None = None,
) -> Observation:
    """X-ray an app.

    :param app: ``module:attribute``.
    :param say: called with each line that people should read meanwhile.
    :raises HostingError: the app cannot be imported or does not start; its last words are in the message.
    :raises LoadError: the load cannot be offered.
    """
    with tempfile.TemporaryDirectory(prefix="headgate-xray-") as scratch:
        log = Path(scratch) / "service.log"
        say(f"starting {app}; its own start-up code runs")
        with Probe(app, options, log) as probe:
            for database in probe.databases():
                say(f"its database: {database}")
            probe.observe(asks, replace(options, duration_s=_warm_up_s(options)))
            return probe.observe(asks, options, on_progress=on_progress)


class Probe:
    """An app that is served as it is and watched, for one load after the other.

    :raises HostingError: on entering: the app cannot be imported or does not start.
    """

    def __init__(self, app: str, options: XrayOptions, log: Path) -> None:
        self._service = _service(app, options, log)

    def __enter__(self) -> Self:
        self._service.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._service.close()

    @property
    def pid(self) -> int:
        """The process id of the service."""
        return self._service.pid

    def databases(self) -> list[str]:
        """The databases that the app has made engines for."""
        return list(self._service.ask({"do": "begin"})["databases"])

    def observe(
        self, asks: tuple[Ask, ...], options: XrayOptions, *, on_progress: OnProgress | None = None
    ) -> Observation:
        """Offer a load and take down what the app did meanwhile.

        :raises LoadError: the load cannot be offered.
        """
        self._service.ask({"do": "begin"})
        result = _offer(self._service.url, asks, options, on_progress)
        observation = decode(self._service.ask({"do": "observe"})["observation"])
        return replace(observation, offers=tuple(_offers(asks, observation, options, result)))


def _service(app: str, options: XrayOptions, log: Path) -> Service:
    configuration = {
        "app": app,
        "is_factory": options.is_factory,
        "directories": [str(Path(one).resolve()) for one in options.directories],
        "against": list(options.against),
    }
    return Service(
        "headgate.xray.hosted:make_app",
        configuration,
        log=log,
        environment=options.environment,
        obey="headgate.xray.hosted:obey",
        loop=options.loop,
    )


def _warm_up_s(options: XrayOptions) -> Fraction:
    return min(options.duration_s, Fraction(WARM_UP_S))


def _offer(url: str, asks: tuple[Ask, ...], options: XrayOptions, on_progress: OnProgress | None) -> LoadResult:
    targets = tuple(Target(ask.label, url + ask.path, ask.method, ask.headers, ask.body) for ask in asks)
    streams = [pacer.constant(ask.rate or options.rate, options.duration_s) for ask in asks]
    plan = LoadPlan(targets, pacer.together(streams), options.max_connections, options.timeout_s, must_reach=True)
    return driver.run(plan, on_progress=on_progress)


def _offers(asks: tuple[Ask, ...], observation: Observation, options: XrayOptions, result: LoadResult) -> list[Offer]:
    by_label: dict[str, PathResult] = {one.path: one for one in summarize_paths(result.samples)}
    rates = {ask.label: ask.rate or options.rate for ask in asks}
    return [
        Offer(
            label=label,
            route=observation.paths.get(label, label),
            sent=one.requests,
            answered=one.successes,
            failed=dict(one.errors),
            rate=float(rates[label]),
            throughput=one.throughput,
            latency_ns=round(one.latency_success.p50 * 1e9),
            connections=options.max_connections,
        )
        for label, one in by_label.items()
    ]
