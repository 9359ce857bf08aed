"""Is this SQL text provably a read?

A lexer splits the whole text into tokens it knows; one walk over them then asks of every keyword, function,
cast type and operator whether it is on a list and stands where it may. There is no list of bad words to get
around: what is not known is not a read. In doubt, refuse: a wrong pin costs speed, a wrong read loses data.
"""

from __future__ import annotations

import enum
import re
import sys
import threading
from collections.abc import Collection
from dataclasses import replace
from typing import Final, Literal

from headgate import sql_walk
from headgate.errors import ConfigError
from headgate.sql_types import Trusted
from headgate.sql_words import END, GRAMMARS, STATEMENTS, UnknownTextError, is_name, lower_ascii, split_text

Family = Literal["postgresql", "sqlite"]

MAX_KEPT_BYTES: Final = 16 * 1024
"""Longer texts are classified each time: expanded ``IN`` lists would push everything else out of the memo."""
MEMO_BYTES: Final = 4 * 1024 * 1024
MAX_FORGOTTEN: Final = 4_096
"""Wrong proofs that are remembered; beyond that the oldest is let go, and would be found out again."""


class StatementClass(enum.Enum):
    """What running a statement means for the connection it runs on."""

    READ = "read"
    """Writes nothing and leaves nothing behind: may run in autocommit, on any connection."""
    WRITE = "write"
    """Known DML, row locks, savepoints, questions about the transaction: pins; nothing is left when that has ended."""
    OTHER = "other"
    """Anything else: pins and taints, the physical connection stays until the checkout ends."""


NOTHING_MORE: Final = Trusted()


def classify_text(sql: str, family: Family, trusted: Trusted = NOTHING_MORE) -> StatementClass:
    """Class of one compiled statement, read from its text alone, in linear time; never raises on a text."""
    if type(sql) is not str:
        return StatementClass.OTHER
    grammar = GRAMMARS[family]
    try:
        tokens = split_text(sql, grammar)
        first = next(token for token in tokens if token != "(")
        if first in STATEMENTS:
            return StatementClass.WRITE if sql_walk.writes(tokens, grammar, trusted) else StatementClass.READ
    except UnknownTextError:
        return StatementClass.OTHER
    return StatementClass.WRITE if _is_savepoint(tokens) else StatementClass.OTHER


_SAVEPOINT_COMMANDS = (
    "savepoint",
    "release",
    "release savepoint",
    "rollback to",
    "rollback to savepoint",
    "rollback transaction to savepoint",
)


def _is_savepoint(tokens: list[str]) -> bool:
    """``SAVEPOINT a``, ``RELEASE [SAVEPOINT] a``, ``ROLLBACK TO [SAVEPOINT] a``."""
    said = tokens[: tokens.index(END)]
    if said[-1:] == [";"]:
        said.pop()
    return " ".join(said[:-1]) in _SAVEPOINT_COMMANDS and is_name(said[-1])


# --- the memo -------------------------------------------------------------------------------------

_ENTRY_BYTES = 120
"""What an entry of a dictionary costs beside its text, rounded up."""
_UNCOMPARABLE = frozenset('"%\\\0')


