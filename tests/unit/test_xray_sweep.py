"""What pool sizes allow, predicted from one run and measured in others."""

from __future__ import annotations

import pytest

from headgate.names import GATE_WAIT, HELD_IDLE, PHASES, UNATTRIBUTED
from headgate.xray.observation import NOWHERE, HoldSum, Observation, Offer, PoolFacts, ProcessFacts, RouteSum
from headgate.xray.sweep import compare_sizes, format_sweep

S = 1_000_000_000
HOLD_S, RATE, DURATION_S = 0.2, 100.0, 5.0
"""20 connections are needed."""


def observation(
    size: int, throughput: float, *, cpu_s: float = 0.0, runs_s: float = 0.0, threads: int = 40
) -> Observation:
    """Of a route that holds a connection for 0.2 s, and of one that needs none."""
    answered = 500
    times = [0] * len(PHASES)
    times[GATE_WAIT], times[HELD_IDLE] = 10 * answered * S, round(HOLD_S * answered * S)
    quick = [0] * len(PHASES)
    quick[UNATTRIBUTED] = answered * S // 1_000
    held = HoldSum("P", NOWHERE, answered, round(HOLD_S * answered * S), 0, 0)
    thread_ns = round(runs_s * answered * S)
    return Observation(
        process=ProcessFacts(8, threads, 10 * S, round(cpu_s * 2 * answered * S), 0),
        routes=(
            RouteSum(
                "GET /hold", answered, tuple(times), {}, (), answered if runs_s else 0, 0, thread_ns + times[GATE_WAIT],
                (held,), holders={"P": answered},
            ),
            RouteSum("GET /ping", answered, tuple(quick), {}, (), 0, 0, 0),
        ),
        pools=(PoolFacts("P", "QueuePool", size),),
        offers=(
            Offer("GET /hold", "GET /hold", 500, answered, {}, RATE, throughput, S),
            Offer("GET /ping", "GET /ping", 500, answered, {}, RATE, RATE, S),
        ),
    )  # fmt: skip


def test_predictions_are_those_of_littles_law() -> None:
    [sweep] = compare_sizes({size: observation(size, min(96.0, size / HOLD_S)) for size in (5, 10, 20, 40)})
    assert sweep.route == "GET /hold"
    all_of_it = RATE * DURATION_S / (DURATION_S + HOLD_S)
    assert [row.predicted for row in sweep.rows] == pytest.approx([25, 50, all_of_it, all_of_it])
    assert (sweep.predicted_knee, sweep.measured_knee) == (20, 20)
    assert sweep.rows[0].used == pytest.approx(2.0)
    assert "predicted at 20 connections, so with 20 of those tried" in sweep.text
    assert "with more than 20 it did not grow" in sweep.text


@pytest.mark.parametrize(
    ("resource", "knee"), [({"cpu_s": 0.01}, 10), ({"runs_s": 0.8}, 10), ({"runs_s": 0.8, "threads": 80}, 20)]
)
def test_another_resource_moves_the_knee(resource: dict[str, float], knee: int) -> None:
    """200 requests a second at 10 ms of CPU, or 100 at 0.8 s of 40 threads, are twice what can be."""
    [sweep] = compare_sizes({size: observation(size, 40.0, **resource) for size in (5, 40)})  # type: ignore[arg-type]
    assert sweep.predicted_knee == knee


@pytest.mark.parametrize(
    ("throughputs", "measured", "words"),
    [
        ({5: 95.0, 10: 96.0}, 5, "the 5 of the smallest try were enough already"),
        ({5: 25.0, 10: 50.0}, 10, "throughput grew up to the 10 of the largest try"),
    ],
)
def test_knees_at_the_ends_are_said_to_be_there(throughputs: dict[int, float], measured: int, words: str) -> None:
    [sweep] = compare_sizes({size: observation(size, value) for size, value in throughputs.items()})
    assert sweep.measured_knee == measured
    assert words in sweep.text
    assert "more than the 10 tried" in sweep.text


def test_as_a_table() -> None:
    text = format_sweep(compare_sizes({5: observation(5, 24.5), 40: observation(40, 95.0)}))
    assert text.splitlines()[0] == "GET /hold   offered 100/s"
    assert text.splitlines()[1].split() == ["connections", "predicted", "measured", "p50", "answered", "used"]
    assert text.splitlines()[2].split() == ["5", "25/s", "24.5/s", "1.00", "s", "500", "200%"]


def test_without_a_pool_there_is_nothing_to_compare() -> None:
    plain = Observation(ProcessFacts(1, 0, S, 0, 0))
    assert compare_sizes({1: plain, 2: plain}) == ()
