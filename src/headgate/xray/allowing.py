"""Functions that may do what otherwise fails a test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePath
from typing import Any, NamedTuple, TypeVar

from headgate.xray.observation import Site

Function = TypeVar("Function", bound=Callable[..., Any])

_hold_ok: set[tuple[str, str]] = set()
"""By file and qualified name."""


def hold_ok(function: Function) -> Function:
    """Let a function, and whatever it awaits, hold a connection meanwhile: the pytest plugin does not mind it.

    Put it above other decorators; on a test it is for all that the test's own code does.
    """
    inner: Any = function
    while inner is not None:
        code = getattr(inner, "__code__", None)
        if code is not None:
            _hold_ok.add((code.co_filename, code.co_qualname))
        inner = getattr(inner, "__wrapped__", None)
    return function


def is_hold_ok(site: Site) -> bool:
    """Whether a line is in a function that is marked so."""
    return (site.file, site.function) in _hold_ok


class Allowed(NamedTuple):
    """A function by its name, ``package.module:function`` or ``package.module:Class.method``."""

    module: tuple[str, ...]
    function: str

    def is_at(self, site: Site) -> bool:
        """Whether a line is in it."""
        path = PurePath(site.file).with_suffix("").parts
        if path[-1:] == ("__init__",):
            path = path[:-1]
        return self.function == plain_name(site) and path[-len(self.module) :] == self.module


def plain_name(site: Site) -> str:
    """The qualified name of a line's function, as people write it."""
    return site.function.replace(".<locals>", "")


def parse_allowed(text: str) -> Allowed:
    """Read a function's name.

    :raises ValueError: it is none.
    """
    module, colon, function = text.strip().partition(":")
    if not (module and colon and function):
        raise ValueError(f"{text!r} is no function; write package.module:function or package.module:Class.method")
    return Allowed(tuple(module.split(".")), function.strip())
