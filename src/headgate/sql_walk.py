"""One walk over the tokens of a statement: every word, type, call and operator must be known where it stands.

The walk has one state, a stack of frames for open parentheses, and one step for each kind of token. It parses no
more than it must to tell a keyword from the name of a function or a type: what it cannot tell, it refuses.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal

from headgate import sql_words as words
from headgate.sql_clauses import CLAUSE_STEPS
from headgate.sql_types import NAME, Trusted, skip_columns, skip_type
from headgate.sql_words import (
    END,
    POSTGRESQL,
    SQLITE,
    Grammar,
    UnknownTextError,
    is_name,
    is_number,
    is_operand,
    require,
)

MAX_DEPTH: Final = 200
"""Deeper nesting is not walked; the servers have a limit of their own."""


_FrameKind = Literal["plain", "cast", "substring", "distinct on", "bracket"]
_CALL_FRAMES: dict[str, _FrameKind] = {"cast": "cast", "substring": "substring", "overlay": "substring"}
_FRAME_UNITS = ("rows", "range", "groups")


class _Frame:
    """What is known about one open parenthesis or bracket, or about the whole text."""

    __slots__ = ("changes", "clause", "kind", "lists_ctes")

    def __init__(self, kind: _FrameKind) -> None:
        self.kind: _FrameKind = kind
        self.clause = ""
        self.lists_ctes = False  # between WITH and the main statement
        self.changes = False  # its statement is an INSERT, UPDATE, DELETE or MERGE


def writes(tokens: list[str], grammar: Grammar, trusted: Trusted) -> bool:
    """Whether the statement is known to write, or to ask for its transaction; otherwise it is known to read.

    :raises UnknownTextError: something is not known.
    """
    return Walk(tokens, grammar, trusted).finish()


def first_unknown(tokens: list[str], grammar: Grammar, trusted: Trusted) -> str:
    """The token at which the walk gives up; '' if it does not before the end."""
    walk, at = Walk(tokens, grammar, trusted), 0
    try:
        while tokens[at] != END:
            at = _STEPS[tokens[at][0]](walk, tokens[at], at)
    except UnknownTextError:
        return tokens[at + 1] if tokens[at] in ("::", "as") else tokens[at]
    return ""


class Walk:
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
        require(not self.outer and not self.open_conflict)
        has_settings = "pg_settings" in self.tokens or '"pg_settings"' in self.tokens
        require(not (self.writes and has_settings))  # a SET in disguise
        return self.writes or self.asks_transaction or has_settings

    # A step is given a token and its place and returns the place after what it has read.

    def go(self, at: int, previous: str, *, infix: bool) -> int:
        self.previous, self.infix = previous, infix
        return at

    # operands, operators, punctuation

    def literal(self, token: str, at: int) -> int:
        require(self.may_begin_operand() or self.previous == "'")
        return self.go(at + 1, "'", infix=True)

    def number(self, token: str, at: int) -> int:
        require(self.may_begin_operand() and is_number(token))
        return self.go(at + 1, "0", infix=True)

    def placeholder(self, token: str, at: int) -> int:
        require(self.may_begin_operand())
        return self.go(at + 1, "?", infix=True)

    def may_begin_operand(self) -> bool:
        """Also after the name of a type: ``date '2020-01-01'``."""
        return not self.infix or self.previous in self.grammar.types or self.previous == "precision"

    def operator(self, token: str, at: int) -> int:
        known = self.grammar.operators
        require(token in known or token.rstrip("+-") in known)  # a=-1
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
            return self.go(skip_type(self.tokens, at + 1, self.grammar, self.trusted), NAME, infix=True)
        require(self.frame.kind == "bracket")
        return self.go(at + 1, token, infix=False)

    def comma(self, token: str, at: int) -> int:
        return self.go(at + 1, token, infix=False)

    def semicolon(self, token: str, at: int) -> int:
        require(self.tokens[at + 1] == END)
        return at + 1

    def dot(self, token: str, at: int) -> int:
        if len(token) > 1:
            return self.number(token, at)
        require(self.infix and self.previous not in ("'", "0", "?"))
        if self.tokens[at + 1] == "*":
            return self.go(at + 2, NAME, infix=True)
        require(is_name(self.tokens[at + 1]))
        return self.go(at + 1, token, infix=False)

    def open_parenthesis(self, token: str, at: int) -> int:
        require(not self.infix or self.previous == ")")
        if self.previous == ")":
            self.frame.lists_ctes = False
        return self.open(at, "plain")

    def open_bracket(self, token: str, at: int) -> int:
        return self.open(at, "bracket")

    def open(self, at: int, kind: _FrameKind) -> int:
        require(len(self.outer) < MAX_DEPTH)
        self.outer.append(self.frame)
        self.frame = _Frame(kind)
        return self.go(at + 1, "[" if kind == "bracket" else "(", infix=False)

    def close_parenthesis(self, token: str, at: int) -> int:
        kind = self.close()
        require(kind != "bracket")
        return self.go(at + 1, ")", infix=kind != "distinct on")

    def close_bracket(self, token: str, at: int) -> int:
        require(self.close() == "bracket")
        return self.go(at + 1, "]", infix=True)

    def close(self) -> _FrameKind:
        require(bool(self.outer))
        closed, self.frame = self.frame, self.outer.pop()
        return closed.kind

    # names, keywords, calls

    def quoted(self, token: str, at: int) -> int:
        if self.tokens[at + 1] == "(":
            return self.cte_columns(at)
        return self.go(at + 1, NAME, infix=True)

    def word(self, token: str, at: int) -> int:
        following = self.tokens[at + 1]
        if self.previous == ".":
            require(following != "(")
            return self.go(at + 1, NAME, infix=True)
        if following == "(" and self.expects_cte():
            return self.cte_columns(at)
        if token in CLAUSE_STEPS and following != ".":
            return CLAUSE_STEPS[token](self, token, at)
        require(token not in self.grammar.refused)
        if following == "(":
            return self.word_before_parenthesis(token, at)
        if following == "." and token not in self.grammar.parenthesis:
            return self.go(at + 1, NAME, infix=True)
        self.enter_clause(token)
        if token == "not":
            return self.go(at + 1, token, infix=self.infix)  # a NOT IN (...), NOT (...)
        if token not in words.OPERAND_FOLLOWS:
            return self.go(at + 1, token, infix=True)
        require(not is_operand(following) or self.is_keyword(token, at))
        return self.go(at + 1, token, infix=False)

    def word_before_parenthesis(self, token: str, at: int) -> int:
        may_be_call = not self.infix and self.previous != "tablesample"
        if may_be_call and (token in self.grammar.functions or token in self.trusted.functions):
            if token == "current_setting" and not self.names_setting(at + 2):
                self.asks_transaction = True
            return self.open(at + 1, _CALL_FRAMES.get(token, "plain"))
        require(self.is_keyword(token, at))
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

    def begins_statement(self) -> bool:
        return self.previous in ("", "(") or (self.frame.lists_ctes and self.previous == ")")

    def expects_cte(self) -> bool:
        return self.frame.lists_ctes and self.previous in ("with", "recursive", ",")

    def cte_columns(self, at: int) -> int:
        require(self.expects_cte())
        at = skip_columns(self.tokens, at + 1, self.grammar, self.trusted)
        require(self.tokens[at] == "as")
        return self.go(at, NAME, infix=True)


_Step = Callable[[Walk, str, int], int]

_STEPS: dict[str, _Step] = {
    **dict.fromkeys("abcdefghijklmnopqrstuvwxyz_", Walk.word),
    **dict.fromkeys("0123456789", Walk.number),
    **dict.fromkeys("-+*/<>=~!#^&|", Walk.operator),
    **dict.fromkeys("?@", Walk.question_mark),
    "'": Walk.literal,
    '"': Walk.quoted,
    "$": Walk.placeholder,
    "%": Walk.percent,
    ":": Walk.colon,
    ",": Walk.comma,
    ".": Walk.dot,
    ";": Walk.semicolon,
    "(": Walk.open_parenthesis,
    ")": Walk.close_parenthesis,
    "[": Walk.open_bracket,
    "]": Walk.close_bracket,
}
"""By the first character of a token; the lexer lets no other begin one."""


def _after(*previous: str) -> Callable[[Walk, int], bool]:
    return lambda walk, at: walk.previous in previous


def _infix(walk: Walk, at: int) -> bool:
    return walk.infix


def _infix_outside_from(walk: Walk, at: int) -> bool:
    # Within FROM the word could be the alias of a function, and what follows its columns and their types.
    return walk.infix and walk.frame.clause != "from"


def _before_operand_or_outside_from(walk: Walk, at: int) -> bool:
    return walk.infix and (walk.tokens[at + 1] != "(" or walk.frame.clause != "from")


def _in_group_by(walk: Walk, at: int) -> bool:
    return walk.frame.clause == "group" and walk.previous in ("by", ",")


_SOFT_KEYWORDS: dict[str, Callable[[Walk, int], bool]] = {
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
    "repeatable": lambda walk, at: walk.infix and walk.previous == ")" and is_operand(walk.tokens[at + 2]),
    "row": lambda walk, at: not walk.infix and walk.grammar is POSTGRESQL,
    "sets": _after("grouping"),
    "values": lambda walk, at: walk.frame.changes or not walk.infix,
    "zone": _after("time"),
}
"""Keywords that could also be a name, and what shows that they are not."""
