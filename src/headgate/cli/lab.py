"""``headgate lab``: runs published experiments again, or serves one of their services.

What needs the extra ``lab`` is imported when the command runs, so that the others work without it.
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from headgate.cli.exits import FAILURE, INTERRUPTED, TERMINATED, USAGE, one_line
from headgate.cli.signals import Terminated, ending_on_sigterm
from headgate.errors import HostingError, LabError

if TYPE_CHECKING:
    from rich.console import Console

    from headgate.lab.experiment import Arm, Experiment
    from headgate.lab.results import Mode, Run
    from headgate.lab.run import LabOptions

SERVE = "serve"
DEFAULT_MODE: Mode = "quick"
DEFAULT_OUTPUT = "lab-report"
LOG_WIDTH = 120
"""Columns of a table that goes into a file or a pipe, unless COLUMNS says otherwise."""

# The extra's packages by the name they are imported by; uvloop is checked by its absence on Windows alone.
_EXTRA = ("aiosqlite", "alembic", "asyncpg", "fastapi", "httptools", "jinja2", "psutil", "psycopg", "rich", "uvicorn")
_POLL_SECONDS = 0.5

_USAGE = """\
headgate lab [NAME ...] [--quick | --full] [--list] [--output DIR] [--database URL] [--strict]
       headgate lab serve NAME [--arm ARM] [--port N] [--quick | --full] [--database URL]"""

_EPILOG = """\
exit codes: 0 whatever the verdicts say (--strict: 1 if one fails or an arm is void), 1 failure, 2 wrong usage,
130 interrupted, 143 terminated

