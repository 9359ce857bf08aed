"""In the service's own process: imports the app as it is, watches it, and answers what the X-ray asks."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from typing import Any

from headgate.xray.databases import Databases
from headgate.xray.observation import encode
from headgate.xray.watch import Watch


def make_app(configuration: Mapping[str, Any]) -> Any:
    """Watch first, then import: what the app makes on import is seen too.

    :param configuration: ``app`` (``module:attribute``), ``is_factory``, ``directories`` to import from, and
        ``against``, the hosts of databases that may be met.
    """
    global _watch
    sys.path[:0] = configuration["directories"]
    _watch = Watch(Databases(configuration["against"]))
    _watch.open()
    module, _, path = configuration["app"].partition(":")
    found: Any = importlib.import_module(module)
    for name in path.split("."):
        found = getattr(found, name)
    return found() if configuration["is_factory"] else found


def obey(order: dict[str, Any]) -> dict[str, Any]:
    """Answer ``begin``, which forgets what was seen so far, and ``observe``."""
    assert _watch is not None
    if order["do"] == "begin":
        _watch.begin_anew()
        return {"databases": _watch.databases.shown()}
    return {"observation": encode(_watch.observe())}


_watch: Watch | None = None
"""The one of this process."""
