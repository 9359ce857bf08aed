"""One walk over the tokens of a statement: every word, type, call and operator must be known where it stands.

The walk has one state, a stack of frames for open parentheses, and one step for each kind of token. It parses no
more than it must to tell a keyword from the name of a function or a type: what it cannot tell, it refuses.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from headgate import sql_words as words
from headgate.sql_words import END, POSTGRESQL, SQLITE, Grammar, UnknownTextError, is_name, is_number

MAX_DEPTH: Final = 200
"""Deeper nesting is not walked; the servers have a limit of their own."""


_NAME: Final = '"'
"""What ``previous`` is after a name that can be no keyword: quoted, dotted, a label, a type."""

_FrameKind = Literal["plain", "cast", "substring", "distinct on", "bracket"]
_CALL_FRAMES: dict[str, _FrameKind] = {"cast": "cast", "substring": "substring", "overlay": "substring"}
_LOCKS = (["update"], ["share"], ["no", "key", "update"], ["key", "share"])
_FRAME_UNITS = ("rows", "range", "groups")
_TIME_ZONES = (["with", "time", "zone"], ["without", "time", "zone"])


class _Frame:
    """What is known about one open parenthesis or bracket, or about the whole text."""

    __slots__ = ("changes", "clause", "kind", "lists_ctes")

    def __init__(self, kind: _FrameKind) -> None:
        self.kind: _FrameKind = kind
        self.clause = ""
        self.lists_ctes = False  # between WITH and the main statement
        self.changes = False  # its statement is an INSERT, UPDATE, DELETE or MERGE


@dataclass(frozen=True, slots=True)
class Trusted:
    """Names in lower case that are trusted beside the grammar's own.

    :ivar functions: as calls and as types, without schema and quotes.
    :ivar types: as types alone, also with a schema or in quotes; letters A to Z in lower case.
    """

    functions: frozenset[str] = frozenset()
    types: frozenset[str] = frozenset()


def writes(tokens: list[str], grammar: Grammar, trusted: Trusted) -> bool:
    """Whether the statement is known to write, or to ask for its transaction; otherwise it is known to read.

    :raises UnknownTextError: something is not known.
    """
    return _Walk(tokens, grammar, trusted).finish()


def first_unknown(tokens: list[str], grammar: Grammar, trusted: Trusted) -> str:
    """The token at which the walk gives up; '' if it does not before the end."""
    walk, at = _Walk(tokens, grammar, trusted), 0
    try:
        while tokens[at] != END:
            at = _STEPS[tokens[at][0]](walk, tokens[at], at)
    except UnknownTextError:
        return tokens[at + 1] if tokens[at] in ("::", "as") else tokens[at]
    return ""


class _Walk:
    """One pass over the tokens: each step knows what it sees or raises :class:`UnknownTextError`.

    ``infix`` says that an operand has just ended. It tells ``a JOIN (SELECT ...)`` from a call of a function
    named join: a call can only stand where an operand may begin.
    """

    def __init__(self, tokens: list[str], grammar: Grammar, trusted: Trusted) -> None:
        self.tokens = tokens
        self.grammar = grammar
        self.trusted = trusted
        self.frame = _Frame("plain")
        self.outer: list[_Frame] = []
        self.previous = ""
        self.infix = False
        self.writes = False
        self.asks_transaction = False
        self.open_conflict = False

    def finish(self) -> bool:
        steps = _STEPS
        at = 0
        while (token := self.tokens[at]) != END:
            at = steps[token[0]](self, token, at)
        self.require(not self.outer and not self.open_conflict)
        has_settings = "pg_settings" in self.tokens or '"pg_settings"' in self.tokens
        self.require(not (self.writes and has_settings))  # a SET in disguise
        return self.writes or self.asks_transaction or has_settings

    # A step is given a token and its place and returns the place after what it has read.

    def go(self, at: int, previous: str, *, infix: bool) -> int:
        self.previous, self.infix = previous, infix
        return at

    def require(self, known: bool) -> None:
        if not known:
            raise UnknownTextError

    # operands, operators, punctuation

    def literal(self, token: str, at: int) -> int:
        self.require(self.may_begin_operand() or self.previous == "'")
        return self.go(at + 1, "'", infix=True)

    def number(self, token: str, at: int) -> int:
        self.require(self.may_begin_operand() and is_number(token))
        return self.go(at + 1, "0", infix=True)

    def placeholder(self, token: str, at: int) -> int:
        self.require(self.may_begin_operand())
        return self.go(at + 1, "?", infix=True)

    def may_begin_operand(self) -> bool:
        """Also after the name of a type: ``date '2020-01-01'``."""
        return not self.infix or self.previous in self.grammar.types or self.previous == "precision"

    def operator(self, token: str, at: int) -> int:
        known = self.grammar.operators
        self.require(token in known or token.rstrip("+-") in known)  # a=-1
        return self.go(at + 1, token, infix=False)

    def percent(self, token: str, at: int) -> int:
        return self.placeholder(token, at) if token[-1] in "sbt" else self.operator(token, at)

    def question_mark(self, token: str, at: int) -> int:
        """An operator of jsonb, or SQLite's placeholder."""
        return self.placeholder(token, at) if self.grammar is SQLITE else self.operator(token, at)

    def colon(self, token: str, at: int) -> int:
        if self.grammar is SQLITE:
            return self.placeholder(token, at)
        if token == "::":
            return self.go(self.skip_type(at + 1), _NAME, infix=True)
        self.require(self.frame.kind == "bracket")
        return self.go(at + 1, token, infix=False)

    def comma(self, token: str, at: int) -> int:
        return self.go(at + 1, token, infix=False)

    def semicolon(self, token: str, at: int) -> int:
        self.require(self.tokens[at + 1] == END)
        return at + 1

    def dot(self, token: str, at: int) -> int:
        if len(token) > 1:
            return self.number(token, at)
        self.require(self.infix and self.previous not in ("'", "0", "?"))
        if self.tokens[at + 1] == "*":
            return self.go(at + 2, _NAME, infix=True)
        self.require(is_name(self.tokens[at + 1]))
        return self.go(at + 1, token, infix=False)

    def open_parenthesis(self, token: str, at: int) -> int:
        self.require(not self.infix or self.previous == ")")
        if self.previous == ")":
            self.frame.lists_ctes = False
        return self.open(at, "plain")

    def open_bracket(self, token: str, at: int) -> int:
        return self.open(at, "bracket")

    def open(self, at: int, kind: _FrameKind) -> int:
        self.require(len(self.outer) < MAX_DEPTH)
        self.outer.append(self.frame)
        self.frame = _Frame(kind)
        return self.go(at + 1, "[" if kind == "bracket" else "(", infix=False)

    def close_parenthesis(self, token: str, at: int) -> int:
        kind = self.close()
        self.require(kind != "bracket")
        return self.go(at + 1, ")", infix=kind != "distinct on")

    def close_bracket(self, token: str, at: int) -> int:
        self.require(self.close() == "bracket")
        return self.go(at + 1, "]", infix=True)

    def close(self) -> _FrameKind:
        self.require(bool(self.outer))
        closed, self.frame = self.frame, self.outer.pop()
        return closed.kind

    # names, keywords, calls

    def quoted(self, token: str, at: int) -> int:
        if self.tokens[at + 1] == "(":
            return self.cte_columns(at)
        return self.go(at + 1, _NAME, infix=True)

    def word(self, token: str, at: int) -> int:
        following = self.tokens[at + 1]
        if self.previous == ".":
            self.require(following != "(")
            return self.go(at + 1, _NAME, infix=True)
        if following == "(" and self.expects_cte():
            return self.cte_columns(at)
        if token in _CLAUSE_STEPS and following != ".":
            return _CLAUSE_STEPS[token](self, token, at)
        self.require(token not in self.grammar.refused)
        if following == "(":
            return self.word_before_parenthesis(token, at)
        if following == "." and token not in self.grammar.parenthesis:
            return self.go(at + 1, _NAME, infix=True)
        self.enter_clause(token)
        if token == "not":
            return self.go(at + 1, token, infix=self.infix)  # a NOT IN (...), NOT (...)
        if token not in words.OPERAND_FOLLOWS:
            return self.go(at + 1, token, infix=True)
        self.require(not _is_operand(following) or self.is_keyword(token, at))
        return self.go(at + 1, token, infix=False)

    def word_before_parenthesis(self, token: str, at: int) -> int:
        may_be_call = not self.infix and self.previous != "tablesample"
        if may_be_call and (token in self.grammar.functions or token in self.trusted.functions):
            if token == "current_setting" and not self.names_setting(at + 2):
                self.asks_transaction = True
            return self.open(at + 1, _CALL_FRAMES.get(token, "plain"))
        self.require(self.is_keyword(token, at))
        if token == "on" and self.previous == "distinct":
            return self.open(at + 1, "distinct on")
        self.enter_clause(token)
        return self.go(at + 1, token, infix=False)

    def names_setting(self, at: int) -> bool:
        """Whether a setting is named that is the same within a transaction and without: all but this one are."""
        name, following = self.tokens[at : at + 2]
        return name[0] == "'" and "read_only" not in name and following in (",", ")")

    def is_keyword(self, token: str, at: int) -> bool:
        """Whether ``token`` can here be no name of a function, before ``(``, or of a type, before a literal."""
        if self.previous == "tablesample":
            return token in ("bernoulli", "system")
        if token == "on" and self.previous == "distinct":
            return self.tokens[at + 1] == "("
        if token in self.grammar.parenthesis:
            return True
        return token in _SOFT_KEYWORDS and _SOFT_KEYWORDS[token](self, at)

    def enter_clause(self, token: str) -> None:
        if token in words.CLAUSES:
            self.frame.clause = token
            self.frame.lists_ctes = False

    # clauses that need more than a glance

    def as_(self, token: str, at: int) -> int:
        following = self.tokens[at + 1]
        if following == "(":
            return self.as_parenthesis(at + 1)
        if self.frame.kind == "cast":
            return self.go(self.skip_type(at + 1), _NAME, infix=True)
        if self.frame.lists_ctes and following in ("materialized", "not"):
            return self.as_materialized(at + 1)
        self.require(is_name(following) and following not in self.grammar.refused)
        if self.tokens[at + 2] == "(":
            return self.table_columns(at + 2)
        return self.go(at + 2, _NAME, infix=True)

    def as_parenthesis(self, at: int) -> int:
        """A common table expression, a named window, or the columns of ``FROM f() AS (a integer)``."""
        if self.frame.lists_ctes or self.frame.clause == "window":
            return self.go(at, "as", infix=False)
        return self.table_columns(at)

    def table_columns(self, at: int) -> int:
        """The columns in ``FROM f() AS t(a integer)``, ``(t AS t(a) JOIN ...)``, ``INSERT INTO t AS u (a)``."""
        self.require(self.frame.clause in ("from", "into", ""))
        return self.go(self.skip_columns(at), ")", infix=True)

    def as_materialized(self, at: int) -> int:
        if self.tokens[at] == "not":
            at += 1
        self.require(self.tokens[at : at + 2] == ["materialized", "("])
        return self.go(at + 1, "as", infix=False)

    def with_(self, token: str, at: int) -> int:
        if self.begins_statement() or self.frame.clause == "into":
            self.frame.lists_ctes = True
        return self.go(at + 1, token, infix=self.tokens[at + 1] == "(")

    def begins_statement(self) -> bool:
        return self.previous in ("", "(") or (self.frame.lists_ctes and self.previous == ")")

    def expects_cte(self) -> bool:
        return self.frame.lists_ctes and self.previous in ("with", "recursive", ",")

    def cte_columns(self, at: int) -> int:
        self.require(self.expects_cte())
        at = self.skip_columns(at + 1)
        self.require(self.tokens[at] == "as")
        return self.go(at, _NAME, infix=True)

    def group(self, token: str, at: int) -> int:
        if self.tokens[at + 1] == "by":
            self.frame.clause = token
            self.frame.lists_ctes = False
        return self.go(at + 1, token, infix=False)

    def for_(self, token: str, at: int) -> int:
        """``SUBSTRING(a FROM 1 FOR 2)``, or row locks, which end with the transaction."""
        if self.frame.kind == "substring":
            return self.go(at + 1, token, infix=False)
        self.require(self.grammar is POSTGRESQL)
        for lock in _LOCKS:
            if self.tokens[at + 1 : at + 1 + len(lock)] == lock:
                self.writes = True
                return self.go(at + 1 + len(lock), _NAME, infix=True)
        raise UnknownTextError

    def change(self, token: str, at: int) -> int:
        """INSERT, UPDATE, DELETE, MERGE; also ``DO UPDATE`` and what MERGE does ``WHEN MATCHED THEN``."""
        frame = self.frame
        if not self.begins_statement():
            self.require(frame.changes and self.previous in ("then", "do"))
            if token == "insert" and self.tokens[at + 1] == "(":
                return self.go(self.skip_columns(at + 1), ")", infix=True)
        else:
            frame.changes = self.writes = True
            frame.clause = token
            frame.lists_ctes = False
        following = self.tokens[at + 1]
        self.require(following != "(" and not _is_operand(following))
        return self.go(at + 1, token, infix=False)

    def replace(self, token: str, at: int) -> int:
        """A function; in SQLite also a statement and ``INSERT OR REPLACE``."""
        if self.tokens[at + 1] == "(":
            return self.word_before_parenthesis(token, at)
        self.require(self.grammar is SQLITE)
        if self.previous == "or" and self.frame.clause in ("insert", "update"):
            return self.go(at + 1, token, infix=False)
        return self.change(token, at)

    def into(self, token: str, at: int) -> int:
        self.require(self.frame.clause in ("insert", "merge", "replace"))
        self.frame.clause = token
        at = self.skip_name(at + 1)
        while self.tokens[at] == ".":
            at = self.skip_name(at + 1)
        if self.tokens[at] == "(":
            return self.go(self.skip_columns(at), ")", infix=True)
        return self.go(at, _NAME, infix=True)

    def set_(self, token: str, at: int) -> int:
        """Of an UPDATE, or of ``SEARCH`` and ``CYCLE`` after a common table expression."""
        self.require(self.frame.changes or self.frame.lists_ctes)
        self.require((self.infix and self.previous != ")") or self.previous == "update")
        self.require(not _is_operand(self.tokens[at + 1]))
        return self.go(at + 1, token, infix=False)

    def conflict(self, token: str, at: int) -> int:
        self.require(self.frame.changes and self.previous == "on" and not self.open_conflict)
        self.open_conflict = True  # until DO: a condition of a join may call a function named conflict
        return self.go(at + 1, token, infix=False)

    def constraint(self, token: str, at: int) -> int:
        self.require(self.open_conflict and self.previous == "on")
        return self.go(at + 1, token, infix=True)

    def do(self, token: str, at: int) -> int:
        self.require(self.open_conflict or (self.frame.changes and self.previous == "then"))
        self.open_conflict = False
        return self.go(at + 1, token, infix=True)

    def returning(self, token: str, at: int) -> int:
        self.require(self.frame.changes)
        self.frame.clause = token
        return self.go(at + 1, token, infix=False)

    # stretches without expressions

    def skip_name(self, at: int) -> int:
        self.require(is_name(self.tokens[at]))
        return at + 1

    def skip_columns(self, at: int) -> int:
        """``(a, b)`` or ``(a integer, b text)``, from its parenthesis on."""
        while True:
            at = self.skip_name(at + 1)
            if self.tokens[at] not in (",", ")"):
                at = self.skip_type(at)
            if self.tokens[at] == ")":
                return at + 1
            self.require(self.tokens[at] == ",")

    def skip_type(self, at: int) -> int:
        at = self.skip_type_arguments(self.skip_type_name(at))
        if self.tokens[at : at + 3] in _TIME_ZONES:
            at += 3
        self.require(self.tokens[at] not in (".", "("))
        return self.skip_array_bounds(at)

    def skip_type_name(self, at: int) -> int:
        token, following = self.tokens[at : at + 2]
        if following == ".":
            self.require(is_name(token) and self.is_learned(at + 2))
            return at + 3
        if f"{token} {following}" in self.grammar.types:
            return at + 2
        self.require(token in self.grammar.types or token in self.trusted.functions or self.is_learned(at))
        return at + 1

    def is_learned(self, at: int) -> bool:
        token, following = self.tokens[at : at + 2]
        # Two quoted names in a row may have been one with a doubled quote in it.
        return token.strip('"') in self.trusted.types and not token[0] == following[0] == '"'

    def skip_type_arguments(self, at: int) -> int:
        """``(10, 2)``, ``(3)``, ``(point, 4326)``."""
        if self.tokens[at] != "(":
            return at
        at += 1
        while self.tokens[at] != ")":
            token = self.tokens[at]
            self.require(token == "," or (token.isalnum() and token not in self.grammar.refused))
            at += 1
        return at + 1

    def skip_array_bounds(self, at: int) -> int:
        while self.tokens[at] == "[":
            at += 2 if self.tokens[at + 1].isdigit() else 1
            self.require(self.tokens[at] == "]")
            at += 1
        return at


