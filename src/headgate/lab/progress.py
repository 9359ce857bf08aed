"""Progress of a lab run: bars on a terminal, one plain line per arm's start and end anywhere else."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

Update = Callable[[int], None]
"""Takes how many of the arm's ``total`` are done so far."""


class LabProgress:
    """Shows which arm runs and how far it is: ``with LabProgress(console) as progress``.

    :param console: where to show it; bars only if it is a terminal, so that logs stay readable.
    :param clock: nanoseconds, monotonic.
    """

    def __init__(self, console: Console, *, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._console = console
        self._clock = clock
        self._bars = _make_bars(console) if console.is_terminal else None

    def __enter__(self) -> LabProgress:
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def note(self, line: str) -> None:
        """Say something between two arms."""
        self._print_line(line)

    @contextmanager
    def arm(self, experiment: str, title: str, *, total: int) -> Iterator[Update]:
        """Show one arm while the block runs; the block calls the update with the count done so far."""
        name = f"{experiment}: {title}"
        if self._bars is not None:
            yield from self._show_bar(self._bars, name, total)
        else:
            yield from self._print_lines(name, total)

    def _show_bar(self, bars: Progress, name: str, total: int) -> Iterator[Update]:
        task = bars.add_task(escape(name), total=total)
        try:
            yield lambda done: bars.update(task, completed=done)
        finally:
            bars.stop_task(task)

    def _print_lines(self, name: str, total: int) -> Iterator[Update]:
        started_ns = self._clock()
        latest = 0

        def update(done: int) -> None:
            nonlocal latest
            latest = done

        self._print_line(f"{name}: started, {total:,} to do")
        ending = "stopped"
        try:
            yield update
            ending = "done"
        finally:
            elapsed_s = (self._clock() - started_ns) / 1e9
            self._print_line(f"{name}: {ending}, {latest:,} of {total:,} in {elapsed_s:.1f} s")

    def _print_line(self, line: str) -> None:
        if self._console.options.ascii_only:
            line = line.encode("ascii", "replace").decode()
        # No wrapping: a log's line is a line, however narrow the log says it is.
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


def _make_bars(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    )
