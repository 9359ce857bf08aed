"""The course of the experiment ``overload``: capacity first, which sets the loads of everything after it."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace

from headgate.errors import LabError
from headgate.lab import cores
from headgate.lab.experiment import Arm, Course, Freeze, Measurement, Outcome, Parameters, Plan, Trial, fold_arm
from headgate.lab.experiments.overload_answer import (
    FIRST_REFUSAL,
    GOOD_AGAIN,
    HELD_AFTER,
    MEMORY_GROWTH,
    NO_REFUSAL,
    NOT_GOOD_AGAIN,
)
from headgate.lab.experiments.overload_cases import (
    COMPUTE,
    SCALES,
    SEED,
    SLEEP,
    STOCK,
    WANTED_S,
    WARM_UPS,
    Case,
    Contest,
    Scale,
    make_load,
    plan_arm,
    schedule_point,
)
from headgate.lab.machine import usable_cores
from headgate.lab.meter import fold_readings
from headgate.lab.points import Offer, find_middles, first_refusal_s, fold_point, in_sequence, recovery_s
from headgate.lab.results import ArmResult, Check, Figure, PointResult
from headgate.load import pacer
from headgate.load.pacer import Schedule

SWEPT_AT = 2
RECOVERS_FROM, RECOVERS_AT = 10, 0.5


def run_overload(plan: Plan, may_freeze: bool) -> Course:
    """Measure what the plan's mode says."""
    return run_scale(SCALES["quick" if plan.scaled else "full"], may_freeze)


def run_scale(scale: Scale, may_freeze: bool) -> Course:
    """Measure each kind's capacity, then everybody at its multiples; then recovery and the frozen server."""
    arms: list[ArmResult] = []
    parameters: Parameters = {}
    for contest in scale.contests:
        bench = _Bench(contest, scale)
        yield from bench.compete()
        parameters |= bench.parameters()
        arms += bench.results()
        if contest.kind is SLEEP:
            arms += yield from bench.endure(may_freeze)
    return Outcome(arms, parameters)


Steps = Generator[Trial, Measurement, None]


