"""SQLAlchemy's own tests of the ORM, of transactions and of asyncio, over SQLAlchemy's pools and over ours."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import sqlalchemy
from arms import Suite, run_suites
from sources import fetch_source

PATHS = {
    "test/ext/asyncio": "asyncpg",
    "test/engine/test_transaction.py": "psycopg",
    "test/orm": "psycopg",
}


def suites(root: Path, paths: list[str]) -> list[Suite]:
    """One suite a path: a driver each, and a list of differences that is checked in full."""
    return [
        Suite(
            name=f"SQLAlchemy {sqlalchemy.__version__} {path} with {PATHS[path]}",
            root=root,
            paths=(path,),
            python=Path(sys.executable),
            drivername=f"postgresql+{PATHS[path]}",
            arguments=lambda url: ("-p", "without_extensions", "--dburi", url),
        )
        for path in paths
    ]


def main(paths: list[str]) -> int:
    """Run what was asked for, everything by default."""
    if unknown := [path for path in paths if path not in PATHS]:
        raise SystemExit(f"soak: {unknown[0]!r} is none of {', '.join(PATHS)}")
    with tempfile.TemporaryDirectory(prefix="headgate-soak-") as directory:
        root = fetch_source(f"sqlalchemy=={sqlalchemy.__version__}", Path(directory))
        return run_suites(suites(root, paths or list(PATHS)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
