"""The judge of the soak runs is worth what it refuses; run by ``make soak`` before anything else."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from outcomes import Difference, Record, find_differences, judge, read_record

LISTED = Path(__file__).with_name("expected_differences.toml")


def record(**outcomes: str) -> Record:
    return Record(outcomes, {}, 1)


@pytest.mark.parametrize(
    ("stock", "ours", "differs"),
    [
        ("passed", "passed", False),
        ("passed", "failed", True),
        ("passed", "error", True),
        ("passed", "skipped", True),
        ("passed", "xfailed", True),
        ("passed", None, True),
        ("failed", "failed", False),
        ("failed", "error", True),
        ("failed", "passed", False),
        ("skipped", "skipped", False),
        ("skipped", "failed", True),
        (None, "failed", True),
        (None, "passed", False),
    ],
)
def test_a_test_differs_when_ours_does_not_pass_it_as_stock_does(stock: str, ours: str, differs: bool) -> None:
    one = Record({} if stock is None else {"t": stock}, {}, 0)
    other = Record({} if ours is None else {"t": ours}, {}, 1)
    assert bool(find_differences(one, other)) is differs


def test_an_unlisted_difference_and_a_stale_entry_both_fail() -> None:
    found = find_differences(record(a="passed", b="passed"), record(a="failed", b="failed"))
    assert judge(found, ["a", "b"]).passes
    assert [one.test for one in judge(found, ["a"]).unexpected] == ["b"]
    assert judge(found, ["a", "b", "c"]).stale == ("c",)
    assert not judge(found, ["a"]).passes
    assert not judge(found, ["a", "b", "c"]).passes


def test_the_worst_phase_of_a_test_counts_and_its_cause_stays() -> None:
    entries = [
        {"test": "t_py3k.py::ATest_postgresql+asyncpg_async_18_4::test_it[x]", "outcome": "passed", "cause": ""},
        {
            "test": "t_py3k.py::ATest_postgresql+asyncpg_async_18_4::test_it[x]",
            "outcome": "error",
            "cause": "OSError: no",
        },
        {"leases": 7},
    ]
    read = read_record(map(json.dumps, entries))
    assert read == Record({"t.py::ATest::test_it[x]": "error"}, {"t.py::ATest::test_it[x]": "OSError: no"}, 7)
    assert find_differences(record(), read) == [Difference("t.py::ATest::test_it[x]", "absent", "error", "OSError: no")]


def test_every_listed_difference_is_listed_once_and_explained() -> None:
    entries = tomllib.loads(LISTED.read_text(encoding="utf-8"))["difference"]
    tests = [test for entry in entries for test in entry["tests"]]
    assert len(tests) == len(set(tests)) <= 10
    assert all(len(entry["why"]) > 40 for entry in entries)
