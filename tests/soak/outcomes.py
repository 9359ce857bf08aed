"""What two runs of one test suite say about each other: pure, and all that decides whether a soak run passes.

A test *differs* when Headgate's arm does not pass it and the stock arm ends otherwise; one that is skipped or missing
with Headgate alone differs, too, because a test that does not run shows nothing.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

ABSENT = "absent"
_WORST_LAST = (ABSENT, "passed", "xfailed", "skipped", "failed", "error")
_VARYING = re.compile(r"_postgresql\+[^:]+(?=::|$)|_py3k(?=\.py)")


@dataclass(frozen=True, slots=True)
class Record:
    """One arm's run.

    :ivar outcomes: test → how it ended.
    :ivar causes: failed test → the last line of its traceback.
    :ivar leases: virtual connections handed out; 0 in the stock arm.
    """

    outcomes: Mapping[str, str]
    causes: Mapping[str, str]
    leases: int


@dataclass(frozen=True, slots=True)
class Difference:
    """A test that Headgate's arm does not pass as the stock arm does."""

    test: str
    stock: str
    headgate: str
    cause: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """The differences found, against the list of those that are expected.

    :ivar stale: listed tests that do not differ (any more).
    """

    expected: tuple[Difference, ...]
    unexpected: tuple[Difference, ...]
    stale: tuple[str, ...]

    @property
    def passes(self) -> bool:
        """True if the list is exact."""
        return not self.unexpected and not self.stale


def read_record(lines: Iterable[str]) -> Record:
    """What the plugin wrote, one JSON object a line; the worst phase of a test counts."""
    outcomes: dict[str, str] = {}
    causes: dict[str, str] = {}
    leases = 0
    for line in lines:
        entry = json.loads(line)
        leases += entry.get("leases", 0)
        if "test" not in entry:
            continue
        test = name_of(entry["test"])
        outcomes[test] = max(outcomes.get(test, ABSENT), entry["outcome"], key=_WORST_LAST.index)
        if entry["cause"]:
            causes[test] = entry["cause"]
    return Record(outcomes, causes, leases)


def name_of(test: str) -> str:
    """The name that a list can give a test: without driver and server version, and alike in SQLAlchemy 2.0 and 2.1."""
    return _VARYING.sub("", test)


def find_differences(stock: Record, headgate: Record) -> list[Difference]:
    """All tests that Headgate's arm does not pass as the stock arm does."""
    found = []
    for test in sorted(stock.outcomes.keys() | headgate.outcomes.keys()):
        one, other = stock.outcomes.get(test, ABSENT), headgate.outcomes.get(test, ABSENT)
        if other not in ("passed", one):
            found.append(Difference(test, one, other, headgate.causes.get(test, "")))
    return found


def judge(found: Collection[Difference], listed: Collection[str]) -> Verdict:
    """Hold what was found against the list, in both directions."""
    differing = {difference.test for difference in found}
    return Verdict(
        expected=tuple(one for one in found if one.test in listed),
        unexpected=tuple(one for one in found if one.test not in listed),
        stale=tuple(sorted(set(listed) - differing)),
    )


def count(record: Record) -> str:
    """How many ended how, on one line."""
    counts = Counter(record.outcomes.values())
    return ", ".join(f"{counts[outcome]} {outcome}" for outcome in _WORST_LAST if counts[outcome])
