"""The experiment ``overload`` for real, in miniature: every way to serve every kind of work, the freeze, the report."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

import headgate.lab.trial
from headgate.errors import LabError
from headgate.lab import cores
from headgate.lab.connection import connect
from headgate.lab.delivery import write_outputs
from headgate.lab.experiment import Answer, Freeze, Trial
from headgate.lab.experiments import overload
from headgate.lab.experiments.overload_cases import (
    COMPUTE,
    EVERYBODY,
    HEADGATE,
    SCALES,
    SLEEP,
    STOCK,
    THREE_READS,
    UPDATE,
    Case,
    Contest,
    plan_arm,
)
from headgate.lab.experiments.overload_course import run_scale
from headgate.lab.machine import usable_cores
from headgate.lab.meter import family_cpu_seconds
from headgate.lab.output import load_run
from headgate.lab.postgres import EmbeddedPostgres
from headgate.lab.progress import Update
from headgate.lab.run import LabOptions, run_lab
from headgate.lab.trial import Freezer, Site, make_service, prepare_site, run_trial

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the embedded PostgreSQL needs Linux or macOS")

TINY = replace(
    SCALES["quick"],
    contests=(Contest(SLEEP, EVERYBODY, (0.5,)),),
    fractions=(0.3,),
    calibration_s=0.5,
    point_s=0.5,
    overload_s=0.3,
    after_s=1.0,
    before_s=0.4,
    frozen_s=0.6,
    thawed_s=0.5,
)


@pytest.mark.timeout(180)
def test_every_way_to_serve_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(headgate.lab.trial, "MAX_RUNS", 1)  # a busy machine must not make this take minutes
    before = cores.usable()
    experiment = replace(
        overload.EXPERIMENT,
        course=lambda plan, may_freeze: run_scale(TINY, may_freeze),
        judge=lambda parameters, results: Answer((), "not judged"),
    )
    with (tmp_path / "progress").open("w") as progress:
        run = run_lab(LabOptions((experiment,), "quick", tmp_path), Console(file=progress))
    write_outputs(run, tmp_path)

    assert load_run(tmp_path) == run
    arms = {arm.name: arm for arm in run.experiments[0].arms}
    assert len(arms) == 5 + 2
    points = [point for arm in arms.values() for point in arm.points]
    assert len(points) == 5
    for point in points:
        assert point.good + point.late + point.refused + point.failed == point.requests > 0
        assert point.good > 0
        assert point.ping_requests == 10
        assert point.usage.memory_peak >= point.usage.memory_start > 10 << 20
    frozen = {figure.name: figure.value for figure in arms["headgate-frozen"].figures}
    assert frozen["connections still in use when all were answered"] == 0
    assert "memory growth" in frozen
    assert cores.usable() == before, "this process has its cores back"


# One trial.


@pytest.fixture
def site(postgres: EmbeddedPostgres) -> Site:
    plan = overload.EXPERIMENT.plan("quick", usable_cores())
    return prepare_site(lambda url: overload.EXPERIMENT.prepare(plan, url), postgres)


@pytest.mark.parametrize("case", [STOCK, HEADGATE], ids=lambda case: case.name)
def test_one_service_does_every_kind_of_work(case: Case, site: Site, tmp_path: Path) -> None:
    arm = plan_arm(SLEEP, case, 3.0)
    with make_service(overload.EXPERIMENT, arm, site, log=tmp_path / "log") as service:
        for kind in (SLEEP, COMPUTE, UPDATE, UPDATE, THREE_READS):
            with urllib.request.urlopen(service.url + kind.path, timeout=20) as answer:
                assert json.load(answer) == {"done": True}
    assert site.url is not None
    with connect(site.url) as connection:
        assert connection.execute("SELECT value FROM counter").fetchone() == (2,)


def test_the_server_is_frozen_meanwhile_and_let_go(site: Site, tmp_path: Path) -> None:
    arm = plan_arm(SLEEP, HEADGATE, 3.0)
    trial = Trial(arm, arm.load, metered=True, freeze=Freeze(after_s=0.3, for_s=0.4))
    log = tmp_path / "log"
    measured = run_trial(trial, make_service(overload.EXPERIMENT, arm, site, log=log), site, log=log, show=silent)
    assert measured.frozen_ns is not None
    frozen_s, thawed_s = (at_ns / 1e9 for at_ns in measured.frozen_ns)
    assert frozen_s == pytest.approx(0.3, abs=0.25)
    assert thawed_s - frozen_s == pytest.approx(0.4, abs=0.25)
    waited = [sample for sample in measured.samples if sample.target == "/sleep" and sample.success]
    assert not any(frozen_s + 0.1 < sample.ended_ns / 1e9 < thawed_s for sample in waited)
    assert measured.readings[0].at_ns < 0, "the first from before the load"
    assert measured.readings[-1].service_cpu_s > 0


def test_only_the_labs_own_server_is_frozen(site: Site, tmp_path: Path) -> None:
    arm = plan_arm(SLEEP, STOCK, 3.0)
    foreign = replace(site, embedded=None)
    trial = Trial(arm, arm.load, freeze=Freeze(0.0, 0.1))
    service = make_service(overload.EXPERIMENT, arm, foreign, log=tmp_path / "log")
    with pytest.raises(LabError, match="never frozen"):
        run_trial(trial, service, foreign, log=tmp_path / "log", show=silent)


def test_a_server_is_let_go_when_the_load_ends_before_its_time(postgres: EmbeddedPostgres) -> None:
    with Freezer(postgres, Freeze(after_s=0.0, for_s=60.0)) as freezer:
        while not freezer.times(0)[0]:
            time.sleep(0.01)
    with connect(postgres.url()) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


@contextmanager
def silent() -> Iterator[Update]:
    yield lambda done: None


@pytest.mark.skipif(not cores.usable(), reason="processes cannot choose their cores here")
def test_a_process_keeps_the_cores_it_was_started_on() -> None:
    core = cores.usable()[:1]
    with cores.running_on(core):
        assert cores.usable() == core
        process = subprocess.Popen(["sleep", "60"])
    try:
        assert tuple(os.sched_getaffinity(process.pid)) == core
        assert cores.usable() != core or len(cores.usable()) == 1
    finally:
        process.kill()
        process.wait()


def test_the_servers_processors_are_those_of_its_whole_family(postgres: EmbeddedPostgres) -> None:
    before_s = family_cpu_seconds(postgres.pid)
    with connect(postgres.url()) as connection:
        connection.execute("SELECT sum(i) FROM generate_series(1, 2000000) i")
        during_s = family_cpu_seconds(postgres.pid)
    assert during_s - before_s >= 0.05
    assert family_cpu_seconds(None) == 0.0
