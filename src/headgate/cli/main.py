"""``headgate``: finds the subcommand, and turns whatever ends it into one line and an exit code."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from headgate.cli import lab, load, plan, run, xray
from headgate.cli.exits import FAILURE, INTERRUPTED, one_line
from headgate.errors import HeadgateError
from headgate.version import __version__


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code: 0 done, 1 failed, 2 wrong usage, 130 interrupted, 143 terminated.

    Raises SystemExit where argparse does: after ``--help`` and ``--version``, and with 2 for wrong usage.
    """
    try:
        return _run(argv)
    except BrokenPipeError:
        _silence_stdout()
        return FAILURE
    except HeadgateError as error:
        print(f"headgate: {one_line(error)}", file=sys.stderr)
        return FAILURE
    except KeyboardInterrupt:
        print("headgate: interrupted", file=sys.stderr)
        return INTERRUPTED


def _run(argv: Sequence[str] | None) -> int:
    try:
        args = make_parser().parse_args(argv)
        code: int = args.run(args)
        return code
    finally:
        # Here, where a closed pipe is still a BrokenPipeError and not a message of the interpreter's end.
        sys.stdout.flush()


def _silence_stdout() -> None:
    """Send what is still buffered nowhere: the interpreter flushes again when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command; every subcommand's arguments carry its function as ``run``."""
    parser = argparse.ArgumentParser(
        prog="headgate",
        description="Back pressure and leased database connections for FastAPI + SQLAlchemy.",
    )
    parser.add_argument("--version", action="version", version=f"headgate {__version__}")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    lab.add_parser(subparsers)
    load.add_parser(subparsers)
    plan.add_parser(subparsers)
    run.add_parser(subparsers)
    xray.add_parser(subparsers)
    return parser
