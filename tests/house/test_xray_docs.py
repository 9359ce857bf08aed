"""docs/xray.md says what the command takes, what its JSON has and what production shows, in both directions."""

from __future__ import annotations

import argparse
import dataclasses
import re
from pathlib import Path

import pytest

from headgate.cli import xray
from headgate.names import PHASES
from headgate.xray import ConsoleOptions, Production, explain, observation, output, sweep
from headgate.xray.probe import DEFAULTS

PAGE = (Path(__file__).parents[2] / "docs/xray.md").read_text(encoding="utf-8")
SECTION = re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]
COMMAND = next(section for section in SECTION if section.startswith("headgate xray\n"))
OBJECTS = (
    output.Report,
    output.RouteFigures,
    output.Latency,
    output.ClientFigures,
    explain.Sentence,
    sweep.RouteSweep,
    sweep.SweepRow,
)


def options() -> set[str]:
    parser = argparse.ArgumentParser()
    subparsers = parser.add_subparsers()
    xray.add_parser(subparsers)
    actions = subparsers.choices["xray"]._actions
    return {name for action in actions for name in action.option_strings if name not in ("-h", "--help")}


def test_every_option_is_documented_and_no_other() -> None:
    rows = "\n".join(line.split("|")[1] for line in COMMAND.splitlines() if line.startswith("| `-"))
    assert set(re.findall(r"`(--[\w-]+)", rows)) == options()


@pytest.mark.parametrize(
    ("option", "default"),
    [
        ("--rate N", DEFAULTS.rate),
        ("--duration SECONDS", DEFAULTS.duration_s),
        ("--warm-up SECONDS", DEFAULTS.warm_up_s),
        ("--timeout SECONDS", DEFAULTS.timeout_s),
    ],
)
def test_the_documented_defaults_are_those_of_the_code(option: str, default: float) -> None:
    [row] = [line for line in COMMAND.splitlines() if line.startswith(f"| `{option}` |")]
    assert row.split("|")[2].strip() == f"{float(default):g}"


@pytest.mark.parametrize("kind", OBJECTS)
def test_every_field_of_the_json_is_documented_and_no_other(kind: type) -> None:
    [row] = [line for line in COMMAND.splitlines() if line.startswith(f"| `{kind.__name__}`")]
    told = re.findall(r"`(\w+)`", re.sub(r"\([^)]*\)", "", row.split("|")[2]))
    assert told == [field.name for field in dataclasses.fields(kind)]


def test_formats_and_versions_are_the_documented_ones() -> None:
    assert f"`format` is `{output.FORMAT}`, `version` is {output.VERSION}." in COMMAND
    assert f"(`{observation.FORMAT}`, version {observation.VERSION})" in COMMAND


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
