"""`make matrix`: the unit, house and contract tests over every Python and SQLAlchemy that Headgate promises to bear.

It runs with what the machine has and says what it skips and why. Each cell has a virtual environment below `.matrix/`.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).parents[2]
BUILD = ROOT / ".matrix"
PROMISED = ((3, 11), (3, 12), (3, 13))
NEWEST_MINOR = 20
OLDEST_SQLALCHEMY = "2.0.43"
TESTS = ("tests/unit", "tests/house", "tests/contract")
TIMEOUT_S = 3600
PIN = re.compile(r"^sqlalchemy==(\S+)$", re.IGNORECASE | re.MULTILINE)
ASK = "import sqlite3, ssl, sys, venv; print(*sys.version_info[:3], sys.version_info.releaselevel)"
"""A Python built without one of these modules cannot run the tests."""


@dataclass(frozen=True, slots=True)
class Python:
    """An interpreter that works."""

    path: Path
    version: tuple[int, int, int]

    @property
    def label(self) -> str:
        """Its version for people."""
        return ".".join(map(str, self.version))


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table at the end."""

    python: str
    sqlalchemy: str
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0
    remark: str = ""
    is_fine: bool = True


# what there is


def pinned_sqlalchemy(constraints: str) -> str:
    """The version that the constraints pin."""
    found = PIN.search(constraints)
    if found is None:
        raise SystemExit("matrix: constraints.txt pins no SQLAlchemy")
    return found[1]


def candidates() -> Iterator[Path]:
    """Where interpreters may be: the one that runs this, the PATH, pyenv's versions; of two alike the last is taken."""
    yield Path(sys.executable)
    for minor in range(PROMISED[0][1], NEWEST_MINOR):
        if found := shutil.which(f"python3.{minor}"):
            yield Path(found)
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    yield from sorted(pyenv.glob("versions/3.*/bin/python"))


def ask_version(path: Path) -> Python | None:
    """The interpreter behind a path; None if it does not start, lacks a module or is no release (pyenv's shims)."""
    try:
        asked = subprocess.run([path, "-I", "-c", ASK], capture_output=True, text=True, check=False)
    except OSError:
        return None
    if asked.returncode:
        return None
    major, minor, micro, level = asked.stdout.split()
    return Python(path, (int(major), int(minor), int(micro))) if level == "final" else None


def newest_of_each(pythons: list[Python]) -> dict[tuple[int, int], Python]:
    """One interpreter a minor version: the newest of those promised, and of any that are newer."""
    chosen = {python.version[:2]: python for python in sorted(pythons, key=lambda one: one.version)}
    return {version: python for version, python in sorted(chosen.items()) if version >= PROMISED[0]}


# one cell


def run_cell(python: Python, sqlalchemy: str) -> Row:
    """Set one environment up and run the tests in it."""
    directory = BUILD / f"python{python.version[0]}.{python.version[1]}-sqlalchemy{sqlalchemy}"
    print(f"== Python {python.label}, SQLAlchemy {sqlalchemy}", flush=True)
    problem = set_up(directory, python, sqlalchemy)
    if problem:
        is_promised = python.version[:2] in PROMISED
        remark = f"{'cannot be set up' if is_promised else 'skipped, cannot be set up yet'}: {problem}"
        return Row(python.label, sqlalchemy, remark=remark, is_fine=not is_promised)
    return run_tests(directory, python, sqlalchemy)


def set_up(directory: Path, python: Python, sqlalchemy: str) -> str:
    """Make the environment, unless it is there already and still right; returns what went wrong."""
    constraints = PIN.sub(f"sqlalchemy=={sqlalchemy}", read("constraints.txt"))
    mark = hashlib.sha256(
        f"{python.path}\n{python.label}\n{constraints}\n{read('pyproject.toml')}".encode()
    ).hexdigest()
    ready = directory / "ready"
    if ready.exists() and ready.read_text(encoding="utf-8") == mark:
        return ""
    if directory.exists():
        shutil.rmtree(directory)
    directory.mkdir(parents=True)
    pinned = directory / "constraints.txt"
    pinned.write_text(constraints, encoding="utf-8")
    pip: list[str | Path] = [directory / "venv/bin/python", "-m", "pip", "--disable-pip-version-check"]
    problem = run_quietly([python.path, "-m", "venv", directory / "venv"])
    problem = problem or run_quietly([*pip, "install", "--quiet", "-c", pinned, "-e", f"{ROOT}[dev]"])
    if not problem:
        ready.write_text(mark, encoding="utf-8")
    return problem


def read(name: str) -> str:
    """A file of the repository."""
    return (ROOT / name).read_text(encoding="utf-8")


def run_quietly(command: list[str | Path]) -> str:
    """Run a command; returns the last line of what it complained about, if it failed."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1] if done.returncode else ""


def run_tests(directory: Path, python: Python, sqlalchemy: str) -> Row:
    """Run the tests; everything they say goes to a log, the counts come from pytest's report."""
    report, log = directory / "report.xml", directory / "pytest.log"
    report.unlink(missing_ok=True)
    command: list[str | Path] = [
        directory / "venv/bin/python",
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        f"--junitxml={report}",
    ]
    began_s = time.monotonic()
    with log.open("wb") as output:
        try:
            code = subprocess.run(
                [*command, *TESTS], cwd=ROOT, stdout=output, stderr=output, timeout=TIMEOUT_S, check=False
            ).returncode
        except subprocess.TimeoutExpired:
            code = -1
    seconds = time.monotonic() - began_s
    if not report.exists():
        remark = f"pytest ended without a report (exit code {code}): {log.relative_to(ROOT)}"
        return Row(python.label, sqlalchemy, seconds=seconds, remark=remark, is_fine=False)
    passed, failed, skipped = counts_in(report.read_text(encoding="utf-8"))
    remark = "" if code == 0 else str(log.relative_to(ROOT))
    return Row(python.label, sqlalchemy, passed, failed, skipped, seconds, remark, is_fine=code == 0)


def counts_in(report: str) -> tuple[int, int, int]:
    """Passed, failed (with errors) and skipped, of a JUnit report."""
    suite = ElementTree.fromstring(report).find("testsuite")
    assert suite is not None
    total, failures, errors, skipped = (int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped"))
    return total - failures - errors - skipped, failures + errors, skipped


# all of them


def table(rows: list[Row]) -> str:
    """What ran, what came of it, and what did not run."""
    lines = [f"{'Python':8} {'SQLAlchemy':10} {'passed':>7} {'failed':>7} {'skipped':>7} {'s':>5}"]
    for row in rows:
        counts = (row.passed, row.failed, row.skipped, round(row.seconds)) if row.seconds else ("-",) * 4
        cells = "{:>7} {:>7} {:>7} {:>5}".format(*counts)
        lines.append(f"{row.python:8} {row.sqlalchemy:10} {cells}  {row.remark}".rstrip())
    return "\n".join(lines)


def main() -> int:
    """Run every cell that can be run; the exit code is 0 if nothing failed."""
    versions = (OLDEST_SQLALCHEMY, pinned_sqlalchemy(read("constraints.txt")))
    chosen = newest_of_each([python for path in candidates() if (python := ask_version(path))])
    rows = [
        Row(f"{major}.{minor}", "", remark="skipped: no such Python on PATH or among pyenv's versions")
        for major, minor in PROMISED
        if (major, minor) not in chosen
    ]
    rows += [run_cell(python, sqlalchemy) for python in chosen.values() for sqlalchemy in versions]
    print(table(sorted(rows, key=lambda row: [int(part) for part in row.python.split(".")])))
    return 0 if all(row.is_fine for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
