"""Who takes part in the experiment ``overload``: kinds of work, ways to serve them, and what each mode measures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from headgate.ceilings import Ceiling, places
from headgate.lab.apps.overload import CONNECTIONS
from headgate.lab.experiment import Arm, Ask, Load, Plan, Value
from headgate.lab.results import Mode, Stack
from headgate.load import pacer
from headgate.load.pacer import Schedule

WANTED_S = 1.0
"""An answer later than this after its request was due helps nobody any more."""

PING = "/ping"
PINGS_PER_S = 20
WARM_UPS = 5
SEED = 20_261
LIGHT_RATE = 10
REPEATS = 3

FRACTIONS = (0.8, 0.9, 0.97)
"""Of what Little's law allows: the loads stock is under when capacity is measured."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of work.

    :ivar held: how many places of what a request takes for the whole of its time; None for the server's cores.
    """

    name: str
    path: str
    title: str
    held: tuple[int, str] | None

    def ceiling(self, hold_s: float, server_cores: int) -> Ceiling:
        """What Little's law allows a service that holds its place from begin to end."""
        limit, what = self.held or (min(CONNECTIONS, server_cores), "server cores")
        return places(limit, what, hold_s)


SLEEP = Kind("sleep", "/sleep", "pg_sleep(0.05)", (CONNECTIONS, "connections"))
COMPUTE = Kind("compute", "/compute", "a CPU-bound query", None)
UPDATE = Kind("update", "/update", "an UPDATE of one contended row", (1, "row"))
THREE_READS = Kind("three-reads", "/three-reads", "three reads with 50 ms between", (CONNECTIONS, "connections"))


@dataclass(frozen=True, slots=True)
class Case:
    """A way to serve the same handlers, and the one option that it is tuned by, if it has one.

    :ivar option: a setting of the app, or uvicorn's ``limit_concurrency``.
    :ivar swept: the values it is tried with; ``usual`` is the one it has where it is not swept.
    """

    name: str
    title: str
    stack: Stack
    setup: str
    option: str = ""
    swept: tuple[float, ...] = ()
    usual: float = 0.0


STOCK = Case(
    "stock",
    "SQLAlchemy’s defaults",
    "stock",
    "SQLAlchemy's defaults: 5 + 10 connections, 30 s of waiting, a 500 after that",
)
TUNED = Case(
    "tuned",
    "pool_timeout tuned, 503",
    "stock",
    "stock with a short pool_timeout, whose errors are answered with 503",
    "pool_timeout_s",
    (0.1, 0.25, 0.5, 1.0),
    0.25,
)
LIMITED = Case(
    "limited",
    "--limit-concurrency tuned",
    "stock",
    "stock behind uvicorn's --limit-concurrency",
    "limit_concurrency",
    (20, 40, 80, 160),
    40,
)
GUARDED = Case(
    "guarded",
    "semaphore tuned, 503",
    "stock",
    f"stock behind an asyncio.Semaphore({CONNECTIONS}) with a bounded wait, answered with 503",
    "semaphore_wait_s",
    (0.1, 0.25, 0.5, 1.0),
    0.25,
)
HEADGATE = Case("headgate", "defaults", "headgate", "Database(url), install(app, db), nothing else")

RIVALS = (STOCK, TUNED, HEADGATE)
"""Who is measured for every kind of work."""
EVERYBODY = (STOCK, TUNED, LIMITED, GUARDED, HEADGATE)


@dataclass(frozen=True, slots=True)
class Contest:
    """Who serves a kind of work, and at which multiples of capacity.

    :ivar repeated: the multiples at which each of ``RIVALS`` is measured ``REPEATS`` times; all others are once.
    """

    kind: Kind
    cases: tuple[Case, ...]
    multiples: tuple[float, ...]
    repeated: tuple[float, ...] = ()

    def turns(self) -> Iterator[tuple[float, int, Case]]:
        """Yield multiple, run and case of every point, the cases in turn."""
        for multiple in self.multiples:
            for run in range(1, REPEATS + 1):
                for case in self.cases:
                    if run == 1 or (multiple in self.repeated and case in RIVALS):
                        yield multiple, run, case