def _is_operand(token: str) -> bool:
    """A literal, number or placeholder; in SQLite, which has no typed literals, it need not know them all."""
    return token[0] in "'$0123456789" or (token[0] == "%" and token[-1] in "sbt")


_Step = Callable[[_Walk, str, int], int]

_STEPS: dict[str, _Step] = {
    **dict.fromkeys("abcdefghijklmnopqrstuvwxyz_", _Walk.word),
    **dict.fromkeys("0123456789", _Walk.number),
    **dict.fromkeys("-+*/<>=~!#^&|", _Walk.operator),
    **dict.fromkeys("?@", _Walk.question_mark),
    "'": _Walk.literal,
    '"': _Walk.quoted,
    "$": _Walk.placeholder,
    "%": _Walk.percent,
    ":": _Walk.colon,
    ",": _Walk.comma,
    ".": _Walk.dot,
    ";": _Walk.semicolon,
    "(": _Walk.open_parenthesis,
    ")": _Walk.close_parenthesis,
    "[": _Walk.open_bracket,
    "]": _Walk.close_bracket,
}
"""By the first character of a token; the lexer lets no other begin one."""

_CLAUSE_STEPS: dict[str, _Step] = {
    **dict.fromkeys(("insert", "update", "delete", "merge"), _Walk.change),
    "as": _Walk.as_,
    "conflict": _Walk.conflict,
    "constraint": _Walk.constraint,
    "do": _Walk.do,
    "for": _Walk.for_,
    "group": _Walk.group,
    "into": _Walk.into,
    "replace": _Walk.replace,
    "returning": _Walk.returning,
    "set": _Walk.set_,
    "with": _Walk.with_,
}


