"""Runs one trial: a service of its own, a warm-up, the load, and whoever watches meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from sqlalchemy.engine import URL

from headgate.errors import LabError
from headgate.hosting.service import Service
from headgate.lab.activity import ActivityObserver, look_once
from headgate.lab.cores import running_on, server_on
from headgate.lab.environment import service_environment
from headgate.lab.experiment import Arm, Ask, Experiment, Freeze, Load, Measurement, Trial, Value, accept_answer
from headgate.lab.meter import Meter
from headgate.lab.postgres import EmbeddedPostgres, Postgres
from headgate.lab.progress import Update
from headgate.load import driver, pacer
from headgate.load.checks import check_load
from headgate.load.driver import LoadPlan, LoadResult
from headgate.load.pacer import NS_PER_S
from headgate.load.target import Target

Show = Callable[[], AbstractContextManager[Update]]

MAX_RUNS = 3
"""How often a trial is run at most until its checks pass; after that it is shown as void."""


@dataclass(frozen=True, slots=True)
class Site:
    """Where the trials of one experiment run: settings that all services share, the server, and its database.

    :ivar embedded: the server if it is the lab's own, which may be frozen and pinned to cores.
    """

    settings: Mapping[str, Value]
    url: URL | None
    embedded: EmbeddedPostgres | None

    @property
    def server_pid(self) -> int | None:
        return self.embedded.pid if self.embedded else None


def prepare_site(prepare: Callable[[URL | None], Mapping[str, Value]], server: Postgres | None) -> Site:
    """Make an experiment's data, on ``server`` in a database of its own, which goes with the server's block."""
    url = server.url(server.create_database()) if server else None
    return Site(prepare(url), url, server if isinstance(server, EmbeddedPostgres) else None)


def make_service(experiment: Experiment, arm: Arm, site: Site, *, log: Path, port: int = 0) -> Service:
    """Return the service of an arm, not yet started."""
    configuration = {**arm.configuration, **site.settings}
    return Service(
        experiment.factory,
        configuration,
        log=log,
        port=port,
        limit_concurrency=arm.limit_concurrency,
        environment=service_environment(),
    )


def run_trial(trial: Trial, service: Service, site: Site, *, log: Path, show: Show) -> Measurement:
    """Run a trial once against its service, which is started and ended here. Raises LabError.

    :param show: opened around the load; takes how many requests are done.
    """
    arm = trial.arm
    with ExitStack() as stack:
        stack.enter_context(server_on(site.server_pid, trial.cores.server))
        with running_on(trial.cores.service):  # a process keeps the cores it was started on
            stack.enter_context(service)
        stack.enter_context(running_on(trial.cores.generator))
        holds = {path: _warm_up(arm, path, service, log) for path in dict.fromkeys(arm.warm_up)}
        watched = site.url if not trial.metered else None
        with (
            _watch(watched) as observer,
            _meter(service, site.server_pid if trial.metered else None, on=trial.metered) as meter,
            _freezing(trial.freeze, site) as freezer,
        ):
            loaded = _load(trial.load, service, show)
        service.check_running()
        connections = look_once(site.url) if trial.freeze and site.url else observer.states() if observer else None
        if trial.metered:
            service.close(gracefully=False)  # nobody waits for what an overloaded service still has to do
    return Measurement(
        trial=trial,
        samples=list(loaded.samples),
        holds=holds,
        connections=connections,
        generator_cpu=loaded.generator_cpu,
        checks=check_load(
            loaded.samples, planned=loaded.planned, issued=loaded.issued, generator_cpu=loaded.generator_cpu
        ),
        readings=meter.readings(loaded.start_ns) if meter else (),
        frozen_ns=freezer.times(loaded.start_ns) if freezer else None,
    )


def _load(load: Load, service: Service, show: Show) -> LoadResult:
    plan = LoadPlan(
        targets=tuple(_target(ask, service) for ask in load.asks),
        schedule=load.schedule,
        max_connections=load.max_connections,
        timeout_s=load.timeout_s,
    )
    with show() as update:
        result = driver.run(plan, on_progress=lambda progress: update(progress.finished))
        update(len(result.samples))
    return result


def run_until_valid(
    run_once: Callable[[], Measurement], *, on_repeat: Callable[[Measurement, int], None]
) -> Measurement:
    """Run a trial again while its checks fail, ``MAX_RUNS`` times at most; the result says how often it was.

    The checks look at the generator alone, so this favours no result.
    """
    measured, attempts = run_once(), 1
    while not measured.valid and attempts < MAX_RUNS:
        attempts += 1
        on_repeat(measured, attempts)
        measured = run_once()
    return replace(measured, attempts=attempts)


def _target(ask: Ask, service: Service) -> Target:
    return Target(ask.path, service.url + ask.path, accept=accept_answer(ask.answer))


def _warm_up(arm: Arm, path: str, service: Service, log: Path) -> float:
    """Request a path as often as the arm wants, one at a time; return the fastest answer in seconds."""
    ask = next(ask for ask in arm.load.asks if ask.path == path)
    plan = LoadPlan(
        targets=(_target(ask, service),),
        schedule=pacer.in_turn(pacer.burst(1), 1),
        timeout_s=arm.load.timeout_s,
    )
    took_ns = []
    for _ in range(arm.warm_up.count(path)):
        [sample] = driver.run(plan).samples
        if not sample.success:
            cause = sample.error or f"status {sample.status}"
            raise LabError(f"arm {arm.name}: {path} does not work before any load ({cause}); see its log {log}")
        took_ns.append(sample.latency_ns)
    return min(took_ns) / NS_PER_S


@contextmanager
def _watch(url: URL | None) -> Iterator[ActivityObserver | None]:
    if url is None:
        yield None
        return
    with ActivityObserver(url) as observer:
        yield observer


@contextmanager
def _meter(service: Service, server_pid: int | None, *, on: bool) -> Iterator[Meter | None]:
    if not on:
        yield None
        return
    with Meter(service, server_pid) as meter:
        yield meter


@contextmanager
def _freezing(freeze: Freeze | None, site: Site) -> Iterator[Freezer | None]:
    if freeze is None:
        yield None
        return
    if site.embedded is None:
        raise LabError("a server that is not the lab's own is never frozen; leave out --database")
    with Freezer(site.embedded, freeze) as freezer:
        yield freezer


class Freezer:
    """Freezes the server once during a load, in a thread of its own; it is never left frozen."""

    def __init__(self, server: EmbeddedPostgres, freeze: Freeze) -> None:
        self._server = server
        self._freeze = freeze
        self._frozen_ns = 0
        self._thawed_ns = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="headgate-lab-freezer")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def times(self, start_ns: int) -> tuple[int, int]:
        """Return when the server was frozen and let go, counted from ``start_ns`` of the monotonic clock."""
        return self._frozen_ns - start_ns, self._thawed_ns - start_ns

    def _run(self) -> None:
        if self._stop.wait(self._freeze.after_s):
            return
        with self._server.frozen():
            self._frozen_ns = time.monotonic_ns()
            self._stop.wait(self._freeze.for_s)
        self._thawed_ns = time.monotonic_ns()
