"""What a lab run leaves behind: the values written to results.json and read by the report.

Plain frozen dataclasses; times are seconds, rates are requests per second, unless a name says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from headgate.load.checks import Check as Check
from headgate.load.summary import Distribution as Distribution
from headgate.load.summary import PathResult as PathResult

SCHEMA_VERSION = 1
"""1: first form. Raise it with every change of meaning; unlike versions are never compared."""

Mode = Literal["quick", "full"]
Stack = Literal["stock", "headgate"]


@dataclass(frozen=True, slots=True)
class Figure:
    """One named number as people read it, e.g. ``Figure("throughput", 71.4, "req/s")``."""

    name: str
    value: float
    unit: str


@dataclass(frozen=True, slots=True)
class Published:
    """Figures somebody else published for the same arm, on their own machine."""

    source: str
    figures: tuple[Figure, ...]


@dataclass(frozen=True, slots=True)
class Prediction:
    """What Little's law allows: the binding constraint in words and the ceiling it sets."""

    constraint: str
    throughput: float


@dataclass(frozen=True, slots=True)
class ConnectionStates:
    """Samples of pg_stat_activity during an arm: ``(second, active, idle, idle in transaction)``."""

    samples: tuple[tuple[float, int, int, int], ...]
    max_active: int
    max_idle: int
    max_idle_in_transaction: int
    mean_idle_in_transaction: float


@dataclass(frozen=True, slots=True)
class Usage:
    """What a load took of the machine while it was offered: processors in cores, memory in bytes.

    :ivar memory_start: the service's resident memory before the load; ``memory_peak`` likewise, at its highest.
    """

    generator_cpu: float
    service_cpu: float
    server_cpu: float
    memory_start: int
    memory_peak: int


@dataclass(frozen=True, slots=True)
class PointResult:
    """One load of an arm that was put under several: what was offered, and what became of it.

    Every request is good (correct, within the wanted time of its intended start), late (correct, but later),
    refused (503 or 429) or failed (anything else, no answer included).

    :ivar multiple: the offered rate ÷ ``capacity``; ``run`` counts the repetitions of a point from 1.
    :ivar duration: of the schedule; ``goodput`` is good ÷ ``duration``.
    :ivar achieved_rate: requests really sent per second.
    :ivar answered: latency of good and late answers; ``refusals`` of those refused.
    :ivar pings: latency of the answers of ``/ping``, which needs no database; ``ping_requests`` were sent.
    :ivar limit: what was used up, in words.
    :ivar attempts: how often it was run until its checks passed.
    """

    multiple: float
    run: int
    capacity: float
    duration: float
    offered_rate: float
    achieved_rate: float
    requests: int
    good: int
    late: int
    refused: int
    failed: int
    goodput: float
    answered: Distribution
    refusals: Distribution
    ping_requests: int
    pings: Distribution
    usage: Usage
    limit: str
    lateness: Distribution
    checks: tuple[Check, ...]
    attempts: int


@dataclass(frozen=True, slots=True)
class ArmResult:
    """One variant of an experiment: one server under one load (``paths``) or under several (``points``).

    :ivar group: what its points are to be compared with: the points of all arms of that group.
    """

    name: str
    title: str
    stack: Stack
    setup: str
    parameters: dict[str, str | int | float | bool | None]
    paths: tuple[PathResult, ...]
    published: Published | None
    prediction: Prediction | None
    connections: ConnectionStates | None
    lateness: Distribution
    generator_cpu: float
    checks: tuple[Check, ...]
    figures: tuple[Figure, ...] = ()
    group: str = ""
    points: tuple[PointResult, ...] = ()


@dataclass(frozen=True, slots=True)
class Finding:
    """A statement the experiment sets out to prove, with the figures for it."""

    statement: str
    holds: bool
    evidence: str


@dataclass(frozen=True, slots=True)
class ExperimentResult:
    """One experiment: its question, its arms and its answer in one line."""

    name: str
    question: str
    source: str
    explanation: str
    scaled: bool
    parameters: dict[str, str | int | float | bool | None]
    arms: tuple[ArmResult, ...]
    findings: tuple[Finding, ...]
    verdict: str
    passed: bool


@dataclass(frozen=True, slots=True)
class Machine:
    """Where and with what the numbers were made."""

    system: str
    cpu: str
    cores: int
    memory_bytes: int
    python: str
    packages: dict[str, str]
    postgresql: str
    load_average: float


@dataclass(frozen=True, slots=True)
class Run:
    """The whole of results.json."""

    schema_version: int
    headgate_version: str
    mode: Mode
    started_at: str
    duration: float
    machine: Machine
    experiments: tuple[ExperimentResult, ...]
    complete: bool
    notes: tuple[str, ...] = field(default=())
