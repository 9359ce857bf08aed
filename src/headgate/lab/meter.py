"""Reads what a service and its database server use while they are under load."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from headgate.hosting.service import Service
from headgate.lab.experiment import Reading
from headgate.lab.results import Usage
from headgate.load.pacer import NS_PER_S

_INTERVAL_S = 0.25
_JOIN_SECONDS = 5.0


class Meter:
    """Takes a reading every quarter of a second in a thread of its own, the first before the block begins.

    :param server_pid: of the database server's first process; None where it is out of reach.
    """

    def __init__(
        self, service: Service, server_pid: int | None, *, clock: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self._service = service
        self._server_pid = server_pid
        self._clock = clock
        self._taken: list[Reading] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="headgate-lab-meter", daemon=True)

    def __enter__(self) -> Self:
        self._take()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(_JOIN_SECONDS)

    def readings(self, start_ns: int) -> tuple[Reading, ...]:
        """Return what was read so far, counted from ``start_ns`` of the clock."""
        taken = list(self._taken)
        return tuple(
            Reading(one.at_ns - start_ns, one.service_cpu_s, one.server_cpu_s, one.memory_bytes) for one in taken
        )

    def _run(self) -> None:
        while not self._stop.wait(_INTERVAL_S):
            with suppress(psutil.NoSuchProcess):  # a service that has died is found out by its own check
                self._take()

    def _take(self) -> None:
        service = psutil.Process(self._service.pid)
        with service.oneshot():
            times, memory = service.cpu_times(), service.memory_info()
        self._taken.append(
            Reading(self._clock(), times.user + times.system, family_cpu_seconds(self._server_pid), int(memory.rss))
        )


def family_cpu_seconds(pid: int | None) -> float:
    """Return the CPU time of a process, of its living children, and of those it has waited for."""
    if pid is None:
        return 0.0
    parent = psutil.Process(pid)
    times = parent.cpu_times()
    spent = times.user + times.system + times.children_user + times.children_system
    for child in _children(pid):
        with suppress(psutil.NoSuchProcess):
            own = psutil.Process(child).cpu_times()
            spent += own.user + own.system
    return spent


def _children(pid: int) -> list[int]:
    """Linux tells a process's children at once; psutil looks at every process for it, and the generator waits."""
    told = Path(f"/proc/{pid}/task/{pid}/children")
    try:
        return [int(child) for child in told.read_text().split()]
    except FileNotFoundError:
        return [child.pid for child in psutil.Process(pid).children()]


def fold_readings(readings: Sequence[Reading], *, until_s: float, generator_cpu: float) -> Usage:
    """Return what was used while the load was offered, which is until ``until_s``; memory also after that.

    Processors are means over the readings within; 0 with fewer than two.
    """
    within = [one for one in readings if 0 <= one.at_ns <= until_s * NS_PER_S]
    first, last = (within[0], within[-1]) if within else (None, None)
    lasted_s = (last.at_ns - first.at_ns) / NS_PER_S if first and last else 0.0
    memory = [one.memory_bytes for one in readings] or [0]
    if not (first and last and lasted_s):
        return Usage(generator_cpu, 0.0, 0.0, memory[0], max(memory))
    return Usage(
        generator_cpu=generator_cpu,
        service_cpu=(last.service_cpu_s - first.service_cpu_s) / lasted_s,
        server_cpu=max(0.0, last.server_cpu_s - first.server_cpu_s) / lasted_s,
        memory_start=memory[0],
        memory_peak=max(memory),
    )
