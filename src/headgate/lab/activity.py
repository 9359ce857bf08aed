"""Watches what the connections of an arm do: samples of ``pg_stat_activity``."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from sqlalchemy.engine import URL

from headgate.lab.connection import connect
from headgate.lab.results import ConnectionStates

if TYPE_CHECKING:
    import psycopg

APPLICATION_NAME = "headgate-lab-observer"

_INTERVAL_NS = 100_000_000
_JOIN_SECONDS = 5.0
_QUERY = """
SELECT
    count(*) FILTER (WHERE state = 'active'),
    count(*) FILTER (WHERE state = 'idle'),
    count(*) FILTER (WHERE state IN ('idle in transaction', 'idle in transaction (aborted)'))
FROM pg_stat_activity
WHERE datname = current_database() AND backend_type = 'client backend' AND application_name <> %s
"""

Sample = tuple[float, int, int, int]
"""Seconds since the start, active, idle, idle in transaction."""


def fold_samples(samples: Sequence[Sample]) -> ConnectionStates:
    """Return the samples with their maxima; the mean weighs every sample alike, 0.0 without samples."""
    return ConnectionStates(
        samples=tuple(samples),
        max_active=max((active for _, active, _, _ in samples), default=0),
        max_idle=max((idle for _, _, idle, _ in samples), default=0),
        max_idle_in_transaction=max((held for _, _, _, held in samples), default=0),
        mean_idle_in_transaction=sum(held for _, _, _, held in samples) / max(1, len(samples)),
    )


def look_once(url: URL) -> ConnectionStates:
    """Return what the client connections of a database do now. Raises psycopg.OperationalError."""
    with connect(url, application_name=APPLICATION_NAME) as connection:
        return fold_samples([(0.0, *_count_states(connection))])


def _count_states(connection: psycopg.Connection[Any]) -> tuple[int, int, int]:
    row = connection.execute(_QUERY, [APPLICATION_NAME]).fetchone()
    assert row is not None
    return row[0], row[1], row[2]


def next_due_ns(now_ns: int, start_ns: int, interval_ns: int) -> int:
    """Return the first moment after ``now_ns`` on the grid that begins at ``start_ns``."""
    return start_ns + ((now_ns - start_ns) // interval_ns + 1) * interval_ns


class ActivityObserver:
    """Samples the client connections of one database, its own aside, every 100 ms in a thread of its own.

    While the server is away there are no samples, only ``missed``; when it is back, they go on.

    :param url: the database to watch; read before anything of the arm connects or while it runs.
    :raises psycopg.OperationalError: on start, when the server cannot be reached.
    """

    def __init__(
        self, url: URL, *, interval_ns: int = _INTERVAL_NS, clock: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self._url = url
        self._interval_ns = interval_ns
        self._clock = clock
        self._samples: list[Sample] = []
        self._missed = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=APPLICATION_NAME, daemon=True)
        self._connection: psycopg.Connection[Any] | None = None

    def __enter__(self) -> Self:
        self._connection = self._connect()
        self._start_ns = self._clock()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        # A frozen server does not answer; its observer is left to the interpreter's end then.
        self._thread.join(_JOIN_SECONDS)

    @property
    def missed(self) -> int:
        """Samples that could not be taken as the server was away."""
        return self._missed

    def states(self) -> ConnectionStates:
        """Return what has been seen so far."""
        return fold_samples(list(self._samples))

    def _connect(self) -> psycopg.Connection[Any]:
        return connect(self._url, application_name=APPLICATION_NAME)

    def _run(self) -> None:
        import psycopg

        due_ns = self._start_ns
        while not self._stop.wait(max(0, due_ns - self._clock()) / 1e9):
            try:
                self._take_sample()
            except psycopg.OperationalError:
                self._missed += 1
                self._disconnect()
            due_ns = next_due_ns(self._clock(), self._start_ns, self._interval_ns)
        self._disconnect()

    def _take_sample(self) -> None:
        if self._connection is None:
            self._connection = self._connect()
        taken_ns = self._clock() - self._start_ns
        self._samples.append((round(taken_ns / 1e9, 3), *_count_states(self._connection)))

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
