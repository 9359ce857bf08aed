"""Clauses that need more than a glance, each by the keyword it begins with.

Each is a step of the walk: given a token and its place, it returns the place after what it has read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from headgate.sql_types import NAME, skip_columns, skip_name, skip_type
from headgate.sql_words import POSTGRESQL, SQLITE, UnknownTextError, is_name, is_operand, require

if TYPE_CHECKING:
    from headgate.sql_walk import Walk

_LOCKS = (["update"], ["share"], ["no", "key", "update"], ["key", "share"])


def as_(walk: Walk, token: str, at: int) -> int:
    following = walk.tokens[at + 1]
    if following == "(":
        return _as_parenthesis(walk, at + 1)
    if walk.frame.kind == "cast":
        return walk.go(skip_type(walk.tokens, at + 1, walk.grammar, walk.trusted), NAME, infix=True)
    if walk.frame.lists_ctes and following in ("materialized", "not"):
        return _as_materialized(walk, at + 1)
    require(is_name(following) and following not in walk.grammar.refused)
    if walk.tokens[at + 2] == "(":
        return _table_columns(walk, at + 2)
    return walk.go(at + 2, NAME, infix=True)


def _as_parenthesis(walk: Walk, at: int) -> int:
    """A common table expression, a named window, or the columns of ``FROM f() AS (a integer)``."""
    if walk.frame.lists_ctes or walk.frame.clause == "window":
        return walk.go(at, "as", infix=False)
    return _table_columns(walk, at)


def _table_columns(walk: Walk, at: int) -> int:
    """The columns in ``FROM f() AS t(a integer)``, ``(t AS t(a) JOIN ...)``, ``INSERT INTO t AS u (a)``."""
    require(walk.frame.clause in ("from", "into", ""))
    return walk.go(skip_columns(walk.tokens, at, walk.grammar, walk.trusted), ")", infix=True)


def _as_materialized(walk: Walk, at: int) -> int:
    if walk.tokens[at] == "not":
        at += 1
    require(walk.tokens[at : at + 2] == ["materialized", "("])
    return walk.go(at + 1, "as", infix=False)


def with_(walk: Walk, token: str, at: int) -> int:
    if walk.begins_statement() or walk.frame.clause == "into":
        walk.frame.lists_ctes = True
    return walk.go(at + 1, token, infix=walk.tokens[at + 1] == "(")


def group(walk: Walk, token: str, at: int) -> int:
    if walk.tokens[at + 1] == "by":
        walk.frame.clause = token
        walk.frame.lists_ctes = False
    return walk.go(at + 1, token, infix=False)


def for_(walk: Walk, token: str, at: int) -> int:
    """``SUBSTRING(a FROM 1 FOR 2)``, or row locks, which end with the transaction."""
    if walk.frame.kind == "substring":
        return walk.go(at + 1, token, infix=False)
    require(walk.grammar is POSTGRESQL)
    for lock in _LOCKS:
        if walk.tokens[at + 1 : at + 1 + len(lock)] == lock:
            walk.writes = True
            return walk.go(at + 1 + len(lock), NAME, infix=True)
    raise UnknownTextError


def change(walk: Walk, token: str, at: int) -> int:
    """INSERT, UPDATE, DELETE, MERGE; also ``DO UPDATE`` and what MERGE does ``WHEN MATCHED THEN``."""
    frame = walk.frame
    if not walk.begins_statement():
        require(frame.changes and walk.previous in ("then", "do"))
        if token == "insert" and walk.tokens[at + 1] == "(":
            return walk.go(skip_columns(walk.tokens, at + 1, walk.grammar, walk.trusted), ")", infix=True)
    else:
        frame.changes = walk.writes = True
        frame.clause = token
        frame.lists_ctes = False
    following = walk.tokens[at + 1]
    require(following != "(" and not is_operand(following))
    return walk.go(at + 1, token, infix=False)


def replace(walk: Walk, token: str, at: int) -> int:
    """A function; in SQLite also a statement and ``INSERT OR REPLACE``."""
    if walk.tokens[at + 1] == "(":
        return walk.word_before_parenthesis(token, at)
    require(walk.grammar is SQLITE)
    if walk.previous == "or" and walk.frame.clause in ("insert", "update"):
        return walk.go(at + 1, token, infix=False)
    return change(walk, token, at)


def into(walk: Walk, token: str, at: int) -> int:
    require(walk.frame.clause in ("insert", "merge", "replace"))
    walk.frame.clause = token
    at = skip_name(walk.tokens, at + 1)
    while walk.tokens[at] == ".":
        at = skip_name(walk.tokens, at + 1)
    if walk.tokens[at] == "(":
        return walk.go(skip_columns(walk.tokens, at, walk.grammar, walk.trusted), ")", infix=True)
    return walk.go(at, NAME, infix=True)


def set_(walk: Walk, token: str, at: int) -> int:
    """Of an UPDATE, or of ``SEARCH`` and ``CYCLE`` after a common table expression."""
    require(walk.frame.changes or walk.frame.lists_ctes)
    require((walk.infix and walk.previous != ")") or walk.previous == "update")
    require(not is_operand(walk.tokens[at + 1]))
    return walk.go(at + 1, token, infix=False)


def conflict(walk: Walk, token: str, at: int) -> int:
    require(walk.frame.changes and walk.previous == "on" and not walk.open_conflict)
    walk.open_conflict = True  # until DO: a condition of a join may call a function named conflict
    return walk.go(at + 1, token, infix=False)


def constraint(walk: Walk, token: str, at: int) -> int:
    require(walk.open_conflict and walk.previous == "on")
    return walk.go(at + 1, token, infix=True)


def do(walk: Walk, token: str, at: int) -> int:
    require(walk.open_conflict or (walk.frame.changes and walk.previous == "then"))
    walk.open_conflict = False
    return walk.go(at + 1, token, infix=True)


def returning(walk: Walk, token: str, at: int) -> int:
    require(walk.frame.changes)
    walk.frame.clause = token
    return walk.go(at + 1, token, infix=False)


CLAUSE_STEPS: dict[str, Callable[[Walk, str, int], int]] = {
    **dict.fromkeys(("insert", "update", "delete", "merge"), change),
    "as": as_,
    "conflict": conflict,
    "constraint": constraint,
    "do": do,
    "for": for_,
    "group": group,
    "into": into,
    "replace": replace,
    "returning": returning,
    "set": set_,
    "with": with_,
}
