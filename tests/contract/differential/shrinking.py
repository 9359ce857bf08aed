"""A failing program made short: steps are left out, and settings put back, as long as it still fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from .programs import Program

CHUNKS = (8, 4, 2, 1)


def shrink(program: Program, fails: Callable[[Program], bool]) -> Program:
    """The shortest program found by taking the first shorter one that fails, again and again."""
    while (shorter := next(filter(fails, _shorter(program)), None)) is not None:
        program = shorter
    return program


def _shorter(program: Program) -> Iterator[Program]:
    for size in CHUNKS:
        for start in range(0, len(program.steps), size):
            yield Program(program.setting, program.steps[:start] + program.steps[start + size :])
    unusual = program.setting.unusual()
    for name in unusual:
        yield Program(program.setting.only([other for other in unusual if other != name]), program.steps)
