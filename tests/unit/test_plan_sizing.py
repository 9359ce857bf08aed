from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.ceilings import ceiling
from headgate.errors import ConfigError
from headgate.sizing import (
    ANYIO_THREADS,
    LEAST_CONNECTIONS,
    UTILISATION,
    Fit,
    Plan,
    Server,
    Work,
    count_busy,
    count_needed,
    make_plan,
)


@pytest.mark.parametrize(
    ("busy", "needed"),
    [
        pytest.param(12.0, 16, id="many: at most 75 % busy"),
        pytest.param(2.4, 4, id="few: the square root"),
        pytest.param(0.01, 1, id="hardly any"),
        pytest.param(3 * 0.1 / 0.1, 5, id="a rounding error is no reason for one more"),
        pytest.param(0.0, 1, id="none"),
    ],
)
def test_places_for_a_number_of_busy_ones(busy: float, needed: int) -> None:
    assert count_needed(busy) == needed


def test_littles_law_is_the_ceilings_inverse() -> None:
    assert count_busy(ceiling(15, 2.0), 2.0) == pytest.approx(15)


def shape(plan: Plan) -> tuple[Fit, int, int | None]:
    return plan.fit, plan.connections, plan.pool


@pytest.mark.parametrize(
    ("max_connections", "expected"),
    [
        pytest.param(100, (Fit.DIRECT, 4, None), id="room for all"),
        pytest.param(21, (Fit.DIRECT, 4, None), id="just enough: 4 × 4 of 16"),
        pytest.param(20, (Fit.POOLED, 4, 13), id="one too few for four workers, enough for one service"),
        pytest.param(17, (Fit.TIGHT, 3, None), id="9.6 of 12 busy is more than 75 %"),
        pytest.param(14, (Fit.IMPOSSIBLE, 3, 9), id="9.6 of 9"),
    ],
)
def test_how_a_service_fits_its_server(max_connections: int, expected: tuple[Fit, int, int | None]) -> None:
    plan = make_plan(Work(rate=400, hold_s=0.012, leases=2), Server(max_connections), workers=4)
    assert plan.busy == pytest.approx(9.6)
    assert shape(plan) == expected


def test_the_share_of_a_server_that_is_too_small_needs_no_pooler_if_it_comes_out_even() -> None:
    work = Work(rate=400, hold_s=0.012, leases=2)
    assert make_plan(work, Server(17), workers=4).pool is None
    assert make_plan(work, Server(17), workers=5).pool == 12


def test_a_limit_of_the_role_counts_like_the_servers() -> None:
    assert Server(100, limit=10).room == 10
    assert Server(20, limit=50).room == 15


def test_async_endpoints_need_no_threads() -> None:
    assert make_plan(Work(rate=400, hold_s=0.012), Server(), workers=2).threads is None


@pytest.mark.parametrize(
    ("thread_s", "threads"),
    [
        pytest.param(0.05, ANYIO_THREADS, id="anyio's own are enough"),
        pytest.param(0.3, 80, id="60 busy a worker"),
    ],
)
def test_threads_for_sync_endpoints(thread_s: float, threads: int) -> None:
    assert make_plan(Work(rate=400, hold_s=0.012, thread_s=thread_s), Server(), workers=2).threads == threads


def test_threads_bind_where_there_are_fewer_of_them() -> None:
    plan = make_plan(Work(rate=100, hold_s=0.001, thread_s=0.5), Server(), workers=1)
    assert plan.threads == 67
    assert plan.ceiling.constraint == "67 threads ÷ 0.5 s"


def test_no_threads_are_asked_for_that_would_wait_for_a_server_too_small() -> None:
    small = make_plan(Work(rate=10_000, hold_s=0.03, thread_s=0.03), Server(20), workers=1)
    assert small.fit is Fit.IMPOSSIBLE
    assert small.threads == ANYIO_THREADS


def test_a_rolling_restart_has_two_fleets_at_once() -> None:
    work = Work(rate=400, hold_s=0.012, leases=2)
    assert make_plan(work, Server(37), workers=4).can_restart_rolling
    assert not make_plan(work, Server(36), workers=4).can_restart_rolling
    assert make_plan(work, Server(20), workers=4).can_restart_rolling, "PgBouncer lets them wait"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Work(rate=0, hold_s=1), "rate 0 cannot work: give requests a second, more than 0"),
        (lambda: Work(rate=1, hold_s=0), "hold 0 cannot work: give a time above 0"),
        (lambda: Work(rate=1, hold_s=1, leases=0), "leases 0 cannot work"),
        (lambda: Work(rate=1, hold_s=1, leases=2, thread_s=1.5), "seconds in a thread 1.5 cannot work: .* for 2 s"),
        (lambda: Server(0), "max_connections 0 cannot work"),
        (lambda: Server(20, reserved=-1), "reserved -1 cannot work"),
        (lambda: Server(20, others=-1), "others -1 cannot work"),
        (lambda: Server(20, limit=0), "connection limit 0 cannot work"),
        (lambda: Server(5), r"reserved \(3\) and others \(2\) leave no connection"),
        (lambda: make_plan(Work(rate=1, hold_s=1), Server(), workers=0), "workers 0 cannot work: give at least 1"),
    ],
)
def test_what_cannot_work_is_refused_with_value_and_remedy(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


WORKS = st.builds(Work, rate=st.floats(0.01, 1e5), hold_s=st.floats(1e-5, 10.0), leases=st.floats(0.1, 20))
SERVERS = st.builds(Server, max_connections=st.integers(6, 5000), reserved=st.just(3), others=st.just(2))


@given(WORKS, SERVERS, st.integers(1, 64))
def test_no_plan_asks_the_server_for_more_than_it_has(work: Work, server: Server, workers: int) -> None:
    plan = make_plan(work, server, workers)
    assert (plan.pool or plan.all_connections) <= server.room
    assert plan.connections >= LEAST_CONNECTIONS
    assert plan.ceiling.throughput == pytest.approx((plan.pool or plan.all_connections) / work.request_s)


@given(WORKS, SERVERS, st.integers(1, 64))
def test_what_fits_answers_the_load_with_room_to_spare(work: Work, server: Server, workers: int) -> None:
    plan = make_plan(work, server, workers)
    if plan.fit in (Fit.DIRECT, Fit.POOLED):
        assert plan.utilisation <= UTILISATION + 1e-6
        assert plan.ceiling.throughput >= work.rate
        assert plan.busy / workers <= UTILISATION * plan.connections + 1e-6
    elif plan.fit is Fit.TIGHT:
        assert plan.busy < server.room
    else:
        assert plan.ceiling.throughput <= work.rate * (1 + 1e-9)


@given(st.floats(0, 1e4), st.floats(0, 1e4))
def test_more_busy_places_never_need_fewer(one: float, other: float) -> None:
    assert count_needed(min(one, other)) <= count_needed(max(one, other))
    assert count_needed(one) >= math.floor(one)
