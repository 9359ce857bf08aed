"""Keeps database settings of the surroundings away: what the lab connects to is only what it was told."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

# Nothing can exist below a file, so libpq and asyncpg find no ~/.pgpass and no service file.
NOWHERE = os.path.join(os.devnull, "none")
_DISABLED = {"PGPASSFILE": NOWHERE, "PGSERVICEFILE": NOWHERE, "PGSYSCONFDIR": NOWHERE}
_lock = threading.RLock()


def is_ambient(name: str) -> bool:
    """Say whether an environment variable tells libpq, asyncpg or an app which database to use."""
    return name == "DATABASE_URL" or name.startswith("PG")


def clean_environment(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return a child's environment without ambient database settings, password files included."""
    return {name: value for name, value in environment.items() if not is_ambient(name)} | _DISABLED


def service_environment(ambient: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return a service's environment: neither database settings nor Headgate's switches from outside."""
    cleaned = clean_environment(ambient)
    return {name: value for name, value in cleaned.items() if not name.startswith("HEADGATE")}


@contextmanager
def ambient_database_hidden() -> Iterator[None]:
    """Hide ambient database settings from this process: no parameter of libpq overrides ``PGSERVICE``."""
    if not any(map(is_ambient, os.environ)):
        # Nothing is changed then and nobody waits: the usual case, and that of a block inside another.
        yield
        return
    with _lock:
        hidden = {name: os.environ.pop(name) for name in list(os.environ) if is_ambient(name)}
        try:
            yield
        finally:
            os.environ.update(hidden)
