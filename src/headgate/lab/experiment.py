"""What an experiment is: a question, trials of its arms, and an answer worked out from the results.

A course asks for one trial after the other and is sent what each measured, so a later load may depend on earlier
results. Most experiments try each arm of their plan once, under the arm's own load.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy.engine import URL

from headgate.ceilings import Ceiling, binding_constraint
from headgate.lab.report.reading import has_void
from headgate.lab.results import (
    ArmResult,
    Check,
    ConnectionStates,
    ExperimentResult,
    Finding,
    Mode,
    Prediction,
    Published,
    Stack,
)
from headgate.load.pacer import Schedule
from headgate.load.sample import Sample
from headgate.load.summary import lateness, summarize_paths
from headgate.load.target import Accept

Value = str | int | float | bool | None
Parameters = dict[str, Value]


@dataclass(frozen=True, slots=True)
class Ask:
    """A path to request, and the JSON value that is the correct answer."""

    path: str
    answer: object


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked of an arm: the schedule's target numbers index ``asks``.

    :ivar max_connections: of the client; None for as many as it takes.
    """

    asks: tuple[Ask, ...]
    schedule: Schedule
    timeout_s: float
    max_connections: int | None = None


Holds = Mapping[str, float]
"""Seconds the fastest warm-up request of each path took, alone on its service."""


@dataclass(frozen=True, slots=True)
class Arm:
    """One variant: how its service is set up, what it is asked, what is to be expected.

    :ivar setup: in words, for the report.
    :ivar configuration: the service's settings, but for those ``Experiment.prepare`` returns.
    :ivar parameters: what distinguishes the arm, for the report.
    :ivar warm_up: paths requested one after the other before the load, so that no arm pays for its first
        connection, its dialect's first questions or its routes' first use.
    :ivar ceilings: every constraint that may bind, from what the warm-up took; empty if none is known.
    :ivar limit_concurrency: uvicorn's option of that name.
    """

    name: str
    title: str
    stack: Stack
    setup: str
    configuration: Mapping[str, Value]
    parameters: Parameters
    load: Load
    warm_up: tuple[str, ...]
    ceilings: Callable[[Holds], Sequence[Ceiling]]
    published: Published | None = None
    limit_concurrency: int | None = None


@dataclass(frozen=True, slots=True)
class Cores:
    """Which cores each part of a trial may run on; empty for any."""

    generator: tuple[int, ...] = ()
    service: tuple[int, ...] = ()
    server: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Freeze:
    """Seconds of a load after which the database server is frozen, and for how long."""

    after_s: float
    for_s: float


@dataclass(frozen=True, slots=True)
class Trial:
    """An arm once under one load, in a service of its own.

    :ivar label: tells the trials of an arm apart, in progress and logs; empty if there is but one.
    :ivar probe: only what its warm-up takes is wanted, so it is not repeated if its checks fail.
    :ivar metered: measure processors and memory instead of watching the connections, and end the service at once.
    """

    arm: Arm
    load: Load
    label: str = ""
    probe: bool = False
    metered: bool = False
    cores: Cores = field(default_factory=Cores)
    freeze: Freeze | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """What the service and the server had used by then: CPU seconds; the service's resident memory.

    :ivar at_ns: after the start of the load.
    """

    at_ns: int
    service_cpu_s: float
    server_cpu_s: float
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class Measurement:
    """What a trial left behind; every time counts from the start of its load.

    :ivar connections: as watched during the load; after a freeze, what they did when all was answered.
    :ivar readings: in order, the first from before the load; empty unless the trial is metered.
    :ivar frozen_ns: when the server was frozen and when it was let go, where it was.
    :ivar attempts: how often the trial was run until its checks passed.
    """

    trial: Trial
    samples: Sequence[Sample] = field(repr=False)
    holds: Holds
    connections: ConnectionStates | None
    generator_cpu: float
    checks: tuple[Check, ...]
    readings: tuple[Reading, ...] = field(default=(), repr=False)
    frozen_ns: tuple[int, int] | None = None
    attempts: int = 1

    @property
    def valid(self) -> bool:
        """Whether all checks passed."""
        return all(check.ok for check in self.checks)


