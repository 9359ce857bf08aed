"""SQLModel's own tests, over SQLAlchemy's pools and over ours, on PostgreSQL and over SQLite files.

As they come, nearly all of them use one in-memory SQLite connection that everybody shares, where nothing can be leased
and nothing would be shown. SQLModel runs those with a database also on PostgreSQL, by ``DATABASE_URL``; over files they
run because a plugin makes a file of each in-memory database.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import tomllib
import venv
from importlib.metadata import version
from pathlib import Path

from arms import Suite, run_suites
from sources import fetch_source

SQLMODEL = "0.0.50"
LIKE_OURS = ("sqlalchemy", "psycopg", "psycopg-binary", "aiosqlite")
"""What decides whether a run says anything about us comes in the version that is installed here."""


def make_environment(directory: Path, root: Path) -> Path:
    """A virtual environment with what SQLModel's tests ask for; returns its interpreter."""
    groups = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["dependency-groups"]
    asked_for = [one for group in ("tests", "tests-postgres") for one in groups[group] if isinstance(one, str)]
    ours = [f"{name}=={version(name)}" for name in LIKE_OURS]
    venv.create(directory, with_pip=True)
    python = directory / "bin" / "python"
    install = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    done = subprocess.run([*install, *asked_for, *ours], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"soak: cannot install what SQLModel's tests need:\n{done.stderr}")
    return python


def suites(root: Path, python: Path) -> list[Suite]:
    """The same tests twice: on a server, and over files."""
    name = f"SQLModel {SQLMODEL}"
    return [
        Suite(f"{name} on PostgreSQL", root, ("tests",), python, "postgresql+psycopg", lambda url: ()),
        Suite(f"{name} over SQLite files", root, ("tests",), python, "sqlite", lambda url: ("-p", "sqlite_files")),
    ]


def main() -> int:
    """Run everything."""
    with tempfile.TemporaryDirectory(prefix="headgate-soak-") as directory:
        root = fetch_source(f"sqlmodel=={SQLMODEL}", Path(directory))
        (root / "coverage").mkdir()  # some of its tests copy their coverage there
        return run_suites(suites(root, make_environment(Path(directory, "venv"), root)))


if __name__ == "__main__":
    sys.exit(main())
