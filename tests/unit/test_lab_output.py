from __future__ import annotations

import errno
import json
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.errors import LabError
from headgate.lab import output
from headgate.lab.output import decode, decode_run, encode_run, load_run, write_run
from headgate.lab.results import (
    SCHEMA_VERSION,
    ArmResult,
    Check,
    ConnectionStates,
    Distribution,
    ExperimentResult,
    Figure,
    Finding,
    Machine,
    PathResult,
    Prediction,
    Published,
    Run,
)

numbers = st.floats(allow_nan=False, allow_infinity=False)
parameters = st.dictionaries(st.text(), st.none() | st.booleans() | st.integers() | numbers | st.text())
figures = st.lists(st.builds(Figure, st.text(), numbers, st.text()), max_size=2).map(tuple)
distributions = st.builds(Distribution, st.integers(0), *[numbers] * 7)
counts = st.dictionaries(st.text(), st.integers())
paths = st.builds(
    PathResult,
    path=st.text(),
    requests=st.integers(),
    successes=st.integers(),
    **dict.fromkeys(("offered_rate", "achieved_rate", "throughput", "success_ratio", "duration", "wait"), numbers),
    latency=distributions,
    latency_success=distributions,
    statuses=counts,
    errors=counts,
    points=st.lists(st.tuples(numbers, numbers, st.booleans()), max_size=3).map(tuple),
    timeline=st.lists(st.tuples(*[st.integers()] * 4), max_size=3).map(tuple),
)
states = st.builds(
    ConnectionStates,
    st.lists(st.tuples(numbers, *[st.integers()] * 3), max_size=3).map(tuple),
    *[st.integers()] * 3,
    numbers,
)
arms = st.builds(
    ArmResult,
    name=st.text(),
    title=st.text(),
    stack=st.sampled_from(["stock", "headgate"]),
    setup=st.text(),
    parameters=parameters,
    paths=st.lists(paths, max_size=2).map(tuple),
    published=st.none() | st.builds(Published, st.text(), figures),
    prediction=st.none() | st.builds(Prediction, st.text(), numbers),
    connections=st.none() | states,
    lateness=distributions,
    generator_cpu=numbers,
    checks=st.lists(st.builds(Check, st.text(), st.booleans(), st.text()), max_size=2).map(tuple),
    figures=figures,
)
experiments = st.builds(
    ExperimentResult,
    **dict.fromkeys(("name", "question", "source", "explanation", "verdict"), st.text()),
    scaled=st.booleans(),
    parameters=parameters,
    arms=st.lists(arms, max_size=1).map(tuple),
    findings=st.lists(st.builds(Finding, st.text(), st.booleans(), st.text()), max_size=2).map(tuple),
    passed=st.booleans(),
)


def make_run(*experiments: ExperimentResult, notes: tuple[str, ...] = ()) -> Run:
    machine = Machine("Linux", "CPU «fast»", 2, 8, "CPython 3.11.7", {"sqlalchemy": "2.1"}, "18.4", 0.5)
    return Run(SCHEMA_VERSION, "0.1", "quick", "2026-01-01T00:00:00Z", 1.0, machine, experiments, True, notes)


@given(experiments)
def test_a_run_is_read_back_as_it_was(experiment: ExperimentResult) -> None:
    run = make_run(experiment, notes=("ä", ""))
    assert decode_run(json.loads(encode_run(run)), Path("results.json")) == run


def test_it_is_written_whole_into_a_directory_that_is_made(tmp_path: Path) -> None:
    path = write_run(make_run(), tmp_path / "new" / "lab")
    assert path == tmp_path / "new" / "lab" / "results.json"
    assert load_run(path) == load_run(path.parent) == make_run()
    assert [entry.name for entry in path.parent.iterdir()] == ["results.json"]
    mask = os.umask(0)
    os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~mask


def test_an_older_file_is_replaced(tmp_path: Path) -> None:
    write_run(make_run(), tmp_path)
    write_run(replace(make_run(), complete=False), tmp_path)
    assert not load_run(tmp_path).complete


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_full_disk_keeps_the_older_file_and_leaves_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    write_run(make_run(), tmp_path)

    def fail(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(output.os, step, fail)
    with pytest.raises(LabError, match=r"results\.json: No space left on device; choose another --output"):
        write_run(replace(make_run(), complete=False), tmp_path)
    assert load_run(tmp_path).complete
    assert len(list(tmp_path.iterdir())) == 1


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for directory in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(LabError, match=r"cannot write .*/file.*; choose another --output"):
            write_run(make_run(), directory)


def test_a_directory_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "results.json").mkdir()
    with pytest.raises(LabError, match="a directory of that name is in the way"):
        write_run(make_run(), tmp_path)


def test_not_a_number_is_never_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Out of range float"):
        write_run(replace(make_run(), duration=float("nan")), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_missing_or_no_json_is_named(tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"cannot read .*results\.json: No such file or directory; run the lab"):
        load_run(tmp_path)
    (tmp_path / "results.json").write_text(encode_run(make_run())[:-20])
    with pytest.raises(LabError, match=r"results\.json is no JSON: .*; run the lab again") as raised:
        load_run(tmp_path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("data", [[], None, {}, {"schema_version": 0}, {"schema_version": SCHEMA_VERSION + 1}])
def test_another_schema_is_refused(data: Any) -> None:
    with pytest.raises(LabError, match=rf"has schema version .*, not {SCHEMA_VERSION}; run the lab again"):
        decode_run(data, Path("results.json"))


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"mode": "slow"}, "run.mode is 'slow'"),
        ({"complete": 1}, "run.complete is int, not bool"),
        ({"duration": "1"}, "run.duration is str, not float"),
        ({"experiments": {}}, "run.experiments is dict, not list"),
        ({"machine": None}, "run.machine is NoneType, not dict"),
        ({"extra": 1}, "run.extra is unknown"),
        ({"notes": ["a", 2]}, r"run.notes\[1\] is int, not str"),
    ],
)
def test_a_damaged_file_is_refused_with_the_place(change: dict[str, Any], where: str) -> None:
    with pytest.raises(LabError, match=f"results.json is damaged: {where}; run the lab again"):
        decode_run(asdict(make_run()) | {"experiments": []} | {"notes": []} | change, Path("results.json"))


def test_a_missing_field_is_named_and_a_default_is_not_needed() -> None:
    data = json.loads(encode_run(make_run()))
    del data["notes"]
    assert decode_run(data, Path("x")) == make_run()
    del data["started_at"]
    with pytest.raises(LabError, match=r"run\.started_at is missing"):
        decode_run(data, Path("x"))


def test_rows_have_their_length() -> None:
    with pytest.raises(TypeError, match=r"x\.samples\[0\] has 2 entries, not 4"):
        decode(ConnectionStates, asdict(ConnectionStates((), 0, 0, 0, 0.0)) | {"samples": [[1, 2]]}, "x")
