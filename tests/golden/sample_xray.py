"""An observation with something of everything, its figures made up."""

from __future__ import annotations

from headgate.names import (
    CONNECT,
    DATABASE,
    GATE_WAIT,
    HELD_IDLE,
    PHASES,
    SEND,
    SERIALIZE,
    STALLED,
    THREAD_WAIT,
)
from headgate.xray.observation import (
    NOWHERE,
    Awaited,
    HoldSum,
    Mark,
    Observation,
    Offer,
    PoolFacts,
    ProcessFacts,
    RequestSample,
    RouteSum,
    Site,
    Stall,
    StatementSum,
)

MS = 1_000_000
HERE = "/srv/shop"
SLOW = Site(f"{HERE}/app.py", 61, "slow", "await asyncio.sleep(2)")
GET = Site(f"{HERE}/app.py", 60, "slow", "item = await session.get(Item, 1)")
LIST = Site(f"{HERE}/shop/orders.py", 17, "list_orders", "for line in order.lines:")


def times(**phases: float) -> tuple[int, ...]:
    """In milliseconds, by name."""
    return tuple(round(phases.get(phase, 0) * MS) for phase in PHASES)


def sample(
    total_ms: float, *marks: tuple[int, float, float], is_slow: bool = False, came_ms: float = 0, **phases: float
) -> RequestSample:
    placed: tuple[Mark, ...] = tuple((phase, round(one * MS), round(other * MS)) for phase, one, other in marks)
    named = times(**phases)
    named = (*named[:-1], round(total_ms * MS) - sum(named[:-1]))
    return RequestSample(is_slow, round(came_ms * MS), round(total_ms * MS), 200, named, placed)


def slow_route() -> RouteSum:
    def one(waited: float, **more: float | bool) -> RequestSample:
        return sample(
            waited + 2_006,
            (GATE_WAIT, 0.5, waited + 0.5),
            (HELD_IDLE, waited + 0.5, waited + 2_005),
            (DATABASE, waited + 1, waited + 4),
            (SERIALIZE, waited + 2_005, waited + 2_005.4),
            (SEND, waited + 2_005.4, waited + 2_006),
            gate_wait=waited,
            database=3,
            held_idle=2_001.5,
            serialize=0.4,
            send=0.6,
            **more,
        )

    return RouteSum(
        route="GET /slow",
        count=240,
        times_ns=times(gate_wait=3_600_000, database=720, held_idle=480_000, serialize=96, send=144, unattributed=120),
        statuses={"200": 225, "500": 15},
        latencies_ns=tuple(round((2_006 + 130 * n) * MS) for n in range(240)),
        thread_runs=0,
        thread_wait_ns=0,
        thread_run_ns=0,
        holds=(
            HoldSum(
                "QueuePool",
                GET,
                240,
                480_720 * MS,
                720 * MS,
                0,
                (Awaited(SLOW, "asyncio.sleep", 0.998), Awaited(NOWHERE, "its own code", 0.002)),
            ),
        ),
        statements=(
            StatementSum("SELECT item.id, item.name FROM item WHERE item.id = $1::INTEGER", GET, 240, 240, 1, 720 * MS),
        ),
        holders={"QueuePool": 240},
        unfinished=3,
        samples=(
            one(29_900.0, is_slow=True, came_ms=4_700),
            one(200.0, came_ms=120),
            one(15_100.0, came_ms=2_500),
            one(14_000.0, came_ms=2_300),
        ),
    )


def orders_route() -> RouteSum:
    marks = (
        (THREAD_WAIT, 0, 2),
        (CONNECT, 2, 6),
        (HELD_IDLE, 2, 40),
        *((DATABASE, 8 + 3 * n, 9 + 3 * n) for n in range(10)),
        (STALLED, 36, 38),
        (SEND, 40, 41),
    )
    one = sample(44, *marks, thread_wait=2, connect=4, held_idle=22, database=10, stalled=2, send=1, came_ms=30)
    return RouteSum(
        route="GET /orders/{id}",
        count=100,
        times_ns=times(
            thread_wait=200, connect=400, held_idle=2_200, database=1_000, stalled=200, send=100, unattributed=300
        ),
        statuses={"200": 100},
        latencies_ns=(44 * MS,) * 100,
        thread_runs=100,
        thread_wait_ns=200 * MS,
        thread_run_ns=4_000 * MS,
        holds=(HoldSum("QueuePool", LIST, 100, 3_800 * MS, 1_000 * MS, 90 * MS),),
        statements=(
            StatementSum(
                "SELECT line.id FROM line WHERE ? = line.order_id", LIST, 1_000, 100, 10, 1_000 * MS, "Order.lines"
            ),
        ),
        holders={"QueuePool": 100},
        samples=(one,),
    )


def sample_observation() -> Observation:
    return Observation(
        process=ProcessFacts(cores=8, threads=40, wall_ns=35_000 * MS, cpu_ns=2_100 * MS, loop_cpu_ns=1_700 * MS),
        routes=(
            slow_route(),
            orders_route(),
            RouteSum("GET /ping", 500, times(unattributed=250), {"200": 500}, (MS // 2,) * 500, 0, 0, 0),
        ),
        pools=(
            PoolFacts(
                "QueuePool",
                "AsyncAdaptedQueuePool",
                15,
                timeouts=260,
                opened=15,
                refused="sorry, too many clients already",
                held_ns=520_000 * MS,
                most=15,
            ),
        ),
        stalls=(
            Stall(
                "code",
                Site(f"{HERE}/app.py", 80, "block", "time.sleep(0.2)"),
                "",
                4,
                812 * MS,
                206 * MS,
                37,
                "GET /block",
            ),
            Stall("collection", NOWHERE, "", 1, 60 * MS, 60 * MS, 2),
        ),
        offers=(
            Offer("GET /slow", "GET /slow", 500, 225, {"timeout": 260}, 100.0, 6.4, 15_000 * MS),
            Offer("GET /orders/1 and 1 more", "GET /orders/{id}", 100, 100, {}, 20.0, 19.8, 45 * MS, 10),
            Offer("GET /ping", "GET /ping", 500, 500, {}, 100.0, 99.8, MS),
            Offer("GET /gone", "GET /gone", 10, 0, {"timeout": 10}, 2.0, 0.0, 0),
        ),
        leaks=(HoldSum("QueuePool", GET, 2, 0, 0, 0),),
        paths={"GET /orders/1": "GET /orders/{id}"},
        notes=("<script>alert('a note')</script>",),
        about={"app": "shop.app:app", "at": "2026-11-20 19:00:00 UTC", "headgate": "0.1", "directory": HERE},
    )