examples:
  headgate lab                     every experiment, scaled down
  headgate lab sleep --full        one experiment with the published parameters
  headgate lab serve sleep --arm headgate-async-inside --port 8000"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command; its arguments carry ``run`` as their ``run``."""
    parser = subparsers.add_parser(
        "lab",
        help="run published experiments again, stock beside Headgate",
        usage=_USAGE,
        description="Run published experiments again on this machine, stock beside Headgate;\n"
        "or serve one of their services alone, for curl or a load tool of your own.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("names", nargs="*", metavar="NAME", help="experiments to run (default: all)")
    modes = parser.add_mutually_exclusive_group()
    modes.add_argument("--quick", dest="mode", action="store_const", const="quick", help="scaled down (default)")
    modes.add_argument("--full", dest="mode", action="store_const", const="full", help="as published")
    add("--list", action="store_true", help="list the experiments")
    add("--output", metavar="DIR", help=f"for results.json and report.html (default: {DEFAULT_OUTPUT})")
    add(
        "--database",
        metavar="URL",
        help="a PostgreSQL that is already there; a database of its own is made and dropped",
    )
    add("--strict", action="store_true", help="exit with 1 if a verdict fails or an arm is void")
    add("--arm", metavar="ARM", help="serve: which arm's service (default: the first)")
    add("--port", metavar="N", help="serve: where to listen (default: a free port)")
    parser.set_defaults(run=run, mode=DEFAULT_MODE)


def run(args: argparse.Namespace) -> int:
    """Run the command. Returns the exit code: 0, 1 failed, 2 wrong usage, 130 interrupted, 143 terminated."""
    if missing := find_missing():
        return _complain(f"the lab needs the package {missing}; pip install 'headgate[lab]'", FAILURE)
    try:
        command = _choose_command(args)
    except LabError as error:
        return _complain(one_line(error), USAGE)
    try:
        with ending_on_sigterm():
            return command()
    except (LabError, HostingError) as error:
        return _complain(one_line(error), FAILURE)
    except KeyboardInterrupt:
        return _complain("interrupted", INTERRUPTED)
    except Terminated:
        return _complain("terminated", TERMINATED)


def find_missing() -> str | None:
    """Return the first package of the extra ``lab`` that is not installed."""
    return next((name for name in _EXTRA if find_spec(name) is None), None)


def _complain(line: str, code: int) -> int:
    print(f"headgate: {line}", file=sys.stderr)
    return code


# What is asked for.


def _choose_command(args: argparse.Namespace) -> Callable[[], int]:
    """Return what the arguments ask for, checked. Raises LabError that names the value and the remedy."""
    from headgate.lab.experiments import EXPERIMENTS
    from headgate.lab.external_postgres import parse_url
    from headgate.lab.run import LabOptions

    if args.list:
        return lambda: _list_experiments(EXPERIMENTS)
    serves = args.names[:1] == [SERVE]
    names = args.names[1:] if serves else args.names
    if args.database is not None:
        parse_url(args.database)
    options = LabOptions(
        experiments=choose_experiments(names, EXPERIMENTS),
        mode=args.mode,
        output=Path(args.output or DEFAULT_OUTPUT),
        database=args.database,
    )
    if not serves:
        _refuse(args, ("arm", "port"), f"headgate lab {SERVE} NAME")
        return lambda: _run_experiments(options, strict=args.strict)
    _refuse(args, ("output", "strict"), "headgate lab NAME")
    if len(names) != 1:
        raise LabError(f"headgate lab {SERVE} takes one experiment, not {len(names)}; name one")
    arm, port = choose_arm(args.arm, options), parse_port(args.port)
    return lambda: _serve(options, arm, port)


def _refuse(args: argparse.Namespace, options: Sequence[str], home: str) -> None:
    for name in options:
        if getattr(args, name):
            raise LabError(f"--{name} has no meaning here; it belongs to «{home}»")


def choose_experiments(names: Sequence[str], known: Sequence[Experiment]) -> tuple[Experiment, ...]:
    """Return the named experiments, each once, in the order named; all of them without a name.

    Raises LabError for an unknown name.
    """
    by_name = {experiment.name: experiment for experiment in known}
    for name in names:
        if name not in by_name:
            raise LabError(_explain_unknown("experiment", name, list(by_name)))
    return tuple(by_name[name] for name in dict.fromkeys(names or by_name))


def choose_arm(name: str | None, options: LabOptions) -> Arm:
    """Return the named arm of the one experiment, or its first. Raises LabError for an unknown name."""
    from headgate.lab.machine import usable_cores

    [experiment] = options.experiments
    arms = {arm.name: arm for arm in experiment.plan(options.mode, usable_cores()).arms}
    if name is None:
        return next(iter(arms.values()))
    if name not in arms:
        raise LabError(_explain_unknown(f"arm of {experiment.name}", name, list(arms)))
    return arms[name]


def service_paths(options: LabOptions) -> tuple[str, ...]:
    """Return every path that the services of the one experiment serve; they differ in their engines alone."""
    from headgate.lab.machine import usable_cores

    [experiment] = options.experiments
    arms = experiment.plan(options.mode, usable_cores()).arms
    return tuple(dict.fromkeys(ask.path for arm in arms for ask in arm.load.asks))


def _explain_unknown(kind: str, name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=2)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    return f"there is no {kind} {name!r}; {hint}choose from {', '.join(known)}"


def parse_port(text: str | None) -> int:
    """Return the port, 0 for a free one. Raises LabError."""
    if text is None:
        return 0
    if not re.fullmatch(r"\d{1,5}", text, re.ASCII) or not 0 < int(text) < 65536:
        raise LabError(f"--port {text} is no port; give a number from 1 to 65535")
    return int(text)


# Doing it.


def _list_experiments(experiments: Sequence[Experiment]) -> int:
    width = max(len(experiment.name) for experiment in experiments)
    for experiment in experiments:
        print(f"{experiment.name:<{width}}  {experiment.question}")
    return 0


def _run_experiments(options: LabOptions, *, strict: bool) -> int:
    from headgate.lab.delivery import check_output, write_outputs
    from headgate.lab.report.terminal import print_run
    from headgate.lab.run import run_lab

    check_output(options.output)
    result = run_lab(options, _make_console(stderr=True))
    try:
        written = write_outputs(result, options.output)
    finally:
        # Also where writing failed: the figures took minutes.
        print_run(result, _make_console())
    for path in written:
        print(path)
    return FAILURE if strict and not _is_proved(result) else 0


def _is_proved(result: Run) -> bool:
    from headgate.lab.report.reading import has_void

    return all(experiment.passed and not any(map(has_void, experiment.arms)) for experiment in result.experiments)


def _make_console(*, stderr: bool = False) -> Console:
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    fixed = None if stream.isatty() or "COLUMNS" in os.environ else LOG_WIDTH
    return Console(stderr=stderr, width=fixed)


def _serve(options: LabOptions, arm: Arm, port: int) -> int:
    from headgate.lab.run import serve_arm

    with serve_arm(options, arm, port) as service:
        print(f"arm {arm.name}: {arm.setup}")
        for path in service_paths(options):
            print(f"{service.url}{path}")
        print("Ctrl-C ends it.", flush=True)
        while True:
            time.sleep(_POLL_SECONDS)
            service.check_running()
