"""Functions that answer for what a connection has written last, which may not be the one that a session wrote on."""

from __future__ import annotations

import re
from typing import Final

from headgate.errors import LeaseError
from headgate.sql_words import GRAMMARS, UnknownTextError, split_text
from headgate.statements import Family

OWN_VALUES: Final[dict[Family, tuple[str, ...]]] = {
    "postgresql": ("currval", "lastval"),
    "sqlite": ("last_insert_rowid", "changes", "total_changes"),
}

_NAMED_AFTER = frozenset({"exists", "function", "into", "references", "table", "view", "with"})
"""What comes after these is the name of a thing, and the parenthesis begins its columns."""


def refuse_own_values(sql: object, family: Family) -> None:
    """Refuse a statement on another connection than the one that its session wrote on.

    :raises LeaseError: it asks for something that only that one knows.
    """
    asked = find_own_value(sql, family) if type(sql) is str else None
    if asked is not None:
        raise LeaseError(
            f"{asked}() answers for the physical connection, and somebody else has had it since this one wrote: "
            "it went back at the end of that transaction.\n"
            "Remedies: 1. use RETURNING. 2. ask before the commit."
        )


def find_own_value(sql: str, family: Family) -> str | None:
    """Name of a function in ``sql`` that answers for the connection's own writes; None if it calls no such function."""
    text = sql.lower()
    names = [name for name in OWN_VALUES[family] if name in text]
    if not names:
        return None
    try:
        tokens = split_text(sql, GRAMMARS[family])
    except UnknownTextError:
        return next((name for name in names if re.search(rf'\b{name}"?\s*\(', text)), None)
    return next((name for name in names if _calls(tokens, name)), None)


def _calls(tokens: list[str], name: str) -> bool:
    places = (at for at, token in enumerate(tokens) if token.strip('"') == name and tokens[at + 1] == "(")
    return any(_word_before(tokens, at) not in _NAMED_AFTER for at in places)


def _word_before(tokens: list[str], at: int) -> str:
    while tokens[at - 1] == ".":
        at -= 2
    return tokens[at - 1]
