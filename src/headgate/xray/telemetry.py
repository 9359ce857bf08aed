"""OpenTelemetry: the metrics of connection pools, by the names of its semantic conventions (status: development).

Needs the API alone; without an SDK nothing is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation, get_meter

from headgate.version import __version__
from headgate.xray.figures import Figures
from headgate.xray.pools import PoolNow

POOL: Final = "db.client.connection.pool.name"
STATE: Final = "db.client.connection.state"

BOUNDS: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10)
"""Seconds; the conventions' own for the duration of an operation."""

Attributes = dict[str, str]
Values = Iterator[tuple[int, Attributes]]


@dataclass(frozen=True, slots=True)
class OpenTelemetry:
    """Give it to ``Production(exports=…)``.

    :ivar provider: by default the global one.
    """

    provider: MeterProvider | None = None

    def start(self, figures: Figures) -> None:
        """Make the instruments."""
        meter = get_meter("headgate", __version__, self.provider)

        def observing(
            values_of: Callable[[PoolNow], Values],
        ) -> list[Callable[[CallbackOptions], Iterable[Observation]]]:
            return [lambda options: [Observation(*value) for pool in figures.pools() for value in values_of(pool)]]

        up_down = meter.create_observable_up_down_counter
        up_down(
            "db.client.connection.count",
            observing(_states),
            "{connection}",
            "The number of connections that are currently in state described by the state attribute.",
        )
        up_down("db.client.connection.max", observing(_limit), "{connection}", "Open connections allowed at most.")
        up_down(
            "db.client.connection.pending_requests",
            observing(_pending),
            "{request}",
            "The number of current pending requests for an open connection.",
        )
        meter.create_observable_counter(
            "db.client.connection.timeouts",
            observing(_timeouts),
            "{timeout}",
            "The number of connection timeouts that have occurred trying to obtain a connection from the pool.",
        )

        def histogram(name: str, description: str) -> Callable[[float, Attributes], None]:
            made = meter.create_histogram(name, "s", description, explicit_bucket_boundaries_advisory=BOUNDS)
            return made.record

        figures.meters.append(
            _Recording(
                create=histogram("db.client.connection.create_time", "The time it took to create a new connection."),
                wait=histogram(
                    "db.client.connection.wait_time", "The time it took to obtain an open connection from the pool."
                ),
                use=histogram(
                    "db.client.connection.use_time",
                    "The time between borrowing a connection and returning it to the pool.",
                ),
            )
        )


@dataclass(frozen=True, slots=True)
class _Recording:
    create: Callable[[float, Attributes], None]
    wait: Callable[[float, Attributes], None]
    use: Callable[[float, Attributes], None]

    def hold(self, pool: str, waited_ns: int, used_ns: int) -> None:
        attributes = {POOL: pool}
        if waited_ns >= 0:
            self.wait(waited_ns / 1e9, attributes)
        self.use(used_ns / 1e9, attributes)

    def creation(self, pool: str, took_ns: int) -> None:
        self.create(took_ns / 1e9, {POOL: pool})


def _states(pool: PoolNow) -> Values:
    yield pool.in_use, {POOL: pool.label, STATE: "used"}
    yield pool.idle, {POOL: pool.label, STATE: "idle"}


def _limit(pool: PoolNow) -> Values:
    if pool.limit is not None:
        yield pool.limit, {POOL: pool.label}


def _pending(pool: PoolNow) -> Values:
    yield pool.pending, {POOL: pool.label}


def _timeouts(pool: PoolNow) -> Values:
    yield pool.timeouts, {POOL: pool.label}
