"""Which resource binds a route, and what it allows."""

from __future__ import annotations

import pytest

from headgate.xray.constraints import Constraint, binding_constraint, constraints
from headgate.xray.observation import Observation, RouteSum, Stall

from .xray_facts import LINE, MS, POOL, S, held_route, hold, observation, pool, process, route, times


def binding(observed: Observation, of: RouteSum | None = None) -> Constraint | None:
    return binding_constraint(constraints(observed, of or observed.routes[0]))


def test_connections_that_are_used_up_and_waited_for() -> None:
    found = binding(observation(held_route(), pools=(pool(held_ns=150 * S),)))
    assert found is not None
    assert (found.kind, found.limit, found.hold_s, found.wait_s) == ("connections", 15, 2.0, 5.0)
    assert found.rate == 7.5
    assert found.used == pytest.approx(150 / (15 * 12))


@pytest.mark.parametrize(
    ("held_s", "wait_s"),
    [pytest.param(60, 5.0, id="waited for, but not used up"), pytest.param(150, 0.0001, id="used up, not waited for")],
)
def test_one_of_the_two_is_not_enough(held_s: int, wait_s: float) -> None:
    assert binding(observation(held_route(wait_s=wait_s), pools=(pool(held_ns=held_s * S),))) is None


def sync_route(*, run_s: float, gate_wait_s: float, held_s: float, thread_wait_s: float) -> RouteSum:
    """A thousand requests in threads, over ten seconds."""
    return route(
        count=1_000,
        times_ns=times(
            gate_wait=round(1_000 * gate_wait_s * S),
            thread_wait=round(1_000 * thread_wait_s * S),
            database=round(1_000 * held_s * S),
        ),
        thread_runs=1_000,
        thread_run_ns=round(1_000 * run_s * S),
        holds=(hold(1_000, round(1_000 * held_s * S), pool="QueuePool"),),
        holders={"QueuePool": 1_000},
    )


def test_threads_that_wait_for_connections_are_not_the_limit() -> None:
    sync = sync_route(run_s=0.4, gate_wait_s=0.25, held_s=0.15, thread_wait_s=1.0)
    found = binding(observation(sync, pools=(pool(name="QueuePool", kind="QueuePool", held_ns=150 * S),)))
    assert found is not None
    assert (found.kind, found.rate) == ("connections", pytest.approx(100))


def test_threads_are_the_limit_if_there_are_connections_for_all_of_them() -> None:
    sync = sync_route(run_s=0.4, gate_wait_s=0.0, held_s=0.4, thread_wait_s=1.0)
    roomy = pool(name="QueuePool", kind="QueuePool", limit=60, held_ns=400 * S)
    found = binding(observation(sync, pools=(roomy,)))
    assert found is not None
    assert (found.kind, found.limit, found.rate) == ("threads", 40, pytest.approx(100))


def test_one_core() -> None:
    found = binding(observation(route(count=900), process=process(cpu_ns=9 * S, loop_cpu_ns=9 * S)))
    assert found is not None
    assert (found.kind, found.limit, found.rate) == ("core", 1, pytest.approx(100))


def test_more_than_one_core_is_used_only_outside_of_the_interpreters_lock() -> None:
    threads = sync_route(run_s=0.02, gate_wait_s=0, held_s=0.02, thread_wait_s=0)
    found = binding(observation(threads, process=process(cpu_ns=19 * S, loop_cpu_ns=S)))
    assert found is not None
    assert (found.kind, found.limit, found.used) == ("core", 2, pytest.approx(0.95))


def test_cores_that_others_use_up_in_threads_do_not_bind_what_runs_on_a_free_loop() -> None:
    ping = route("GET /ping")
    threads = sync_route(run_s=0.02, gate_wait_s=0, held_s=0.02, thread_wait_s=0)
    assert binding(observation(ping, threads, process=process(cpu_ns=19 * S, loop_cpu_ns=S))) is None


def test_an_event_loop_that_is_kept_without_computing() -> None:
    blocked = Stall("code", LINE, "", 40, 8 * S, S // 5, 0, "GET /slow")
    busy = process(loop_cpu_ns=S, blocked_ns=8 * S)
    slow, ping = route(count=40), route("GET /ping", 1_000)
    observed = observation(slow, ping, process=busy, stalls=(blocked,))
    found = binding(observed)
    assert found is not None
    assert found.kind == "loop"
    assert found.hold_s == pytest.approx(0.2, rel=0.01)
    others = binding(observed, ping)
    assert others is not None
    assert (others.kind, others.is_others_doing, others.main_user) == ("loop", True, "GET /slow")


def test_the_server_is_the_limit_if_it_refuses() -> None:
    refusing = pool(held_ns=30 * S, refused="too many connections", refusals=12, most=4)
    found = binding(observation(held_route(held_s=0.1), pools=(refusing,)))
    assert found is not None
    assert (found.kind, found.limit, found.rate) == ("server", 4, pytest.approx(40))


def test_who_else_holds_the_connections() -> None:
    hog, victim = held_route(count=70), held_route(count=1)
    victim = route("GET /victim", 10, times_ns=victim.times_ns, holds=victim.holds, holders={POOL: 10})
    observed = observation(hog, victim, pools=(pool(held_ns=142 * S),))
    found = binding(observed, victim)
    assert found is not None
    assert (found.kind, found.is_others_doing, found.main_user) == ("connections", True, "GET /slow")
    assert not constraints(observed, hog)[0].is_others_doing


def test_a_pool_without_a_bound_constrains_nobody() -> None:
    unbounded = pool(limit=None, held_ns=900 * S)
    assert [one.kind for one in constraints(observation(held_route(), pools=(unbounded,)), held_route())] == []


def test_a_route_without_requests_divides_nothing_by_zero() -> None:
    quiet = process(wall_ns=0, cpu_ns=0, loop_cpu_ns=0)
    assert constraints(observation(route(count=1), process=quiet), route(count=1)) == []
    assert MS
