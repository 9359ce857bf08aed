"""What is documented of the X-ray in production is what the code says, in both directions."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from headgate.names import PHASES
from headgate.xray import ConsoleOptions, Production

PAGE = (Path(__file__).parents[2] / "docs/xray.md").read_text(encoding="utf-8")


def rows(heading: str) -> list[list[str]]:
    """The cells of the table below a heading."""
    section = re.split(r"^#+ ", PAGE.partition(f"\n### {heading}\n")[2], flags=re.MULTILINE)[0]
    return [
        [cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line.startswith("| `")
    ]


def test_the_phases_stand_in_their_order() -> None:
    assert [row[0].strip("`") for row in rows("Phases")] == list(PHASES)


def test_every_option_stands_there_with_its_default() -> None:
    told = {row[0].strip("`"): row[1].strip("`") for row in rows("Options of `Production` and `ConsoleOptions`")}
    fields = (*dataclasses.fields(Production), *dataclasses.fields(ConsoleOptions))
    assert told == {field.name: "" if field.default is dataclasses.MISSING else repr(field.default) for field in fields}
