"""What an experiment is: a question, arms that are run to answer it, and an answer worked out from the results."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy.engine import URL

from headgate.ceilings import Ceiling, binding_constraint
from headgate.lab.report.reading import is_void
from headgate.lab.results import ArmResult, ExperimentResult, Finding, Mode, Prediction, Published, Stack
from headgate.load.pacer import Schedule
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


@dataclass(frozen=True, slots=True)
class Plan:
    """An experiment in one mode; ``arms`` in the order they are run."""

    scaled: bool
    parameters: Parameters
    arms: tuple[Arm, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """What the results say: the findings, and one line that a reader remembers."""

    findings: tuple[Finding, ...]
    verdict: str


Results = Mapping[str, ArmResult]
"""Results of all arms by the arm's name."""


@dataclass(frozen=True, slots=True)
class Experiment:
    """A published claim, to be run again.

    :ivar factory: of its services' app, as ``package.module:function``.
    :ivar needs_postgres: whether ``prepare`` gets the URL of an empty database, without a driver.
    :ivar plan: the plan for a mode on a machine with so many cores.
    :ivar prepare: makes the data and returns settings that all services share.
    :ivar judge: the answer, as a function of parameters and results alone.
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


def conclude(experiment: Experiment, plan: Plan, results: Sequence[ArmResult]) -> ExperimentResult:
    """Return the experiment's result; one void arm makes its verdict void."""
    answer = experiment.judge(plan.parameters, {result.name: result for result in results})
    void = any(map(is_void, results))
    return ExperimentResult(
        name=experiment.name,
        question=experiment.question,
        source=experiment.source,
        explanation=experiment.explanation,
        scaled=plan.scaled,
        parameters=plan.parameters,
        arms=tuple(results),
        findings=answer.findings,
        verdict=f"void: {answer.verdict}" if void else answer.verdict,
        passed=not void and all(finding.holds for finding in answer.findings),
    )
