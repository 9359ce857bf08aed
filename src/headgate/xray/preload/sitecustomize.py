"""Runs in every Python process that ``headgate run`` has started, and has it watched once there is something to watch.

Python imports a module of this name by itself when it starts, and this one is the first on ``PYTHONPATH``; the one it
hides is run at its end. It imports nothing: most of a server's processes, its master and its reloader among them,
never meet a database, and are left as they are.
"""

from __future__ import annotations

import _thread
import os
import sys

TYPE_CHECKING = False  # typing itself would have to be imported
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

LIBRARIES = ("sqlalchemy", "starlette.applications", "fastapi.routing")
AWAITED = ("headgate", *LIBRARIES)
"""Ours too: while the app imports it, it cannot be imported once more."""


class Arrivals:
    """A finder of modules that finds what the others find, and hears when the import of what it awaits is done.

    It stays when all have arrived: another thread may be looking through the finders, and would miss one.
    """

    def __init__(self) -> None:
        self._arrived = {name for name in AWAITED if name in sys.modules}
        self._handled: set[str] = set()
        self._handling = _thread.allocate_lock()

    def begin(self) -> None:
        """Listen from now on; to what has been imported already, at once."""
        sys.meta_path.insert(0, self)
        for name in list(self._arrived):
            self._arrive(name)

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """As of the finders behind; the loader of an awaited module tells."""
        if name not in AWAITED or name in self._arrived:
            return None
        for finder in list(sys.meta_path):
            find_spec = None if finder is self else getattr(finder, "find_spec", None)
            spec = None if find_spec is None else find_spec(name, path, target)
            if spec is not None:
                if hasattr(spec.loader, "exec_module") and hasattr(spec.loader, "create_module"):
                    spec.loader = TellingLoader(spec.loader, self._arrive)
                return spec
        return None

    def _arrive(self, name: str) -> None:
        """Handle an arrival, unless somebody is at one, who will look again: to wait here could be for ever."""
        self._arrived.add(name)
        while self._handled != self._arrived and self._handling.acquire(False):
            try:
                self._handled = set(self._arrived)
                self._watch(self._handled)
            except Exception as error:
                self._give_up(error)
            finally:
                self._handling.release()

    def _watch(self, arrived: set[str]) -> None:
        is_half_imported = "headgate" in sys.modules and "headgate" not in arrived
        if "sqlalchemy" not in arrived or is_half_imported:
            return
        import importlib

        startup = importlib.import_module("headgate.xray.startup")
        startup.watch_process([name for name in LIBRARIES if name in arrived])

    def _give_up(self, error: Exception) -> None:
        self._arrived = self._handled = set(AWAITED)
        complain(error)


class TellingLoader:
    """A module's loader, which tells when the module has been executed."""

    def __init__(self, loader: Any, tell: Callable[[str], None]) -> None:
        self._loader = loader
        self._tell = tell

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: Any) -> Any:
        """As of the loader behind."""
        return self._loader.create_module(spec)

    def exec_module(self, module: Any) -> None:
        """As of the loader behind, which is all the module gets to see."""
        module.__loader__ = module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        self._tell(module.__name__)


def complain(error: BaseException) -> None:
    """One line; the process goes on."""
    message = " ".join(str(error).split())
    try:
        sys.stderr.write(f"headgate run: {sys.executable} is not watched: {type(error).__name__}: {message}\n")
        sys.stderr.flush()
    except Exception:  # a process without standard error
        pass


def run_hidden() -> None:
    """Import the module of this name that Python would have found without this one; whatever it raises is its own."""
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [entry for entry in sys.path if not entry or os.path.abspath(entry) != here]
    ours = sys.modules.pop("sitecustomize", None)
    try:
        __import__("sitecustomize")
    except ImportError as error:
        if error.name != "sitecustomize":
            raise
    finally:
        if ours is not None:
            sys.modules.setdefault("sitecustomize", ours)


if __name__ == "sitecustomize":
    try:
        Arrivals().begin()
    except Exception as error:
        complain(error)
    run_hidden()
