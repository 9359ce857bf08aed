"""Runs experiments: one server, then every trial that each experiment's course asks for."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
from rich.console import Console
from sqlalchemy.exc import OperationalError

from headgate.errors import LabError
from headgate.hosting.service import Service
from headgate.lab.experiment import Arm, Course, Experiment, Measurement, Outcome, Plan, Trial, conclude
from headgate.lab.external_postgres import ExternalPostgres
from headgate.lab.machine import describe_machine, usable_cores
from headgate.lab.postgres import EmbeddedPostgres, Postgres
from headgate.lab.progress import LabProgress
from headgate.lab.results import SCHEMA_VERSION, ExperimentResult, Machine, Mode, Run
from headgate.lab.trial import MAX_RUNS, Site, make_service, prepare_site, run_trial, run_until_valid
from headgate.load.pacer import NS_PER_S
from headgate.version import __version__

LOGS = "logs"
"""Folder in the output directory for what the services of a run print."""

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


@contextmanager
def serve_arm(options: LabOptions, arm: Arm, port: int) -> Iterator[Service]:
    """Serve an arm of the one experiment in ``options`` as it is served under load. Raises LabError."""
    [experiment] = options.experiments
    with open_server(options.experiments, options.database) as server, TemporaryDirectory() as logs:
        site = _prepare(experiment, experiment.plan(options.mode, usable_cores()), server)
        with make_service(experiment, arm, site, log=Path(logs, f"{arm.name}.log"), port=port) as service:
            yield service


def _prepare(experiment: Experiment, plan: Plan, server: Postgres | None) -> Site:
    return prepare_site(partial(experiment.prepare, plan), server if experiment.needs_postgres else None)


class _Runner:
    """Follows the course of one experiment, one trial after the other, each in a service of its own."""

    def __init__(
        self, experiment: Experiment, options: LabOptions, server: Postgres | None, progress: LabProgress
    ) -> None:
        self._experiment = experiment
        self._logs = options.output / LOGS
        self._progress = progress
        self._server = server
        self._plan = experiment.plan(options.mode, usable_cores())

    def run(self) -> ExperimentResult:
        site = _prepare(self._experiment, self._plan, self._server)
        course = self._experiment.course(self._plan, site.embedded is not None)
        return conclude(self._experiment, self._plan, follow(course, partial(self._run_trial, site)))

    def _run_trial(self, site: Site, trial: Trial) -> Measurement:
        run_once = partial(self._run_once, trial, site)
        return run_once() if trial.probe else run_until_valid(run_once, on_repeat=self._say_again)

    def _say_again(self, measured: Measurement, run: int) -> None:
        reasons = "; ".join(f"{check.name} {check.detail}" for check in measured.checks if not check.ok)
        title = _trial_title(measured.trial)
        self._progress.note(f"{self._experiment.name}: {title}: not valid ({reasons}), run {run} of {MAX_RUNS}")

    def _run_once(self, trial: Trial, site: Site) -> Measurement:
        name = "-".join(filter(None, (self._experiment.name, trial.arm.name, trial.label.replace(" ", "-"))))
        log = self._logs / f"{name}.log"
        service = make_service(self._experiment, trial.arm, site, log=log)
        show = partial(self._progress.arm, self._experiment.name, _trial_title(trial), total=len(trial.load.schedule))
        return run_trial(trial, service, site, log=log, show=show)


def follow(course: Course, run_trial: Callable[[Trial], Measurement]) -> Outcome:
    """Run every trial a course asks for and return what it makes of them."""
    try:
        trial = next(course)
        while True:
            trial = course.send(run_trial(trial))
    except StopIteration as end:
        outcome: Outcome = end.value
        return outcome
    finally:
        course.close()


def _trial_title(trial: Trial) -> str:
    owner = "Headgate: " if trial.arm.stack == "headgate" else ""
    return f"{owner}{trial.arm.title}" + (f", {trial.label}" if trial.label else "")
