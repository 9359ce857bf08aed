"""Writes what a run leaves behind, and finds out before the run whether it will be possible."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from headgate.errors import LabError
from headgate.lab.output import FILE_NAME, encode_run, write_atomically
from headgate.lab.report.html import render_html
from headgate.lab.results import Run

REPORT_NAME = "report.html"

_PROBE_BYTES = 8 << 20
"""About twice what all experiments write."""


def check_output(directory: Path) -> None:
    """Make the directory and try to fill some of it. Raises LabError, so that no run is wasted."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name in (FILE_NAME, REPORT_NAME):
            if (directory / name).is_dir():
                raise IsADirectoryError(None, f"a directory named {name} is in the way")
        _probe(directory)
    except OSError as error:
        raise LabError(f"cannot write results into {directory}: {error.strerror}; choose another --output") from None


def _probe(directory: Path) -> None:
    with tempfile.TemporaryFile(dir=directory, buffering=0) as file:
        left = _PROBE_BYTES
        while left:  # a nearly full disk takes a part at first
            left -= file.write(bytes(left)) or 0
        os.fsync(file.fileno())


def write_outputs(run: Run, directory: Path) -> tuple[Path, Path]:
    """Write ``results.json`` and ``report.html``, each whole or not at all, and return their paths.

    Both are made before the first is written. Raises LabError.
    """
    results, report = encode_run(run), render_html(run)
    return (
        write_atomically(directory / FILE_NAME, results),
        write_atomically(directory / REPORT_NAME, report),
    )
