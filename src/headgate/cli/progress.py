"""How far a load has come, as a bar on a terminal and as nothing anywhere else."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.util import find_spec

from headgate.load.driver import OnProgress, Progress


def progress_bar(title: str = "") -> AbstractContextManager[OnProgress | None]:
    """What the load tells its progress to, while the block runs."""
    return _rich_bar(title) if sys.stderr.isatty() and find_spec("rich") else nullcontext()


@contextmanager
def _rich_bar(title: str) -> Iterator[OnProgress]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True, auto_refresh=False) as bar:
        task = bar.add_task(title, total=None)

        def show(progress: Progress) -> None:
            waiting = f"{progress.issued - progress.finished} in flight, {progress.failed} failed"
            bar.update(
                task,
                total=progress.planned,
                completed=progress.finished,
                description=f"{title}: {waiting}" if title else waiting,
            )
            bar.refresh()

        yield show
