"""Runs experiments: one server, then for each arm a service of its own, a warm-up, the load, the checks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
from rich.console import Console
from sqlalchemy.engine import URL
from sqlalchemy.exc import OperationalError

from headgate.errors import LabError
from headgate.lab.activity import ActivityObserver
from headgate.lab.experiment import Arm, Ask, Experiment, Plan, Value, accept_answer, conclude, predict
from headgate.lab.external_postgres import ExternalPostgres
from headgate.lab.machine import describe_machine, usable_cores
from headgate.lab.postgres import EmbeddedPostgres, Postgres
from headgate.lab.progress import LabProgress
from headgate.lab.report.reading import is_void
from headgate.lab.results import (
    SCHEMA_VERSION,
    ArmResult,
    ExperimentResult,
    Machine,
    Mode,
    Run,
)
from headgate.lab.service import Service
from headgate.load import driver, pacer
from headgate.load.checks import check_load
from headgate.load.driver import LoadPlan, LoadResult
from headgate.load.pacer import NS_PER_S
from headgate.load.summary import lateness, summarize_paths
from headgate.load.target import Target
from headgate.version import __version__

LOGS = "logs"
"""Folder in the output directory for what the services of a run print."""

MAX_RUNS = 3
"""How often an arm is run at most until its checks pass; after that it is shown as void."""

BUSY_LOAD = 0.5
"""A load average per core, at the start, above which a run says that the machine was not idle."""


@dataclass(frozen=True, slots=True)
class LabOptions:
    """What to run.

    :ivar output: the directory of results, report and logs.
    :ivar database: URL of a server that is already there; None for the embedded one.
    """

    experiments: tuple[Experiment, ...]
    mode: Mode
    output: Path
    database: str | None = None


@dataclass(frozen=True, slots=True)
class Site:
    """Where the arms of one experiment run: settings that all services share, and the database to watch."""

    settings: Mapping[str, Value]
    url: URL | None


def run_lab(options: LabOptions, console: Console, *, clock: Callable[[], int] = time.monotonic_ns) -> Run:
    """Run the experiments and return everything that was measured; nothing is written but the services' logs.

    Progress goes to ``console``. However it ends, no service and no server stays behind. Raises LabError.
    """
    started_ns, started_at = clock(), datetime.now(UTC)
    with open_server(options.experiments, options.database) as server:
        machine = describe_machine(server.version if server else "")
        with LabProgress(console) as progress:
            results = tuple(_Runner(experiment, options, server, progress).run() for experiment in options.experiments)
        notes = tuple(_notes(options, machine, server))
    return Run(
        schema_version=SCHEMA_VERSION,
        headgate_version=__version__,
        mode=options.mode,
        started_at=started_at.isoformat(timespec="seconds"),
        duration=round((clock() - started_ns) / NS_PER_S, 3),
        machine=machine,
        experiments=results,
        complete=True,
        notes=notes,
    )


def _notes(options: LabOptions, machine: Machine, server: Postgres | None) -> Iterator[str]:
    if machine.load_average > BUSY_LOAD * machine.cores:
        yield (
            f"The machine was not idle at the start: load average {machine.load_average:.2f} on {machine.cores} cores."
        )
    if options.database is not None and server is None:
        yield "The server of --database was not used: these experiments need no PostgreSQL."
    if isinstance(server, ExternalPostgres) and server.leftovers:
        yield f"Unused databases of earlier runs are left on the server: {', '.join(server.leftovers)}."


@contextmanager
def open_server(experiments: Sequence[Experiment], database: str | None) -> Iterator[Postgres | None]:
    """Yield the server that the experiments need, None if they need none. Raises LabError."""
    if not any(experiment.needs_postgres for experiment in experiments):
        yield None
        return
    with ExternalPostgres(database) if database else EmbeddedPostgres() as server:
        try:
            yield server
        except (psycopg.OperationalError, OperationalError) as error:
            cause = error.orig if isinstance(error, OperationalError) else error
            raise LabError(f"PostgreSQL does not answer any more: {cause}; run the lab again") from None


def prepare_site(experiment: Experiment, plan: Plan, server: Postgres | None) -> Site:
    """Make the experiment's data, on ``server`` in a database of its own, which goes with the server's block."""
    url = None
    if experiment.needs_postgres:
        assert server is not None
        url = server.url(server.create_database())
    return Site(experiment.prepare(plan, url), url)


def make_service(experiment: Experiment, arm: Arm, site: Site, *, log: Path, port: int = 0) -> Service:
    """Return the service of an arm, not yet started."""
    return Service(experiment.factory, {**arm.configuration, **site.settings}, log=log, port=port)


@contextmanager
def serve_arm(options: LabOptions, arm: Arm, port: int) -> Iterator[Service]:
    """Serve an arm of the one experiment in ``options`` as it is served under load. Raises LabError."""
    [experiment] = options.experiments
    with open_server(options.experiments, options.database) as server, TemporaryDirectory() as logs:
        site = prepare_site(experiment, experiment.plan(options.mode, usable_cores()), server)
        with make_service(experiment, arm, site, log=Path(logs, f"{arm.name}.log"), port=port) as service:
            yield service


class _Runner:
    """Runs the arms of one experiment, one after the other, each in a service of its own."""

    def __init__(
        self, experiment: Experiment, options: LabOptions, server: Postgres | None, progress: LabProgress
    ) -> None:
        self._experiment = experiment
        self._logs = options.output / LOGS
        self._progress = progress
        self._server = server
        self._plan = experiment.plan(options.mode, usable_cores())

    def run(self) -> ExperimentResult:
        site = prepare_site(self._experiment, self._plan, self._server)
        results = [
            run_until_valid(partial(self._run_once, arm, site), on_repeat=partial(self._say_again, arm))
            for arm in self._plan.arms
        ]
        return conclude(self._experiment, self._plan, results)

    def _say_again(self, arm: Arm, result: ArmResult, run: int) -> None:
        reasons = "; ".join(f"{check.name} {check.detail}" for check in result.checks if not check.ok)
        self._progress.note(f"{self._experiment.name}: {arm.title}: not valid ({reasons}), run {run} of {MAX_RUNS}")

    def _run_once(self, arm: Arm, site: Site) -> ArmResult:
        log = self._logs / f"{self._experiment.name}-{arm.name}.log"
        with make_service(self._experiment, arm, site, log=log) as service:
            holds = {path: _warm_up(arm, path, service, log) for path in dict.fromkeys(arm.warm_up)}
            with _watch(site.url) as observer:
                loaded = self._load(arm, service)
            service.check_running()
        samples = list(loaded.samples)
        return ArmResult(
            name=arm.name,
            title=arm.title,
            stack=arm.stack,
            setup=arm.setup,
            parameters=arm.parameters,
            paths=summarize_paths(samples),
            published=arm.published,
            prediction=predict(arm, holds),
            connections=observer.states() if observer else None,
            lateness=lateness(samples),
            generator_cpu=loaded.generator_cpu,
            checks=check_load(
                samples, planned=loaded.planned, issued=loaded.issued, generator_cpu=loaded.generator_cpu
            ),
        )

    def _load(self, arm: Arm, service: Service) -> LoadResult:
        title = f"Headgate: {arm.title}" if arm.stack == "headgate" else arm.title
        with self._progress.arm(self._experiment.name, title, total=len(arm.load.schedule)) as update:
            result = driver.run(
                LoadPlan(
                    targets=tuple(_target(ask, service) for ask in arm.load.asks),
                    schedule=arm.load.schedule,
                    max_connections=arm.load.max_connections,
                    timeout_s=arm.load.timeout_s,
                ),
                on_progress=lambda progress: update(progress.finished),
            )
            update(len(result.samples))
        return result


def run_until_valid(run_once: Callable[[], ArmResult], *, on_repeat: Callable[[ArmResult, int], None]) -> ArmResult:
    """Run an arm again while its checks fail, ``MAX_RUNS`` times at most; the result's parameters say how often.

    The checks look at the generator alone, so this favours no result.
    """
    result, runs = run_once(), 1
    while is_void(result) and runs < MAX_RUNS:
        runs += 1
        on_repeat(result, runs)
        result = run_once()
    return replace(result, parameters={**result.parameters, "runs": runs})


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