@dataclass(frozen=True, slots=True)
class Plan:
    """An experiment in one mode; ``arms`` in the order they are run."""

    scaled: bool
    parameters: Parameters
    arms: tuple[Arm, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a course found: the arms, and parameters that only measuring could tell."""

    arms: Sequence[ArmResult]
    parameters: Parameters = field(default_factory=dict)


Course = Generator[Trial, Measurement, Outcome]
"""Asks for trials, is sent what each measured, and returns what became of the arms."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the results say: the findings, and one line that a reader remembers."""

    findings: tuple[Finding, ...]
    verdict: str


Results = Mapping[str, ArmResult]
"""Results of all arms by the arm's name."""


def try_each_arm(plan: Plan, may_freeze: bool) -> Course:
    """Try every arm of the plan once, under its own load."""
    results = []
    for arm in plan.arms:
        measured = yield Trial(arm, arm.load)
        results.append(fold_arm(measured))
    return Outcome(results)


def fold_arm(measured: Measurement) -> ArmResult:
    """Return the figures of an arm that was tried once."""
    arm, samples = measured.trial.arm, measured.samples
    return ArmResult(
        name=arm.name,
        title=arm.title,
        stack=arm.stack,
        setup=arm.setup,
        parameters={**arm.parameters, "runs": measured.attempts},
        paths=summarize_paths(samples),
        published=arm.published,
        prediction=predict(arm, measured.holds),
        connections=measured.connections,
        lateness=lateness(samples),
        generator_cpu=measured.generator_cpu,
        checks=measured.checks,
    )


@dataclass(frozen=True, slots=True)
class Experiment:
    """A published claim, to be run again.

    :ivar factory: of its services' app, as ``package.module:function``.
    :ivar needs_postgres: whether ``prepare`` gets the URL of an empty database, without a driver.
    :ivar plan: the plan for a mode on a machine with so many cores.
    :ivar prepare: makes the data and returns settings that all services share.
    :ivar judge: the answer, as a function of parameters and results alone.
    :ivar course: what is tried, in which order; told whether the server is the lab's own and may be frozen.
    """

    name: str
    question: str
    source: str
    explanation: str
    factory: str
    needs_postgres: bool
    plan: Callable[[Mode, int], Plan]
    prepare: Callable[[Plan, URL | None], Mapping[str, Value]]
    judge: Callable[[Parameters, Results], Answer]
    course: Callable[[Plan, bool], Course] = try_each_arm


def predict(arm: Arm, holds: Holds) -> Prediction | None:
    """Return the binding constraint of an arm, None where it names no constraints."""
    ceilings = arm.ceilings(holds)
    if not ceilings:
        return None
    binding = binding_constraint(ceilings)
    return Prediction(binding.constraint, binding.throughput)


def accept_answer(answer: object) -> Accept:
    """Return the judge of responses: a 200 must carry ``answer``; other statuses speak for themselves."""

    def accept(status: int, body: bytes) -> bool:
        if status != 200:
            return True
        try:
            return bool(json.loads(body) == answer)
        except ValueError:
            return False

    return accept


def conclude(experiment: Experiment, plan: Plan, outcome: Outcome) -> ExperimentResult:
    """Return the experiment's result; one void arm or point makes its verdict void."""
    parameters = {**plan.parameters, **outcome.parameters}
    answer = experiment.judge(parameters, {result.name: result for result in outcome.arms})
    void = any(map(has_void, outcome.arms))
    return ExperimentResult(
        name=experiment.name,
        question=experiment.question,
        source=experiment.source,
        explanation=experiment.explanation,
        scaled=plan.scaled,
        parameters=parameters,
        arms=tuple(outcome.arms),
        findings=answer.findings,
        verdict=f"void: {answer.verdict}" if void else answer.verdict,
        passed=not void and all(finding.holds for finding in answer.findings),
    )
