"""The course of ``overload`` driven by a made-up service, and its answer on what that leaves behind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache

import pytest

from headgate.errors import LabError
from headgate.lab.experiment import Measurement, Outcome, Plan, Trial, conclude
from headgate.lab.experiments import overload
from headgate.lab.experiments.overload_answer import curve_of
from headgate.lab.experiments.overload_cases import (
    COMPUTE,
    CONNECTIONS,
    EVERYBODY,
    GUARDED,
    PING,
    RIVALS,
    SCALES,
    SLEEP,
    THREE_READS,
    Contest,
    Scale,
)
from headgate.lab.experiments.overload_course import run_overload, run_scale
from headgate.lab.results import ArmResult, Check, ConnectionStates, ExperimentResult
from headgate.lab.run import follow
from headgate.load.pacer import NS_PER_S
from headgate.load.sample import Sample

HOLD_S = 0.05
PING_S = 0.001
CAPACITY = CONNECTIONS / HOLD_S

Fate = tuple[float, int]
"""How long a request takes that cannot be served, and the status it is answered with."""

REFUSED: Fate = (0.01, 503)
LATE: Fate = (2.0, 200)

SMALL = replace(
    SCALES["full"],
    contests=(Contest(SLEEP, EVERYBODY, (1, 2, 5, 10)), Contest(THREE_READS, RIVALS, (1, 2, 5, 10))),
    calibration_s=2.0,
    swept_s=2.0,
    point_s=1.0,
    overload_s=1.0,
    after_s=2.0,
    before_s=1.0,
    frozen_s=1.0,
    thawed_s=2.0,
)
BRIEF = replace(SMALL, contests=(Contest(SLEEP, EVERYBODY, (1,)),))
"""For what does not depend on the multiples."""


class MadeUp:
    """Measures trials without a service: each second so many requests are served, and the others meet their fate.

    :ivar fates: by the name of the case. What is not named collapses: offered more than it can serve, it answers a
        fifth of that in time and all others late.
    """

    def __init__(self, fates: Mapping[str, Fate] | None = None, *, capacity: float = CAPACITY, ok: bool = True) -> None:
        self.trials: list[Trial] = []
        self._fates = fates if fates is not None else {"headgate": REFUSED, "tuned": (0.25, 503)}
        self._capacity = capacity
        self._ok = ok

    def measure(self, trial: Trial) -> Measurement:
        self.trials.append(trial)
        return Measurement(
            trial=trial,
            samples=self._serve(trial),
            holds=dict.fromkeys(trial.arm.warm_up, HOLD_S),
            connections=ConnectionStates((), 0, 15, 0, 0.0) if trial.freeze else None,
            generator_cpu=0.1,
            checks=(Check("lateness", self._ok, "made up"),),
            frozen_ns=(NS_PER_S, 2 * NS_PER_S) if trial.freeze else None,
        )

    def _serve(self, trial: Trial) -> Sequence[Sample]:
        schedule = trial.load.schedule
        due = list(zip(schedule.offsets_ns, schedule.targets, strict=True))
        offered = Counter(due_ns // NS_PER_S for due_ns, target in due if not target)
        served: Counter[int] = Counter()
        samples = []
        for due_ns, target in due:
            second = due_ns // NS_PER_S
            served[second] += not target
            in_turn = served[second] <= self._room(trial, offered[second]) and not self._is_frozen(trial, due_ns)
            took_s, status = (PING_S, 200) if target else (HOLD_S, 200) if in_turn else self._fate(trial) or LATE
            path = trial.load.asks[target].path
            samples.append(Sample(path, due_ns, due_ns, due_ns + round(took_s * NS_PER_S), status, "", 2))
        return samples

    def _fate(self, trial: Trial) -> Fate | None:
        return self._fates.get(trial.arm.name.partition("-")[0])

    def _room(self, trial: Trial, offered: int) -> float:
        collapses = self._fate(trial) is None and offered > 1.1 * self._capacity
        return self._capacity / 5 if collapses else self._capacity

    @staticmethod
    def _is_frozen(trial: Trial, due_ns: int) -> bool:
        return trial.freeze is not None and NS_PER_S <= due_ns < 2 * NS_PER_S


def measure(scale: Scale = SMALL, made_up: MadeUp | None = None, *, may_freeze: bool = True) -> Outcome:
    return follow(run_scale(scale, may_freeze), (made_up or MadeUp()).measure)


@cache
def course() -> tuple[MadeUp, Outcome]:
    """The course of everybody, and who measured it."""
    made_up = MadeUp()
    return made_up, measure(made_up=made_up)


def outcome() -> Outcome:
    return course()[1]


def plan() -> Plan:
    return overload.EXPERIMENT.plan("full", 2)


def concluded(found: Outcome) -> ExperimentResult:
    return conclude(overload.EXPERIMENT, plan(), found)


def arm_of(found: Outcome, name: str) -> ArmResult:
    return next(arm for arm in found.arms if arm.name == name)


# The course.


def test_capacity_is_the_best_of_stock_just_below_what_little_allows() -> None:
    made_up, found = course()
    alone, *calibrations = made_up.trials[:4]
    assert (alone.label, alone.probe) == ("sleep alone", True)
    assert [trial.label for trial in calibrations] == [
        f"sleep {fraction:g} of 15 connections ÷ 0.05 s" for fraction in (0.8, 0.9, 0.97)
    ]
    goodputs = [figure.value for figure in arm_of(found, "stock-sleep").figures if figure.name.startswith("goodput")]
    assert all(point.capacity == max(goodputs) for point in arm_of(found, "headgate-sleep").points)
    assert "stock 0.97 of 15 connections" in str(found.parameters["sleep: capacity"])


def test_a_void_calibration_counts_only_if_all_are_void() -> None:
    class LateOnce(MadeUp):
        def measure(self, trial: Trial) -> Measurement:
            late = "0.97" in trial.label
            return replace(super().measure(trial), checks=(Check("lateness", not late, "made up"),))

    found = measure(BRIEF, LateOnce())
    assert "stock 0.9 of" in str(found.parameters["sleep: capacity"])
    assert all(check.ok for check in arm_of(found, "stock-sleep").checks)
    void = measure(BRIEF, MadeUp(ok=False))
    assert "stock 0.97 of" in str(void.parameters["sleep: capacity"])
    assert not all(check.ok for check in arm_of(void, "stock-sleep").checks)


def test_everybody_meets_the_same_arrivals_in_turn() -> None:
    made_up, _ = course()
    points = [trial for trial in made_up.trials if "run" in trial.label and trial.label.startswith("sleep")]
    assert [trial.arm.name for trial in points] == [f"{case.name}-sleep" for case in EVERYBODY] * 4
    for label in dict.fromkeys(trial.label for trial in points):
        schedules = {tuple(trial.load.schedule.offsets_ns) for trial in points if trial.label == label}
        assert len(schedules) == 1, label


def test_several_runs_have_arrivals_of_their_own_and_are_interleaved() -> None:
    scale = replace(SMALL, contests=(Contest(SLEEP, (*RIVALS, GUARDED), (1, 2), repeated=(2,)),))
    made_up = MadeUp()
    found = measure(scale, made_up)
    points = [trial for trial in made_up.trials if "run" in trial.label]
    once, repeated = [f"{case.name}-sleep" for case in (*RIVALS, GUARDED)], [f"{case.name}-sleep" for case in RIVALS]
    assert [trial.arm.name for trial in points] == once * 2 + repeated * 2
    assert len({tuple(trial.load.schedule.offsets_ns) for trial in points}) == 1 + 3
    assert [(point.multiple, point.run) for point in arm_of(found, "stock-sleep").points] == [
        (1, 1),
        (2, 1),
        (2, 2),
        (2, 3),
    ]
    assert [point.run for point in arm_of(found, "guarded-sleep").points] == [1, 1]


def test_a_rival_is_shown_with_the_setting_that_was_best() -> None:
    class Picky(MadeUp):
        def _serve(self, trial: Trial) -> Sequence[Sample]:
            samples = super()._serve(trial)
            best = trial.arm.configuration.get("pool_timeout_s", 0.5) == 0.5
            return samples if best else samples[::2]

    made_up = Picky()
    found = measure(BRIEF, made_up)
    assert arm_of(found, "tuned-sleep").parameters["pool_timeout_s"] == 0.5
    assert found.parameters["sleep: pool_timeout_s"] == 0.5
    limits = {trial.arm.limit_concurrency for trial in made_up.trials if trial.arm.name == "limited-sleep"}
    assert limits == {20, 40, 80, 160}
    assert all(trial.arm.limit_concurrency is None for trial in made_up.trials if trial.arm.name == "tuned-sleep")


def test_a_server_that_is_not_the_labs_is_never_frozen() -> None:
    assert any(trial.freeze for trial in course()[0].trials)
    made_up = MadeUp()
    found = measure(BRIEF, made_up, may_freeze=False)
    assert not any(trial.freeze for trial in made_up.trials)
    assert not any(arm.name.endswith("frozen") for arm in found.arms)
    assert any(arm.name.endswith("recovery") for arm in found.arms)


def test_a_machine_that_answers_nothing_in_time_is_one_line() -> None:
    with pytest.raises(LabError, match=r"stock answered no /sleep within 1 s; is the machine overloaded\?"):
        measure(BRIEF, MadeUp(capacity=0))


def test_quick_takes_at_most_75_seconds_and_full_25_minutes() -> None:
    """Seconds of load, and what the clients wait and a service takes to start on top of it."""
    for mode, minutes in (("quick", 1.25), ("full", 25.0)):
        made_up = MadeUp(capacity=20)  # what is offered does not matter here, only for how long
        follow(run_overload(overload.EXPERIMENT.plan(mode, 2), True), made_up.measure)
        total_s = sum(trial.load.schedule.offsets_ns[-1] / NS_PER_S + 2.5 for trial in made_up.trials)
        assert total_s <= 60 * minutes, mode


# The answer.


def test_it_is_proved_by_a_service_that_refuses_what_it_cannot_serve() -> None:
    result = concluded(outcome())
    assert [finding.statement for finding in result.findings if not finding.holds] == []
    assert result.passed
    assert "Headgate 9" in result.verdict or "Headgate 1" in result.verdict
    assert len(result.findings) == 9


def test_slow_refusals_are_found() -> None:
    result = concluded(measure(made_up=MadeUp({"tuned": (0.25, 503), "headgate": (0.03, 503)})))
    [wrong] = [finding.statement for finding in result.findings if not finding.holds]
    assert "refuses within" in wrong


def test_a_stock_that_does_not_collapse_is_found() -> None:
    result = concluded(measure(made_up=MadeUp({"headgate": REFUSED, "tuned": REFUSED, "stock": REFUSED})))
    assert [finding.holds for finding in result.findings] == [False] + [True] * 8


def change(found: Outcome, name: str, changed: Callable[[ArmResult], ArmResult]) -> Outcome:
    return replace(found, arms=[changed(arm) if arm.name == name else arm for arm in found.arms])


def with_points(arm: ArmResult, multiple: float, **changes: object) -> ArmResult:
    points = [replace(one, **changes) if one.multiple == multiple else one for one in arm.points]  # type: ignore[arg-type]
    return replace(arm, points=tuple(points))


@pytest.mark.parametrize(
    ("name", "multiple", "changes", "words"),
    [
        ("headgate-sleep", 1, {"goodput": 200.0}, "goodput, sleep"),
        ("headgate-three-reads", 1, {"goodput": 200.0}, "goodput, three-reads"),
        ("headgate-sleep", 10, {"ping_requests": 100}, "every /ping"),
        ("tuned-sleep", 5, {"goodput": 400.0}, "best pool_timeout"),
    ],
)
def test_each_target_can_be_missed(name: str, multiple: float, changes: dict[str, object], words: str) -> None:
    result = concluded(change(outcome(), name, lambda arm: with_points(arm, multiple, **changes)))
    [wrong] = [finding.statement for finding in result.findings if not finding.holds]
    assert words in wrong


@pytest.mark.parametrize(
    ("name", "figure", "value", "words"),
    [
        ("headgate-recovery", "good again after", 1.5, "After 10×"),
        ("headgate-frozen", "good again after", 2.5, "frozen"),
        ("headgate-frozen", "memory growth", 33.0, "frozen"),
        ("headgate-frozen", "first refusal after", 1.1, "frozen"),
        ("headgate-frozen", "connections still in use when all were answered", 1.0, "frozen"),
        ("stock-sleep", "/sleep alone, fastest of 5", 0.01, "At 2×, half"),
    ],
)
def test_each_figure_can_miss_its_target(name: str, figure: str, value: float, words: str) -> None:
    def worse(arm: ArmResult) -> ArmResult:
        assert figure in [one.name for one in arm.figures]
        figures = tuple(replace(one, value=value) if one.name == figure else one for one in arm.figures)
        return replace(arm, figures=figures)

    result = concluded(change(outcome(), name, worse))
    [wrong] = [finding.statement for finding in result.findings if not finding.holds]
    assert words in wrong


def test_one_void_point_makes_the_verdict_void() -> None:
    void = (Check("lateness", False, "made up"),)
    result = concluded(change(outcome(), "limited-sleep", lambda arm: with_points(arm, 5, checks=void)))
    assert all(finding.holds for finding in result.findings)
    assert not result.passed
    assert result.verdict.startswith("void: ")


def test_a_quick_run_is_judged_by_what_it_has() -> None:
    found = follow(run_overload(overload.EXPERIMENT.plan("quick", 2), True), MadeUp().measure)
    result = conclude(overload.EXPERIMENT, overload.EXPERIMENT.plan("quick", 2), found)
    assert result.scaled
    assert len(result.findings) == 5
    too_soon = ("stock answers fewer", "half of Headgate", "best pool_timeout")
    assert not any(words in finding.statement for finding in result.findings for words in too_soon)
    assert not any("5×" in finding.statement for finding in result.findings)


def test_curves_are_told_by_case_and_kind() -> None:
    results = {arm.name: arm for arm in outcome().arms}
    assert list(curve_of(results, "headgate", "sleep")) == [1, 2, 5, 10]
    assert curve_of(results, "guarded", "three-reads") == {}


def test_every_load_has_pings_beside_it() -> None:
    made_up, _ = course()
    assert all([ask.path for ask in trial.load.asks][1] == PING for trial in made_up.trials)


def test_a_cpu_bound_query_is_allowed_as_many_places_as_the_server_has_cores_and_connections() -> None:
    assert COMPUTE.ceiling(0.05, server_cores=2).constraint == "2 server cores ÷ 0.05 s"
    assert COMPUTE.ceiling(0.05, server_cores=64).constraint == "15 server cores ÷ 0.05 s"
    assert SLEEP.ceiling(0.05, server_cores=2).constraint == "15 connections ÷ 0.05 s"
