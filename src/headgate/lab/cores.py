"""Keeps generator, service and database server off each other's cores, where the system lets a process choose."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from headgate.lab.experiment import Cores


def usable() -> tuple[int, ...]:
    """Return the cores this process may run on; empty where it may not choose among them."""
    return tuple(sorted(os.sched_getaffinity(0))) if sys.platform == "linux" else ()


def share_out(cores: Sequence[int]) -> Cores:
    """Return cores for a server that mostly waits: the generator's, the service's, and for the server the rest.

    With two cores the server runs on both; with one nothing is pinned.
    """
    if len(cores) < 2:
        return Cores()
    return Cores(tuple(cores[:1]), tuple(cores[1:2]), tuple(cores[2:]) or tuple(cores))


def share_out_busy(cores: Sequence[int]) -> Cores:
    """Return cores for a server that computes: with two cores, it has one, and all others share the other."""
    if len(cores) != 2:
        return share_out(cores)
    return Cores(tuple(cores[:1]), tuple(cores[:1]), tuple(cores[1:]))


def describe(cores: Cores) -> str:
    """Return in words who has which cores."""
    parts = {"generator": cores.generator, "service": cores.service, "server": cores.server}
    shown = [f"{part} {' '.join(map(str, numbers))}" for part, numbers in parts.items() if numbers]
    return ", ".join(shown) or "any"


@contextmanager
def running_on(cores: Sequence[int]) -> Iterator[None]:
    """Run this thread, and processes it starts meanwhile, on these cores; on any if there are none."""
    if not cores or sys.platform != "linux":
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def server_on(pid: int | None, cores: Sequence[int]) -> Iterator[None]:
    """Let the server ``pid`` start its backends on these cores; those it has already stay where they are."""
    if pid is None or not cores or sys.platform != "linux":
        yield
        return
    before = os.sched_getaffinity(pid)
    os.sched_setaffinity(pid, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(pid, before)
