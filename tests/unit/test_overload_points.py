"""From samples to points, recovery and limits, on made-up samples."""

from __future__ import annotations

from dataclasses import replace

import pytest

from headgate.lab import cores
from headgate.lab.experiment import Arm, Ask, Cores, Load, Measurement, Reading, Trial
from headgate.lab.meter import fold_readings
from headgate.lab.points import (
    Offer,
    find_middles,
    first_refusal_s,
    fold_point,
    in_sequence,
    name_limit,
    recovery_s,
)
from headgate.lab.results import Check, PointResult, Usage
from headgate.load.pacer import NS_PER_S, Schedule
from headgate.load.sample import Sample

WORK, PING = "/work", "/ping"
OFFER = Offer(multiple=2.0, capacity=2.0, run=1, duration_s=2.0, wanted_s=1.0, path=WORK, server_cores=2)


def sample(
    due_s: float, took_s: float, status: int = 200, *, error: str = "", target: str = WORK, late_s: float = 0.0
) -> Sample:
    due_ns = round(due_s * NS_PER_S)
    return Sample(
        target, due_ns, due_ns + round(late_s * NS_PER_S), due_ns + round(took_s * NS_PER_S), status, error, 2
    )


def measurement(samples: list[Sample], *, ok: bool = True) -> Measurement:
    load = Load((Ask(WORK, 1), Ask(PING, 1)), Schedule([0], [0]), 3.0)
    arm = Arm("stock-work", "stock", "stock", "", {}, {}, load, (), lambda holds: ())
    return Measurement(Trial(arm, load), samples, {}, None, 0.25, (Check("lateness", ok, "made up"),))


def point(goodput: float, *, run: int = 1, ok: bool = True, multiple: float = 2.0) -> PointResult:
    folded = fold_point(measurement([sample(0, 0.1)], ok=ok), OFFER)
    return replace(folded, goodput=goodput, run=run, multiple=multiple)


def test_every_request_is_good_late_refused_or_failed() -> None:
    folded = fold_point(
        measurement(
            [
                sample(0.0, 1.0),
                sample(0.1, 1.001),
                sample(0.2, 0.01, 503),
                sample(0.3, 0.02, 429),
                sample(0.4, 0.01, 500),
                sample(0.5, 3.0, 0, error="timeout"),
                sample(0.6, 0.1, 200, error="wrong"),
                sample(0.7, 0.001, target=PING),
                sample(0.8, 0.001, 503, target=PING),
            ]
        ),
        OFFER,
    )
    assert (folded.requests, folded.good, folded.late, folded.refused, folded.failed) == (7, 1, 1, 2, 3)
    assert folded.goodput == 0.5, "of the schedule's two seconds"
    assert (folded.answered.count, folded.refusals.count, folded.refusals.p99) == (2, 2, 0.02)
    assert (folded.ping_requests, folded.pings.count) == (2, 1)
    assert folded.offered_rate == folded.achieved_rate == 3.5


def test_a_late_generator_offers_less_than_it_was_told() -> None:
    folded = fold_point(measurement([sample(0, 9), sample(1.9, 9, late_s=2.1)]), OFFER)
    assert (folded.offered_rate, folded.achieved_rate) == (1.0, 0.5)


def test_a_point_without_requests_has_nothing() -> None:
    folded = fold_point(measurement([]), OFFER)
    assert (folded.requests, folded.goodput, folded.answered.count, folded.achieved_rate) == (0, 0.0, 0, 0.0)


# Several runs.


def test_the_run_with_the_median_goodput_stands_for_all() -> None:
    [middle] = find_middles([point(3, run=1), point(1, run=2), point(2, run=3)])
    assert (middle.point.run, middle.lowest, middle.highest, middle.runs, middle.share) == (3, 1, 3, 3, 1.0)


def test_of_an_even_number_the_worse_of_the_middle_two() -> None:
    [middle] = find_middles([point(3, run=1), point(1, run=2)])
    assert middle.point.run == 2


def test_void_runs_do_not_count_unless_there_are_no_others() -> None:
    [middle] = find_middles([point(9, run=1, ok=False), point(1, run=2)])
    assert (middle.point.run, middle.highest, middle.runs) == (2, 1, 1)
    [middle] = find_middles([point(9, run=1, ok=False)])
    assert middle.point.run == 1


def test_middles_are_in_the_order_of_the_loads() -> None:
    middles = find_middles([point(1, multiple=10.0), point(1, multiple=1.0), point(1, multiple=2.0)])
    assert [middle.point.multiple for middle in middles] == [1.0, 2.0, 10.0]


