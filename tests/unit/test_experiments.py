"""Plans and answers of the experiments, on made-up samples."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import pytest

from headgate.errors import LabError
from headgate.lab.experiment import (
    Arm,
    Course,
    Experiment,
    Measurement,
    Outcome,
    Trial,
    accept_answer,
    conclude,
    fold_arm,
    predict,
)
from headgate.lab.experiments import EXPERIMENTS, ping, sleep
from headgate.lab.report.reading import compare_figures, is_void
from headgate.lab.results import ArmResult, Check, ConnectionStates, Mode
from headgate.lab.run import follow
from headgate.lab.trial import run_until_valid
from headgate.load.sample import Sample
from headgate.load.summary import lateness, summarize_paths

FORBIDDEN_NAMES = {"run", "serve", "compare", "list"}

Latencies = Mapping[str, Sequence[float | None]]
"""Seconds of each answer by path; None for a request that timed out after 30 s."""


def result_of(arm: Arm, latencies: Latencies, *, held: int | None = None, ok: bool = True) -> ArmResult:
    samples = [
        _sample(path, due_ns, latency)
        for path, values in latencies.items()
        for due_ns, latency in zip(arm.load.schedule.offsets_ns, values, strict=False)
    ]
    return ArmResult(
        name=arm.name,
        title=arm.title,
        stack=arm.stack,
        setup=arm.setup,
        parameters=arm.parameters,
        paths=summarize_paths(samples),
        published=arm.published,
        prediction=predict(arm, dict.fromkeys(latencies, 0.2)),
        connections=None if held is None else ConnectionStates((), 1, 15, held, float(held)),
        lateness=lateness(samples),
        generator_cpu=0.1,
        checks=(Check("lateness", ok, "made up"),),
    )


def _sample(path: str, due_ns: int, latency: float | None) -> Sample:
    took_ns = round((30.0 if latency is None else latency) * 1e9)
    failed = latency is None
    return Sample(path, due_ns, due_ns, due_ns + took_ns, 0 if failed else 200, "timeout" if failed else "", 2)


def arms_of(experiment: Experiment, mode: Mode = "full", cores: int = 2) -> dict[str, Arm]:
    return {arm.name: arm for arm in experiment.plan(mode, cores).arms}


# The registry.


def test_names_are_unique_and_none_is_a_word_of_the_command() -> None:
    names = [experiment.name for experiment in EXPERIMENTS]
    assert len(set(names)) == len(names)
    assert not FORBIDDEN_NAMES & set(names)


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda experiment: experiment.name)
@pytest.mark.parametrize("mode", ["quick", "full"])
def test_a_plan_is_consistent(experiment: Experiment, mode: Mode) -> None:
    plan = experiment.plan(mode, 2)
    assert plan.scaled == (mode == "quick")
    assert len({arm.name for arm in plan.arms}) == len(plan.arms)
    for arm in plan.arms:
        paths = [ask.path for ask in arm.load.asks]
        assert max(arm.load.schedule.targets) == len(paths) - 1
        assert set(arm.warm_up) <= set(paths)
        assert arm.stack == ("headgate" if arm.name.startswith("headgate-") else "stock")
        assert arm.configuration["stack"] == arm.stack


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda experiment: experiment.name)
def test_arms_with_the_same_paths_meet_the_same_arrivals(experiment: Experiment) -> None:
    schedules: dict[int, set[tuple[int, ...]]] = {}
    for arm in experiment.plan("quick", 2).arms:
        schedules.setdefault(len(arm.load.asks), set()).add(tuple(arm.load.schedule.offsets_ns))
    assert all(len(variants) == 1 for variants in schedules.values())


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda experiment: experiment.name)
def test_every_published_figure_speaks_of_something_measured(experiment: Experiment) -> None:
    for arm in arms_of(experiment).values():
        result = result_of(arm, {ask.path: [1.0] * 100 for ask in arm.load.asks})
        for comparison in compare_figures(result, scaled=False):
            assert comparison.measured is not None, comparison


def test_answers_are_compared_as_values() -> None:
    accept = accept_answer({"a": 1, "b": 2})
    assert accept(200, b'{"b": 2,\n "a": 1}')
    assert not accept(200, b'{"a": 1}')
    assert not accept(200, b"not JSON")
    assert accept(503, b"busy")


# Running again.


def measurements(*valid: bool) -> Iterator[Measurement]:
    arm = arms_of(sleep.EXPERIMENT)["async-inside"]
    samples = [_sample(sleep.ASYNC_INSIDE, 0, 2.0)]
    checks = ((Check("lateness", ok, "made up"),) for ok in valid)
    return (Measurement(Trial(arm, arm.load), samples, {sleep.ASYNC_INSIDE: 2.0}, None, 0.1, each) for each in checks)


@pytest.mark.parametrize(
    ("valid", "runs", "void"),
    [((True,), 1, False), ((False, True), 2, False), ((False, False, True), 3, False), ((False,) * 4, 3, True)],
)
def test_a_void_arm_is_repeated_twice_then_shown_as_void(valid: tuple[bool, ...], runs: int, void: bool) -> None:
    results = measurements(*valid)
    said: list[int] = []
    result = fold_arm(run_until_valid(lambda: next(results), on_repeat=lambda _, run: said.append(run)))
    assert result.parameters["runs"] == runs
    assert said == list(range(2, runs + 1)), "each repetition is told"
    assert is_void(result) == void


def test_a_course_is_sent_what_its_trials_measured_and_is_closed_if_one_fails() -> None:
    arm = arms_of(sleep.EXPERIMENT)["async-inside"]
    ended = []

    def course() -> Course:
        try:
            first = yield Trial(arm, arm.load, "first")
            second = yield Trial(arm, arm.load, f"after {first.trial.label}")
        finally:
            ended.append(True)
        return Outcome([fold_arm(second)], {"seen": second.trial.label})

    def measure(trial: Trial) -> Measurement:
        return replace(next(measurements(True)), trial=trial)

    assert follow(course(), measure).parameters == {"seen": "after first"}

    def fail(trial: Trial) -> Measurement:
        raise LabError("no")

    with pytest.raises(LabError):
        follow(course(), fail)
    assert ended == [True, True]


# sleep.


def sleep_results(
    stock: Sequence[float | None] | None = None,
    leased: Sequence[float | None] | None = None,
    held: tuple[int, int] = (15, 0),
    ok: bool = True,
) -> list[ArmResult]:
    stock_latencies = stock or [2.0] * 240 + [None] * 260
    leased_latencies = leased or [2.01] * 500
    latencies: dict[str, Sequence[float | None]] = {
        "async-inside": stock_latencies,
        "headgate-async-inside": leased_latencies,
        "async-outside": [2.01] * 500,
        "sync-inside": stock_latencies,
        "headgate-sync-inside": [0.03 * index + 2 for index in range(500)],
        "sync-outside": [0.03 * index + 2 for index in range(500)],
    }
    results = []
    for name, arm in arms_of(sleep.EXPERIMENT).items():
        holds = held[0] if name in ("async-inside", "sync-inside") else held[1]
        values = {arm.load.asks[0].path: latencies[name]}
        results.append(result_of(arm, values, held=holds, ok=ok or name != "sync-outside"))
    return results


def conclude_sleep(results: Sequence[ArmResult]) -> tuple[bool, list[bool], str]:
    answer = conclude(sleep.EXPERIMENT, sleep.EXPERIMENT.plan("full", 2), Outcome(results))
    return answer.passed, [finding.holds for finding in answer.findings], answer.verdict


def test_sleep_is_proved_by_what_was_published() -> None:
    passed, holds, verdict = conclude_sleep(sleep_results())
    assert passed
    assert holds == [True, True, True]
    assert "48.0% → 100.0% answered" in verdict


@pytest.mark.parametrize(
    ("results", "holds"),
    [
        (sleep_results(held=(14, 0)), [False, True, True]),
        (sleep_results(held=(15, 1)), [False, True, True]),
        (sleep_results(leased=[2.01] * 499 + [None]), [True, False, True]),
        (sleep_results(leased=[2.01] * 490 + [2.2] * 10), [True, False, True]),
        (sleep_results(stock=[2.0] * 500), [True, True, False]),
    ],
    ids=["stock holds fewer", "Headgate holds one", "one unanswered", "too late", "stock sync as fast"],
)
def test_each_finding_of_sleep_can_fail(results: list[ArmResult], holds: list[bool]) -> None:
    passed, found, _ = conclude_sleep(results)
    assert not passed
    assert found == holds


def test_one_void_arm_makes_the_verdict_void() -> None:
    passed, holds, verdict = conclude_sleep(sleep_results(ok=False))
    assert not passed
    assert all(holds)
    assert verdict.startswith("void: ")


def test_an_arm_that_answered_nobody_is_no_reason_to_fail() -> None:
    passed, _, _ = conclude_sleep(sleep_results(leased=[None] * 500))
    assert not passed


@pytest.mark.parametrize(
    ("name", "constraint", "throughput"),
    [
        ("sync-outside", "40 threads ÷ 2 s", 20.0),
        ("sync-inside", "15 connections ÷ 2 s", 7.5),
        ("async-outside", "offered: 500 requests ÷ (4.99 s + 2 s)", 71.53),
        ("async-inside", "15 connections ÷ 2 s", 7.5),
        ("headgate-async-inside", "offered: 500 requests ÷ (4.99 s + 2 s)", 71.53),
        ("headgate-sync-inside", "40 threads ÷ 2 s", 20.0),
    ],
)
def test_predictions_of_sleep(name: str, constraint: str, throughput: float) -> None:
    prediction = predict(arms_of(sleep.EXPERIMENT)[name], {})
    assert prediction is not None
    assert prediction.constraint == constraint
    assert prediction.throughput == pytest.approx(throughput, abs=0.01)


def test_quick_scales_every_time_of_sleep_alike() -> None:
    quick, full = (dataclasses.astuple(sleep.SCALES[mode]) for mode in ("quick", "full"))
    assert {short / long for short, long in zip(quick, full, strict=True)} == {0.25}
    plans = [sleep.EXPERIMENT.plan(mode, 2).parameters for mode in ("quick", "full")]
    assert plans[0]["requests"] == plans[1]["requests"]


# ping.


def ping_results(
    limited_pings: Sequence[float] = (4.0,) * 100,
    pings: Sequence[float] = (0.5,) * 100,
    unbounded: Sequence[float] | None = None,
    bounded: Sequence[float] | None = None,
) -> list[ArmResult]:
    late = unbounded or [12 + index / 50 for index in range(100)]
    early = bounded or [0.14 * (index + 1) for index in range(100)]
    counts = {
        "async-limited": [7.0] + [13.0] * 99,
        "async-15-limited": [2.0] + [max(2.0, value) for value in early[1:]],
        "async": late,
        "headgate-async": early,
        "async-15": [max(2.0, value) for value in early],
        "async-cores": early,
    }
    results = []
    for name, arm in arms_of(ping.EXPERIMENT).items():
        own_pings = {"async-limited": [7.0] * 100, "async-15-limited": limited_pings}.get(name, pings)
        values = {ask.path: own_pings for ask in arm.load.asks}
        values |= {path: counts.get(name, early) for path in values if path.startswith("/count")}
        results.append(result_of(arm, values))
    return results


def conclude_ping(results: Sequence[ArmResult]) -> tuple[bool, list[bool]]:
    answer = conclude(ping.EXPERIMENT, ping.EXPERIMENT.plan("full", 2), Outcome(results))
    return answer.passed, [finding.holds for finding in answer.findings]


def test_ping_is_proved_by_what_was_measured() -> None:
    assert conclude_ping(ping_results()) == (True, [True] * 4)


@pytest.mark.parametrize(
    ("results", "holds"),
    [
        (ping_results(limited_pings=[0.1] * 100), [False, True, True, True]),
        (ping_results(limited_pings=[3.0] * 100, pings=[1.9] * 100), [False, True, True, True]),
        (ping_results(pings=[0.5] * 99 + [2.5]), [True, False, True, True]),
        (ping_results(unbounded=[0.14 * (i + 1) for i in range(100)]), [True, True, False, False]),
        (
            ping_results(bounded=[12 + i / 50 for i in range(100)], limited_pings=[12.0] * 100),
            [True, True, False, False],
        ),
    ],
    ids=["pings before counts", "pings stay slow", "one ping blocked", "nothing was unbounded", "all end last"],
)
def test_each_finding_of_ping_can_fail(results: list[ArmResult], holds: list[bool]) -> None:
    assert conclude_ping(results) == (False, holds)


def test_counts_are_bound_by_the_cores_as_measured_alone() -> None:
    arm = arms_of(ping.EXPERIMENT, cores=4)["async"]
    prediction = predict(arm, {ping.COUNT_ASYNC: 0.28})
    assert prediction is not None
    assert prediction.constraint == "4 cores ÷ 0.28 s"
    assert math.isclose(prediction.throughput, 4 / 0.28)
    assert predict(arms_of(ping.EXPERIMENT)["pause"], {}) is None


def test_a_pool_of_the_cores_has_their_number() -> None:
    arms = arms_of(ping.EXPERIMENT, cores=6)
    assert arms["async-cores"].configuration["connections"] == 6
    assert arms["headgate-async"].configuration["connections"] == 6
    assert arms["async"].configuration["connections"] is None
    assert arms["sync-limited"].configuration["connections"] == 15


def test_the_counts_leave_before_the_pings() -> None:
    arm = arms_of(ping.EXPERIMENT)["async-limited"]
    assert [ask.path for ask in arm.load.asks] == [ping.COUNT_ASYNC, ping.PING]
    assert list(arm.load.schedule.targets) == [0] * 100 + [1] * 100
    assert arm.load.max_connections == 100
