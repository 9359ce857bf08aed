"""A statement's shape: its text without what it is about, so that nothing of a user's is kept or shown. Pure."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

MOST_TEXT: Final = 4_000
"""Characters; the rest of a statement is left out."""

_PIECES: Final = re.compile(
    r"""
      (?P<literal>
        [eE]'(?:[^'\\]|\\.|'')*(?:'|\Z)            # what is cut off within a literal ends with the text
      | [xXbBnN]?'(?:[^']|'')*(?:'|\Z)
      | \$(?P<tag>[A-Za-z_]\w*)\$.*?(?:\$(?P=tag)\$|\Z)
      | \$\$.*?(?:\$\$|\Z)
      | (?<![\w$:.%])\d+(?:\.\d+)?(?:[eE][+-]?\d+)?\b
      )
    | (?P<comment>--[^\n]*|/\*.*?(?:\*/|\Z))
    | (?P<kept>"(?:[^"]|"")*"|`[^`]*`|%\(\w+\)s|[$:]\w+|\w+)
    | (?P<space>\s+)
    """,
    re.VERBOSE | re.DOTALL,
)
_SPACES: Final = re.compile(" {2,}")
_ONE: Final = r"(?:\?|%s|%\(\w+\)s|[$:]\w+)(?:::[\w ]+(?:\(\?(?:, ?\?)?\))?(?:\[\])?)?"
_MANY: Final = re.compile(rf"\({_ONE}(?:, ?{_ONE})+\)(?:, ?\({_ONE}(?:, ?{_ONE})*\))*")


@lru_cache(maxsize=1_000)
def statement_shape(text: str) -> str:
    """The statement with ``?`` for each literal, ``(…)`` for a list of values, and without comments.

    Parameters are not in a text at all, but a program may write a value into it.
    """
    shape = _SPACES.sub(" ", _PIECES.sub(_piece, text[:MOST_TEXT])).strip()
    shape = _MANY.sub("(…)", shape)
    return f"{shape} …" if len(text) > MOST_TEXT else shape


def _piece(found: re.Match[str]) -> str:
    if found["literal"] is not None:
        return "?"
    return found["kept"] or (" " if found["space"] is not None else "")
