"""The table of statements beside this file: what is a read, what is known to write, what is anything else.

One statement a line, under a heading ``-- CLASS: family, family``; other lines that begin with dashes are remarks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Row:
    """A statement for a family of dialects, and the name of the class it belongs to."""

    file: str
    expected: str
    family: str
    sql: str


def read_table() -> Iterator[Row]:
    """Every row of every file."""
    for path in sorted(Path(__file__).parent.glob("*.sql")):
        for section in re.split(r"^-- (?=[A-Z]+: )", path.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
            heading, *lines = section.split("\n")
            expected, families = heading.split(": ")
            for family in families.split(", "):
                yield from (Row(path.stem, expected, family, sql) for sql in lines if sql and sql[:3] != "-- ")