class StatementProof:
    """Classifies texts and remembers them; safe to share between threads.

    The memo has two generations: new texts go into the young one; when that has half of ``memo_bytes`` it
    becomes the old one, and what was old is let go. A hit in the young one takes no lock and moves nothing, a
    hit in the old one copies the text over: what is used stays, as in an LRU, for one dictionary lookup.

    :param read_functions: unqualified names of functions and types that neither write nor change the session.
    :param memo_bytes: bound on the memory of the memo; 0 keeps nothing.
    :raises ConfigError: an unknown family, a name that cannot be listed, a negative bound.
    """

    __slots__ = (
        "_family",
        "_forgotten",
        "_half_bytes",
        "_lock",
        "_old",
        "_trusted",
        "_young",
        "_young_bytes",
    )

    def __init__(self, family: Family, *, read_functions: Collection[str] = (), memo_bytes: int = MEMO_BYTES) -> None:
        if family not in GRAMMARS:
            raise ConfigError(f"family is {family!r}; statements can be proved for {', '.join(GRAMMARS)}.")
        if memo_bytes < 0:
            raise ConfigError(f"memo_bytes is {memo_bytes}; give 0 or more.")
        self._family: Family = family
        self._trusted = Trusted(functions=frozenset(map(_listed_name, read_functions)))
        self._half_bytes = memo_bytes // 2
        self._lock = threading.Lock()
        self._young: dict[str, StatementClass] = {}
        self._old: dict[str, StatementClass] = {}
        self._young_bytes = 0
        self._forgotten: dict[int, None] = {}

    def classify(self, sql: str) -> StatementClass:
        """Class of ``sql``; anything that is not a plain ``str`` is ``OTHER``."""
        if type(sql) is not str:
            return StatementClass.OTHER
        known = self._young.get(sql)
        return known if known is not None else self._classify_missed(sql)

    def explain(self, sql: object) -> str:
        """Why ``sql`` is no read, for people; of its text only names and keywords are repeated."""
        if type(sql) is not str:
            return "its statement is composed by the driver"
        if hash(sql) in self._forgotten:
            return "the server has found its statement to write, through a view, an operator or a type"
        grammar = GRAMMARS[self._family]
        try:
            tokens = split_text(sql, grammar)
        except UnknownTextError:
            return "its text has a backslash, a dollar quote or another thing that is not looked into"
        first = next(token for token in tokens if token != "(")
        if first not in STATEMENTS:
            return f"its statement begins with {first.upper()}" if is_name(first) else "its statement is not known"
        unknown = sql_walk.first_unknown(tokens, grammar, self._trusted)
        known_word = is_name(unknown) and unknown[0] != '"' if unknown else False
        return f"{unknown}, in its statement, is not known to only read" if known_word else "its syntax is not known"

    def forget(self, sql: str) -> None:
        """From now on ``sql`` is ``OTHER``: it had been proved a read and turned out to write."""
        with self._lock:
            self._forgotten.pop(hash(sql), None)  # it becomes the youngest
            self._forgotten[hash(sql)] = None
            if len(self._forgotten) > MAX_FORGOTTEN:
                del self._forgotten[next(iter(self._forgotten))]
            self._old.pop(sql, None)
            if sql in self._young:
                self._young[sql] = StatementClass.OTHER

    def learn_types(self, names: Collection[str]) -> None:
        """From now on casts to these types are known: as ``mood``, ``"Mood"``, ``app.mood``, ``mood[]``.

        No schema is looked at, nor whether a letter is small. So **every** type of the database that has such a name
        must be one whose input runs nobody's code: an enum is, a domain is not. A name that texts cannot be compared
        with (a quote, a percent sign or a backslash in it) stays unknown.

        :param names: as in ``pg_type.typname``: without schema and quotes.
        """
        learned = frozenset(lower_ascii(name) for name in names if name and not _UNCOMPARABLE & set(name))
        with self._lock:
            if learned <= self._trusted.types:
                return
            self._trusted = replace(self._trusted, types=self._trusted.types | learned)
            self._old = _without_others(self._old)
            self._young = _without_others(self._young)
            self._young_bytes = sum(map(_entry_bytes, self._young))

    def _classify_missed(self, sql: str) -> StatementClass:
        if hash(sql) in self._forgotten:
            return StatementClass.OTHER
        trusted = self._trusted
        found = self._old.get(sql) or classify_text(sql, self._family, trusted)
        with self._lock:
            # Looked up under the lock: a text forgotten while it was classified must not come back.
            if hash(sql) in self._forgotten:
                return StatementClass.OTHER
            if trusted is self._trusted:  # else it was looked at without knowing enough
                self._keep(sql, found)
        return found

    def _keep(self, sql: str, found: StatementClass) -> None:
        size = _entry_bytes(sql)
        if size > min(MAX_KEPT_BYTES, self._half_bytes) or sql in self._young:
            return
        if self._young_bytes + size > self._half_bytes:
            self._old, self._young, self._young_bytes = self._young, {}, 0
        self._young[sql] = found
        self._young_bytes += size


def _listed_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise ConfigError(f"read_functions has {name!r}; list plain names without schema, quotes or arguments.")
    return name.lower()


def _entry_bytes(sql: str) -> int:
    return sys.getsizeof(sql) + _ENTRY_BYTES


def _without_others(known: dict[str, StatementClass]) -> dict[str, StatementClass]:
    return {sql: found for sql, found in known.items() if found is not StatementClass.OTHER}