class _Bench:
    """One kind of work: what was found about it so far, and the trials still to be asked for."""

    def __init__(self, contest: Contest, scale: Scale) -> None:
        self._contest = contest
        self._kind = contest.kind
        self._scale = scale
        share_out = cores.share_out_busy if contest.kind is COMPUTE else cores.share_out
        self._cores = share_out(cores.usable())
        self._server_cores = len(self._cores.server) or usable_cores()
        self._arms = {case.name: self._plan_arm(case) for case in contest.cases}
        self._points: dict[str, list[PointResult]] = {case.name: [] for case in contest.cases}
        self._figures: dict[str, list[Figure]] = {case.name: [] for case in contest.cases}
        self._capacity = 0.0
        self._how = ""
        self._calibration: tuple[Check, ...] = ()

    # What is asked for.

    def compete(self) -> Steps:
        """Find capacity and everybody's best setting, then put everybody under every multiple in turn."""
        yield from self._calibrate()
        for case in self._contest.cases:
            if case.swept and self._scale.swept_s:
                yield from self._sweep(case, self._scale.swept_s)
        for multiple, run, case in self._contest.turns():
            measured = yield self._trial(
                case, multiple, self._scale.point_s, f"{multiple:g}× run {run}", seed=SEED + run
            )
            self._points[case.name].append(fold_point(measured, self._offer(multiple, run, self._scale.point_s)))

    def _calibrate(self) -> Steps:
        """Find the highest goodput of stock just below what Little's law allows; void only if all loads were."""
        arm = self._arms[STOCK.name]
        alone = yield replace(self._make_trial(arm, arm.load.schedule, "alone"), probe=True)
        for path, hold_s in alone.holds.items():
            self._figures[STOCK.name].append(Figure(f"{path} alone, fastest of {WARM_UPS}", hold_s, "s"))
        allowed = self._kind.ceiling(alone.holds[self._kind.path], self._server_cores)
        found = []
        for fraction in self._scale.fractions:
            where = f"{fraction:g} of {allowed.constraint}"
            schedule = schedule_point(fraction * allowed.throughput, self._scale.calibration_s)
            measured = yield self._make_trial(arm, schedule, where)
            goodput = self._note_goodput(STOCK, where, measured, self._scale.calibration_s)
            found.append((measured.valid, goodput, where, measured.checks))
        _, self._capacity, self._how, self._calibration = max(found, key=lambda one: one[:2])
        if not self._capacity:
            raise LabError(f"stock answered no {self._kind.path} within {WANTED_S:g} s; is the machine overloaded?")

    def _sweep(self, case: Case, seconds: float) -> Steps:
        """Tune a rival by its one option, at twice the capacity."""
        best: dict[float, float] = {}
        for value in case.swept:
            self._arms[case.name] = self._plan_arm(case, value)
            where = f"{SWEPT_AT}× with {case.option} = {value:g}"
            measured = yield self._trial(case, SWEPT_AT, seconds, where)
            best[value] = self._note_goodput(case, where, measured, seconds)
        self._arms[case.name] = self._plan_arm(case, max(best, key=best.__getitem__))

    def _note_goodput(self, case: Case, where: str, measured: Measurement, seconds: float) -> float:
        goodput = fold_point(measured, self._offer(0, 1, seconds)).goodput
        self._figures[case.name].append(Figure(f"goodput at {where}", goodput, "req/s"))
        return goodput

    def endure(self, may_freeze: bool) -> Generator[Trial, Measurement, Sequence[ArmResult]]:
        """Overload and then half of capacity; then capacity and a server that is frozen for a while."""
        arms = []
        for case in self._scale.endured_by:
            arm = yield from self._recover(case)
            arms.append(arm)
        for case in self._scale.endured_by if may_freeze else ():
            arm = yield from self._freeze(case)
            arms.append(arm)
        return arms

    def _recover(self, case: Case) -> Generator[Trial, Measurement, ArmResult]:
        scale = self._scale
        schedule = in_sequence(
            (schedule_point(multiple * self._capacity, seconds), seconds)
            for multiple, seconds in ((RECOVERS_FROM, scale.overload_s), (RECOVERS_AT, scale.after_s))
        )
        label = f"{RECOVERS_FROM}× for {scale.overload_s:g} s, then {RECOVERS_AT:g}×"
        measured = yield self._make_trial(self._arms[case.name], schedule, label)
        work = [sample for sample in measured.samples if sample.target == self._kind.path]
        recovered_s = recovery_s(work, from_s=scale.overload_s, wanted_s=WANTED_S)
        return self._endured(
            case, "recovery", measured, [_tell(GOOD_AGAIN, NOT_GOOD_AGAIN, recovered_s, scale.after_s)]
        )

    def _freeze(self, case: Case) -> Generator[Trial, Measurement, ArmResult]:
        scale = self._scale
        seconds = scale.before_s + scale.frozen_s + scale.thawed_s
        freeze = Freeze(scale.before_s, scale.frozen_s)
        label = f"1×, server frozen for {scale.frozen_s:g} s"
        trial = self._make_trial(self._arms[case.name], schedule_point(self._capacity, seconds), label)
        measured = yield replace(trial, freeze=freeze)
        frozen_s, thawed_s = (at_ns / pacer.NS_PER_S for at_ns in measured.frozen_ns or (0, 0))
        work = [sample for sample in measured.samples if sample.target == self._kind.path]
        usage = fold_readings(measured.readings, until_s=seconds, generator_cpu=measured.generator_cpu)
        figures = [
            Figure(MEMORY_GROWTH, (usage.memory_peak - usage.memory_start) / 2**20, "MiB"),
            _tell(FIRST_REFUSAL, NO_REFUSAL, first_refusal_s(work, from_s=frozen_s), seconds - frozen_s),
            _tell(GOOD_AGAIN, NOT_GOOD_AGAIN, recovery_s(work, from_s=thawed_s, wanted_s=WANTED_S), seconds - thawed_s),
        ]
        if (states := measured.connections) is not None:
            figures.append(Figure(HELD_AFTER, states.max_active + states.max_idle_in_transaction, ""))
        return self._endured(case, "frozen", measured, figures)

    def _endured(self, case: Case, what: str, measured: Measurement, figures: Sequence[Figure]) -> ArmResult:
        folded = fold_arm(measured)
        title = f"{case.title}: {measured.trial.label.removeprefix(self._kind.name).strip()}"
        return replace(folded, name=f"{case.name}-{what}", title=title, figures=tuple(figures))

    def _trial(self, case: Case, multiple: float, seconds: float, label: str, *, seed: int = SEED) -> Trial:
        schedule = schedule_point(multiple * self._capacity, seconds, seed)
        return self._make_trial(self._arms[case.name], schedule, label)

    def _plan_arm(self, case: Case, value: float | None = None) -> Arm:
        return plan_arm(self._kind, case, self._scale.gives_up_s, value)

    def _make_trial(self, arm: Arm, schedule: Schedule, label: str) -> Trial:
        load = make_load(self._kind, schedule, self._scale.gives_up_s)
        return Trial(arm, load, f"{self._kind.name} {label}", metered=True, cores=self._cores)

    # What was found.

    def _offer(self, multiple: float, run: int, seconds: float) -> Offer:
        return Offer(multiple, self._capacity, run, seconds, WANTED_S, self._kind.path, self._server_cores)

    def parameters(self) -> Parameters:
        """What was measured before the points were."""
        settings = {
            f"{self._kind.name}: {name}": value
            for case in self._contest.cases
            for name, value in self._arms[case.name].parameters.items()
            if name == case.option
        }
        return {
            f"{self._kind.name}: capacity": f"{self._capacity:.1f}/s, stock {self._how}",
            f"{self._kind.name}: cores": cores.describe(self._cores),
            **settings,
        }

    def results(self) -> Sequence[ArmResult]:
        """Everybody's points."""
        return [self._result(case) for case in self._contest.cases]

    def _result(self, case: Case) -> ArmResult:
        arm = self._arms[case.name]
        points = tuple(self._points[case.name])
        middle = find_middles(points)[-1].point
        return ArmResult(
            name=arm.name,
            title=arm.title,
            stack=arm.stack,
            setup=arm.setup,
            parameters=arm.parameters,
            paths=(),
            published=None,
            prediction=None,
            connections=None,
            lateness=middle.lateness,
            generator_cpu=middle.usage.generator_cpu,
            checks=self._calibration if case is STOCK else (),
            figures=tuple(self._figures[case.name]),
            group=self._kind.title,
            points=points,
        )


def _tell(name: str, never: str, seconds: float | None, watched_s: float) -> Figure:
    return Figure(never, watched_s, "s") if seconds is None else Figure(name, seconds, "s")
