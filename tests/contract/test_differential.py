"""No program can tell leased connections from stock ones, but for what is documented.

Programs are lists of steps, not runs of Hypothesis's rule-based state machine: an async driver's program must run in
one greenlet, and a list shrinks by leaving steps out, a hundred times faster, to a literal that ``Stage.play`` runs
again. Hypothesis draws one seed a program and remembers those that failed; were it to draw each step, it would favour
what is simple or has come before, and of ninety deeds a third would come in less than one program of thirty.
Every step can be taken at any time; where it makes no sense, both arms must say so alike.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings

from .differential.arms import DRIVERS, POSTGRESQL
from .differential.differences import DIFFERENCES, Difference
from .differential.programs import Program, programs
from .differential.stage import Stage

PROGRAMS = max(200, settings().max_examples)
"""A driver: 200 for every change, 10,000 with ``HYPOTHESIS_PROFILE=soak``."""

IS_SOAK = PROGRAMS >= 10_000
STEPS = 24 if IS_SOAK else 12
PROGRESS = 500
"""Programs between two lines of a soak's log."""

DOCUMENT = Path(__file__).parents[2] / "docs" / "runtime.md"


@pytest.mark.timeout(0 if IS_SOAK else 300)
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # stock forgets connections of pools it has disposed of
@pytest.mark.parametrize("driver", DRIVERS)
def test_no_program_can_tell_the_difference(
    driver: str, request: pytest.FixtureRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = request.getfixturevalue("postgres_url") if driver in POSTGRESQL else None
    stage = Stage(driver, url, tmp_path)

    def tell(*lines: str) -> None:
        with capsys.disabled():
            print(f"\ndifferential {driver}:", *lines, flush=True)

    @settings(
        max_examples=PROGRAMS,
        deadline=None,
        phases=(Phase.reuse, Phase.generate),
        suppress_health_check=list(HealthCheck),
    )
    @given(program=programs(driver, STEPS))
    def play(program: Program) -> None:
        assume(stage.try_out(program))
        if IS_SOAK and stage.tally.programs % PROGRESS == 0:
            tell(stage.tally.line())

    try:
        play()
    finally:
        stage.close()
        tell(stage.tally.line(), *([f"\n{stage.tally.table()}"] if IS_SOAK else []))
    assert stage.tally.programs >= PROGRAMS
    assert stage.tally.long_programs == stage.tally.programs or not IS_SOAK


@pytest.mark.parametrize("difference", DIFFERENCES, ids=lambda difference: difference.sentence[:30])
def test_every_difference_is_documented(difference: Difference) -> None:
    written = " ".join(DOCUMENT.read_text(encoding="utf-8").split())
    assert difference.sentence in written
