"""Where the time of an arm goes, by looking at the stack a thousand times a second.

A tracing profiler makes small functions look expensive and loses its way where greenlets switch; a sample does
neither. It costs about one per cent, and sees time spent waiting for the server as well.
"""

from __future__ import annotations

import signal
import sysconfig
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from interleaved import Arm, run_undisturbed

INTERVAL_S = 0.001
WAITING = "waiting for the server (async)"
LOOP = "the event loop, the standard library"
STANDARD_LIBRARY = sysconfig.get_paths()["stdlib"]
SITE_PACKAGES = sysconfig.get_paths()["purelib"]
HERE = str(Path(__file__).parent)
FRAMES = 40


@dataclass(frozen=True, slots=True)
class Profile:
    """Microseconds of one operation, by layer and by function; ``samples`` says how far to trust them."""

    samples: int
    operation_us: float
    layers: list[tuple[str, float]]
    functions: list[tuple[str, float]]


def profile(arm: Arm, operations: int, seconds: float) -> Profile:
    """Sample an arm for about so long; it should be warm already."""
    layers: Counter[str] = Counter()
    functions: Counter[str] = Counter()

    def look(_number: int, frame: FrameType | None) -> None:
        layer, function = attribute(frame)
        layers[layer] += 1
        functions[function] += 1

    took_ns = done = 0
    deadline_s = time.monotonic() + seconds
    before = signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, INTERVAL_S, INTERVAL_S)
    try:
        while time.monotonic() < deadline_s:
            took_ns += run_undisturbed(arm, operations)
            done += operations
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    operation_us = took_ns / done / 1e3
    return Profile(sum(layers.values()), operation_us, _scale(layers, operation_us), _scale(functions, operation_us))


def _scale(counts: Counter[str], operation_us: float) -> list[tuple[str, float]]:
    total = counts.total()
    return [(name, count / total * operation_us) for name, count in counts.most_common()]


def attribute(frame: FrameType | None) -> tuple[str, str]:
    """Layer and function of a sample: the innermost frame that is not the standard library's."""
    if frame is not None and frame.f_code.co_name == "select":
        return WAITING, WAITING
    for inner in _outwards(frame):
        file = inner.f_code.co_filename
        if file.startswith(HERE):
            return (LOOP, LOOP) if inner is not frame else ("the benchmark", inner.f_code.co_qualname)
        if not file.startswith(STANDARD_LIBRARY) or file.startswith(SITE_PACKAGES):
            return _layer(inner.f_globals), f"{inner.f_globals.get('__name__', '?')}.{inner.f_code.co_qualname}"
    return LOOP, LOOP


def _outwards(frame: FrameType | None) -> Iterator[FrameType]:
    for _ in range(FRAMES):
        if frame is None:
            return
        yield frame
        frame = frame.f_back


def _layer(module: dict[str, Any]) -> str:
    """A package; of SQLAlchemy and of Headgate the room inside."""
    parts = str(module.get("__name__", "?")).split(".")
    depth = 2 if parts[0] in ("sqlalchemy", "headgate") else 1
    return ".".join(parts[:depth])


def print_profile(found: Profile, functions: int = 40) -> None:
    print(f"{found.operation_us:,.1f} µs an operation, {found.samples:,} samples")
    for title, rows in (("by layer", found.layers), ("by function", found.functions[:functions])):
        print(f"  own time in µs of one operation, {title}")
        for name, spent_us in rows:
            print(f"    {spent_us:8.1f}  {spent_us / found.operation_us:6.1%}  {name}")
    print()
