"""Environment variables from a file, as ``uvicorn --env-file`` takes them. Pure.

``NAME=value`` a line, with or without ``export``; quotes, comments and ``${NAME}`` as usual. What is set already stays.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from headgate.errors import XrayError

_LINE: Final = re.compile(r"(?:export\s+)?(?P<name>[A-Za-z_][A-Za-z0-9_.]*)\s*=\s*(?P<value>.*)", re.DOTALL)
_QUOTED: Final = re.compile(r"""(?:"(?P<double>(?:[^"\\]|\\.)*)"|'(?P<single>[^']*)')\s*(?:\#.*)?""", re.DOTALL)
_REFERENCE: Final = re.compile(r"\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}")
_ESCAPES: Final = {"n": "\n", "r": "\r", "t": "\t"}


def read_environment(text: str, ambient: Mapping[str, str], *, source: str = "the file") -> dict[str, str]:
    """The environment with a file's variables added to it.

    :raises XrayError: a line is not ``NAME=value``; the message has its number and nothing of what it says.
    """
    found: dict[str, str] = {}
    for number, raw in enumerate(text.removeprefix("\ufeff").splitlines(), start=1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        value = None if match is None else _value(match["value"], {**found, **ambient})
        if match is None or value is None:
            raise XrayError(f"line {number} of {source} cannot be read; write it as NAME=value, or NAME='value'")
        found[match["name"]] = value
    return {**found, **ambient}


def _value(text: str, known: Mapping[str, str]) -> str | None:
    """A value as it is meant; None if its quotes do not close."""
    if text[:1] not in ("'", '"'):
        return _expand(re.split(r"\s#", f" {text}", maxsplit=1)[0].strip(), known)
    match = _QUOTED.fullmatch(text)
    if match is None:
        return None
    if match["single"] is not None:
        return match["single"]
    return _expand(re.sub(r"\\(.)", lambda one: _ESCAPES.get(one[1], one[1]), match["double"]), known)


def _expand(text: str, known: Mapping[str, str]) -> str:
    return _REFERENCE.sub(lambda one: known.get(one["name"], one["default"] or ""), text)