# After the overload.


def after(*half_seconds: tuple[int, int]) -> list[Sample]:
    """Half seconds from the tenth second on: how many good, how many late."""
    return [sample(5.0, 9.0)] + [
        sample(10 + 0.5 * number + 0.001 * index, 0.1 if index < good else 2.0)
        for number, (good, late) in enumerate(half_seconds)
        for index in range(good + late)
    ]


@pytest.mark.parametrize(
    ("half_seconds", "recovered"),
    [
        ([(100, 0), (100, 0)], 0.0),
        ([(10, 90), (100, 0), (100, 0)], 0.5),
        ([(99, 1), (99, 1)], 0.0),
        ([(100, 0), (98, 2), (100, 0)], 1.0),
        ([(100, 0), (98, 2)], None),
        ([], None),
    ],
    ids=["at once", "after one", "99 of 100 are enough", "a relapse counts", "not at the end", "nothing was asked"],
)
def test_recovered_is_what_stays_recovered(half_seconds: list[tuple[int, int]], recovered: float | None) -> None:
    assert recovery_s(after(*half_seconds), from_s=10.0, wanted_s=1.0) == recovered


def test_the_first_refusal_is_told_by_when_it_came() -> None:
    samples = [sample(1.0, 0.5, 503), sample(2.0, 1.5, 503), sample(2.5, 0.75, 503), sample(2.1, 0.1)]
    assert first_refusal_s(samples, from_s=2.0) == 1.25
    assert first_refusal_s([sample(2.1, 0.1)], from_s=2.0) is None


def test_schedules_in_sequence_begin_where_the_seconds_before_end() -> None:
    joined = in_sequence([(Schedule([0, 5], [0, 1]), 1.0), (Schedule([7], [1]), 2.0), (Schedule([9], [0]), 1.0)])
    assert joined.offsets_ns == [0, 5, NS_PER_S + 7, 3 * NS_PER_S + 9]
    assert joined.targets == [0, 1, 1, 0]


# Processors and memory.


def reading(at_s: float, service_s: float, server_s: float, memory: int) -> Reading:
    return Reading(round(at_s * NS_PER_S), service_s, server_s, memory)


def test_processors_count_while_load_is_offered_and_memory_always() -> None:
    readings = [
        reading(-0.1, 1.0, 5.0, 100),
        reading(0.5, 2.0, 6.0, 150),
        reading(2.5, 3.0, 9.0, 200),
        reading(9.0, 3.0, 9.0, 300),
    ]
    usage = fold_readings(readings, until_s=3.0, generator_cpu=0.25)
    assert usage == Usage(0.25, 0.5, 1.5, memory_start=100, memory_peak=300)


@pytest.mark.parametrize("readings", [[], [reading(0.1, 1.0, 1.0, 7)]])
def test_too_few_readings_say_nothing_of_processors(readings: list[Reading]) -> None:
    usage = fold_readings(readings, until_s=3.0, generator_cpu=0.25)
    assert (usage.service_cpu, usage.server_cpu) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("usage", "words"),
    [
        (Usage(0.1, 0.5, 0.5, 0, 0), "no processor"),
        (Usage(0.1, 0.95, 0.5, 0, 0), "the service’s core"),
        (Usage(0.1, 0.5, 1.9, 0, 0), "the server’s cores"),
        (Usage(0.95, 0.95, 0.5, 0, 0), "the service’s core and the generator’s core"),
    ],
)
def test_what_is_used_up_is_named(usage: Usage, words: str) -> None:
    assert name_limit(usage, server_cores=2) == words


@pytest.mark.parametrize(
    ("usable", "waiting", "busy"),
    [
        ((), Cores(), Cores()),
        ((3,), Cores(), Cores()),
        ((0, 1), Cores((0,), (1,), (0, 1)), Cores((0,), (0,), (1,))),
        ((2, 4, 6, 7), Cores((2,), (4,), (6, 7)), Cores((2,), (4,), (6, 7))),
    ],
)
def test_cores_are_shared_out(usable: tuple[int, ...], waiting: Cores, busy: Cores) -> None:
    assert cores.share_out(usable) == waiting
    assert cores.share_out_busy(usable) == busy


def test_who_has_which_cores_is_said() -> None:
    assert cores.describe(Cores((0,), (1,), (0, 1))) == "generator 0, service 1, server 0 1"
    assert cores.describe(Cores()) == "any"