@dataclass(frozen=True, slots=True)
class Scale:
    """What a mode measures, and for how many seconds each time.

    :ivar swept_s: how long a rival is tried with each value of its option; None: not at all.
    :ivar after_s: how long an overload is followed by half of capacity.
    :ivar gives_up_s: when a client closes its connection and goes; stock's handler goes on waiting for its turn.
    :ivar before_s: how long the server serves before it is frozen; ``thawed_s`` after it is let go.
    """

    contests: tuple[Contest, ...]
    fractions: tuple[float, ...]
    calibration_s: float
    swept_s: float | None
    point_s: float
    overload_s: float
    after_s: float
    gives_up_s: float
    before_s: float
    frozen_s: float
    thawed_s: float
    endured_by: tuple[Case, ...]


_MULTIPLES = (1, 2, 5, 10)

SCALES: Mapping[Mode, Scale] = {
    "full": Scale(
        contests=(
            Contest(SLEEP, EVERYBODY, _MULTIPLES, repeated=(2, 10)),
            Contest(THREE_READS, RIVALS, _MULTIPLES),
            Contest(COMPUTE, RIVALS, _MULTIPLES),
            Contest(UPDATE, RIVALS, _MULTIPLES),
        ),
        fractions=FRACTIONS,
        calibration_s=6.0,
        swept_s=6.0,
        point_s=10.0,
        overload_s=20.0,
        after_s=10.0,
        gives_up_s=3.0,
        before_s=3.0,
        frozen_s=20.0,
        thawed_s=6.0,
        endured_by=RIVALS,
    ),
    "quick": Scale(
        contests=(Contest(SLEEP, RIVALS, (2, 10)), Contest(THREE_READS, (STOCK, HEADGATE), (2,))),
        fractions=(0.9,),
        calibration_s=2.0,
        swept_s=None,
        point_s=2.5,
        overload_s=2.0,
        after_s=2.0,
        gives_up_s=1.5,
        before_s=1.0,
        frozen_s=3.0,
        thawed_s=3.0,
        endured_by=(HEADGATE,),
    ),
}


def plan_overload(mode: Mode, usable_cores: int) -> Plan:
    """Return every way to serve every kind of work, each under a light load; the course sets the others."""
    scale = SCALES[mode]
    return Plan(
        scaled=mode != "full",
        parameters={
            "wanted_s": WANTED_S,
            "client_gives_up_s": scale.gives_up_s,
            "connections": CONNECTIONS,
            "pings_per_s": PINGS_PER_S,
            "point_s": scale.point_s,
            "overload_s": scale.overload_s,
            "frozen_s": scale.frozen_s,
            "cores": usable_cores,
        },
        arms=tuple(
            plan_arm(contest.kind, case, scale.gives_up_s) for contest in scale.contests for case in contest.cases
        ),
    )


def plan_arm(kind: Kind, case: Case, gives_up_s: float, value: float | None = None) -> Arm:
    """Return a case that serves a kind of work, tuned to ``value`` or to what is usual for it."""
    tuned: dict[str, Value] = {case.option: case.usual if value is None else value} if case.option else {}
    return Arm(
        name=f"{case.name}-{kind.name}",
        title=case.title,
        stack=case.stack,
        setup=f"{case.setup}; asyncpg, one uvicorn worker",
        configuration={"stack": case.stack, "refuses": case is TUNED} | ({} if case is LIMITED else tuned),
        parameters={"path": kind.path, **tuned},
        load=make_load(kind, schedule_point(LIGHT_RATE, 1), gives_up_s),
        warm_up=(kind.path, PING) * WARM_UPS,
        ceilings=lambda holds: (),
        limit_concurrency=round(case.usual if value is None else value) if case is LIMITED else None,
    )


def make_load(kind: Kind, schedule: Schedule, gives_up_s: float) -> Load:
    """Return the requests of one trial: the kind's own, and ``/ping`` beside them."""
    return Load(
        asks=(Ask(kind.path, {"done": True}), Ask(PING, {"ping": "pong"})),
        schedule=schedule,
        timeout_s=gives_up_s,
    )


def schedule_point(rate: float, duration_s: float, seed: int = SEED) -> Schedule:
    """Return Poisson arrivals of the work, and beside them regular ones of ``/ping``."""
    return pacer.together(
        [pacer.poisson(round(rate, 3), duration_s, seed), pacer.constant(PINGS_PER_S, duration_s)],
    )
