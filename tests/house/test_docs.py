"""The documentation says what the code says, in both directions."""

from __future__ import annotations

import dataclasses
import re
import typing
from pathlib import Path

import pytest

from headgate.config import GateOptions
from headgate.lab import results
from headgate.queueing import Reason

ROOT = Path(__file__).parents[2]
PAGES = sorted(page.relative_to(ROOT).as_posix() for page in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")))
SCHEMA = {name: cls for name, cls in vars(results).items() if isinstance(cls, type) and dataclasses.is_dataclass(cls)}
ROWS = {
    line.split("|")[1].split("`")[1]: line.split("|")[2]
    for line in (ROOT / "docs/lab.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("| `")
}


def test_every_object_of_the_results_is_documented_and_no_other() -> None:
    assert set(ROWS) == set(SCHEMA)


@pytest.mark.parametrize("name", sorted(SCHEMA))
def test_every_field_of_the_results_is_documented_and_no_other(name: str) -> None:
    fields = re.sub(r"\([^)]*\)", "", ROWS[name]).partition(";")[0]
    told = re.findall(r"`(\w+)`", fields)
    assert told == [field.name for field in dataclasses.fields(SCHEMA[name])]


def test_the_schema_version_is_the_documented_one() -> None:
    assert f"`schema_version` is {results.SCHEMA_VERSION}." in (ROOT / "docs/lab.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("field", dataclasses.fields(GateOptions), ids=lambda field: field.name)
def test_the_gates_options_stand_in_the_documentation_with_their_default(field: dataclasses.Field[object]) -> None:
    rows = [line for line in (ROOT / "docs/gate.md").read_text(encoding="utf-8").splitlines() if "|" in line]
    row = next(line for line in rows if line.startswith(f"| `{field.name}` |"))
    assert f"{field.default:g}" in row.split("|")[2]


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", text)
    assert [link for link in links if not (ROOT / page).parent.joinpath(link).exists()] == []


@pytest.mark.parametrize("reason", typing.get_args(Reason))
def test_the_reasons_of_refusals_stand_in_the_documentation(reason: str) -> None:
    assert f"\n| `{reason}` |" in (ROOT / "docs/gate.md").read_text(encoding="utf-8")
