"""Values of the command line that several commands take."""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import TypeVar

from headgate.errors import LoadError

Number = TypeVar("Number", Fraction, int)
Default = TypeVar("Default")

# No exponents: 1e999999999 would take all memory to be exact.
_DECIMAL = re.compile(r"[+-]?\d{1,15}(\.\d{1,15})?", re.ASCII)
_WHOLE = re.compile(r"[+-]?\d{1,15}", re.ASCII)


def header(line: str) -> tuple[str, str]:
    """``Name: value`` as a pair. Raises LoadError."""
    name, colon, value = line.partition(":")
    if not colon:
        raise LoadError("a --header has no colon; write it as 'Name: value'")  # not shown: may be a secret
    return name.strip(), value.strip()


def body(text: str) -> bytes:
    """Text, or what is in ``@FILE``. Raises LoadError."""
    if not text.startswith("@"):
        return text.encode()
    try:
        return Path(text[1:]).read_bytes()
    except OSError as error:
        raise LoadError(f"cannot read --body {text}: {error.strerror}; give an existing file") from error


def given(option: str, text: str | None, kind: Callable[[str], Number], default: Default) -> Number | Default:
    """A number, or the default where none is given. Raises LoadError."""
    return default if text is None else number(option, text, kind)


def number(option: str, text: str, kind: Callable[[str], Number]) -> Number:
    """A number. Raises LoadError that names the option."""
    if not (_WHOLE if kind is int else _DECIMAL).fullmatch(text):
        what = "a whole number" if kind is int else "a number"
        raise LoadError(f"{option} {text!r} is not {what}; write it as {option} 100")
    return kind(text)
