"""Names, columns and types: the stretches of a statement in which no expression can stand, read at one go.

Each function is given the tokens and the place of a stretch, and returns the place after it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from headgate.sql_words import Grammar, is_name, require

NAME: Final = '"'
"""What the walk notes of a name that can be no keyword: quoted, dotted, a label, a type."""

_TIME_ZONES = (["with", "time", "zone"], ["without", "time", "zone"])


@dataclass(frozen=True, slots=True)
class Trusted:
    """Names in lower case that are trusted beside the grammar's own.

    :ivar functions: as calls and as types, without schema and quotes.
    :ivar types: as types alone, also with a schema or in quotes; letters A to Z in lower case.
    """

    functions: frozenset[str] = frozenset()
    types: frozenset[str] = frozenset()


def skip_name(tokens: list[str], at: int) -> int:
    require(is_name(tokens[at]))
    return at + 1


def skip_columns(tokens: list[str], at: int, grammar: Grammar, trusted: Trusted) -> int:
    """``(a, b)`` or ``(a integer, b text)``, from its parenthesis on."""
    while True:
        at = skip_name(tokens, at + 1)
        if tokens[at] not in (",", ")"):
            at = skip_type(tokens, at, grammar, trusted)
        if tokens[at] == ")":
            return at + 1
        require(tokens[at] == ",")


def skip_type(tokens: list[str], at: int, grammar: Grammar, trusted: Trusted) -> int:
    at = _skip_type_arguments(tokens, _skip_type_name(tokens, at, grammar, trusted), grammar)
    if tokens[at : at + 3] in _TIME_ZONES:
        at += 3
    require(tokens[at] not in (".", "("))
    return _skip_array_bounds(tokens, at)


def _skip_type_name(tokens: list[str], at: int, grammar: Grammar, trusted: Trusted) -> int:
    token, following = tokens[at : at + 2]
    if following == ".":
        require(is_name(token) and _is_learned(tokens, at + 2, trusted))
        return at + 3
    if f"{token} {following}" in grammar.types:
        return at + 2
    require(token in grammar.types or token in trusted.functions or _is_learned(tokens, at, trusted))
    return at + 1


def _is_learned(tokens: list[str], at: int, trusted: Trusted) -> bool:
    token, following = tokens[at : at + 2]
    # Two quoted names in a row may have been one with a doubled quote in it.
    return token.strip('"') in trusted.types and not token[0] == following[0] == '"'


def _skip_type_arguments(tokens: list[str], at: int, grammar: Grammar) -> int:
    """``(10, 2)``, ``(3)``, ``(point, 4326)``."""
    if tokens[at] != "(":
        return at
    at += 1
    while tokens[at] != ")":
        token = tokens[at]
        require(token == "," or (token.isalnum() and token not in grammar.refused))
        at += 1
    return at + 1


def _skip_array_bounds(tokens: list[str], at: int) -> int:
    while tokens[at] == "[":
        at += 2 if tokens[at + 1].isdigit() else 1
        require(tokens[at] == "]")
        at += 1
    return at