def _after(*previous: str) -> Callable[[_Walk, int], bool]:
    return lambda walk, at: walk.previous in previous


def _infix(walk: _Walk, at: int) -> bool:
    return walk.infix


def _infix_outside_from(walk: _Walk, at: int) -> bool:
    # Within FROM the word could be the alias of a function, and what follows its columns and their types.
    return walk.infix and walk.frame.clause != "from"


def _before_operand_or_outside_from(walk: _Walk, at: int) -> bool:
    return walk.infix and (walk.tokens[at + 1] != "(" or walk.frame.clause != "from")


def _in_group_by(walk: _Walk, at: int) -> bool:
    return walk.frame.clause == "group" and walk.previous in ("by", ",")


_SOFT_KEYWORDS: dict[str, Callable[[_Walk, int], bool]] = {
    **dict.fromkeys(("glob", "ilike", "is", "like", "match", "offset", "overlaps", "regexp"), _infix),
    **dict.fromkeys(("groups", "passing", "range", "rows", "value"), _infix_outside_from),
    **dict.fromkeys(("cube", "rollup"), _in_group_by),
    **dict.fromkeys(("first", "next"), _after("fetch")),
    "by": _after("order", "group", "partition"),
    "between": lambda walk, at: walk.previous in _FRAME_UNITS or _before_operand_or_outside_from(walk, at),
    "escape": _before_operand_or_outside_from,
    "exists": lambda walk, at: not walk.infix,
    "filter": lambda walk, at: walk.tokens[at + 2] == "where",
    "join": lambda walk, at: walk.infix or walk.previous in words.JOIN_SIDES,
    "over": lambda walk, at: walk.previous == ")" and _infix_outside_from(walk, at),
    "repeatable": lambda walk, at: walk.infix and walk.previous == ")" and _is_operand(walk.tokens[at + 2]),
    "row": lambda walk, at: not walk.infix and walk.grammar is POSTGRESQL,
    "sets": _after("grouping"),
    "values": lambda walk, at: walk.frame.changes or not walk.infix,
    "zone": _after("time"),
}
"""Keywords that could also be a name, and what shows that they are not."""
