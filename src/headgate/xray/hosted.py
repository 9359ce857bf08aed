"""In the service's own process: imports the app as it is, watches it, and answers what the X-ray asks."""

from __future__ import annotations

import importlib
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any, Final

from headgate.xray.databases import Databases
from headgate.xray.observation import encode
from headgate.xray.pool_sizes import pools_of
from headgate.xray.watch import Watch

GRACE_S: Final = 0.5
"""A client has its answer before the app has done with the request."""

_MOST_WRAPPED: Final = 20


def make_app(configuration: Mapping[str, Any]) -> Any:
    """Watch first, then import: what the app makes on import is seen too.

    :param configuration: ``app`` (``module:attribute``), ``is_factory``, ``directories`` to import from,
        ``against``, the hosts of databases that may be met, and ``pool_size``, if the app's own is not to count.
    """
    global _watch, _app
    sys.path[:0] = configuration["directories"]
    _watch = Watch(Databases(configuration["against"]))
    _watch.open()
    if configuration["pool_size"] is not None:
        pools_of(configuration["pool_size"])
    module, _, path = configuration["app"].partition(":")
    found: Any = importlib.import_module(module)
    for name in path.split("."):
        found = getattr(found, name)
    _app = found() if configuration["is_factory"] else found
    return _app


def obey(order: dict[str, Any]) -> dict[str, Any]:
    """Answer an order; with ``error`` what went wrong, and with ``refused`` why a database was barred."""
    assert _watch is not None
    try:
        found = _ORDERS[order["do"]](_watch)
    except Exception as error:  # the owner waits for an answer
        traceback.print_exc()
        found = {"error": f"{type(error).__name__}: {error}"}
    return {**found, "refused": _watch.databases.refused}


def _databases(watch: Watch) -> dict[str, Any]:
    return {"databases": watch.databases.shown()}


def _begin(watch: Watch) -> dict[str, Any]:
    """Forget what was seen so far."""
    watch.begin_anew()
    return _databases(watch)


def _observe(watch: Watch) -> dict[str, Any]:
    """What was observed; who has had his answer is given a moment to end."""
    until = time.monotonic() + GRACE_S
    while watch.live.requests and time.monotonic() < until:
        time.sleep(0.01)
    return {"observation": encode(watch.observe(with_unfinished=True))}


def _openapi(_: Watch) -> dict[str, Any]:
    """The app's schema; None if it has none. Middleware around the app keeps it in ``app``."""
    found: Any = _app
    for _layer in range(_MOST_WRAPPED):
        make_schema = getattr(found, "openapi", None)
        if callable(make_schema):
            return {"openapi": make_schema()}
        found = getattr(found, "app", None)
    return {"openapi": None}


_ORDERS: Final[dict[str, Callable[[Watch], dict[str, Any]]]] = {
    "databases": _databases,
    "begin": _begin,
    "observe": _observe,
    "openapi": _openapi,
}

_watch: Watch | None = None
"""The one of this process."""

_app: Any = None
