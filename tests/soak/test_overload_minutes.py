"""Overload for a minute at each load: stock, the best pool_timeout and Headgate, above what ten seconds show.

The report stays in ``.soak/overload``. Takes a quarter of an hour; what else runs meanwhile makes it void.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from headgate.lab.delivery import write_outputs
from headgate.lab.experiment import Course, Plan
from headgate.lab.experiments import overload
from headgate.lab.experiments.overload_answer import GOODPUT_TARGETS, curve_of
from headgate.lab.experiments.overload_cases import RIVALS, SCALES, SLEEP, Contest
from headgate.lab.experiments.overload_course import run_scale
from headgate.lab.report.reading import has_void
from headgate.lab.run import LabOptions, run_lab

OUTPUT = Path(__file__).parents[2] / ".soak" / "overload"

MINUTES = replace(
    SCALES["full"], contests=(Contest(SLEEP, RIVALS, tuple(GOODPUT_TARGETS)),), point_s=60.0, endured_by=()
)


def run_minutes(plan: Plan, may_freeze: bool) -> Course:
    return run_scale(MINUTES, may_freeze)


@pytest.mark.skipif(not os.environ.get("HEADGATE_SOAK"), reason="a quarter of an hour on an idle machine: make soak")
@pytest.mark.timeout(0)
def test_goodput_stays_what_it_is_for_a_minute() -> None:
    experiment = replace(overload.EXPERIMENT, course=run_minutes)
    run = run_lab(LabOptions((experiment,), "full", OUTPUT), Console())
    write_outputs(run, OUTPUT)
    arms = {arm.name: arm for arm in run.experiments[0].arms}
    if any(map(has_void, arms.values())):
        pytest.skip(f"void: something else ran meanwhile; the report is in {OUTPUT}")
    shares = {multiple: middle.share for multiple, middle in curve_of(arms, "headgate", "sleep").items()}
    assert {multiple: share for multiple, share in shares.items() if share < GOODPUT_TARGETS[multiple]} == {}
