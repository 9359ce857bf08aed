"""``headgate run``: starts a service's own command, with the X-ray in every Python process of it."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path

from headgate.cli.arguments import given
from headgate.cli.exits import USAGE, one_line
from headgate.errors import HeadgateError

NOT_EXECUTABLE = 126
NOT_FOUND = 127
"""As shells report them."""

_EXAMPLES = """\
examples:
  headgate run -- uvicorn app:app --workers 4
  headgate run -- gunicorn app:app -k uvicorn_worker.UvicornWorker
  headgate run --overdue 5 -- fastapi run app.py

From then on a pool's timeout says in the log, as headgate.xray, who holds the
connections, and those held for too long or left behind are reported. Exit code
and signals are the command's own.
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command; its arguments carry ``run`` as their ``run``."""
    parser = subparsers.add_parser(
        "run",
        help="start a service unchanged, and have it say who holds its connections",
        description="Starts COMMAND with the X-ray in every Python process of it, workers and reloads included.",
        usage="headgate run [--overdue SECONDS] -- COMMAND ...",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--overdue", metavar="SECONDS", help="report connections held for longer (default: 10; 0: never)")
    add("command", nargs=argparse.REMAINDER, metavar="COMMAND", help="what you start the service with")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Become the command. Returns only if that fails: 2 wrong usage, 126 and 127 as shells do; on Windows its code."""
    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    if not command:
        return _complain("no command; give what you start the service with: headgate run -- uvicorn app:app", USAGE)
    try:
        environment = os.environ | _chosen(args.overdue)
    except HeadgateError as error:
        return _complain(one_line(error), USAGE)
    program = find_program(command[0])
    if program is None:
        return _complain(f"no command {command[0]!r}; is it installed, and on PATH?", NOT_FOUND)
    try:
        return _become(program, command, with_preload(environment))
    except OSError as error:
        return _complain(f"cannot start {program}: {error.strerror}", NOT_EXECUTABLE)


def _chosen(overdue: str | None) -> dict[str, str]:
    from headgate.xray.options import DEFAULTS, WatchOptions, to_environment

    if overdue is None:
        return {}
    return to_environment(WatchOptions(float(given("--overdue", overdue, Fraction, DEFAULTS.overdue_s))))


def with_preload(environment: Mapping[str, str]) -> dict[str, str]:
    """The same, with ours as the first ``sitecustomize`` that Python finds."""
    import headgate.xray

    ours = str(Path(headgate.xray.__file__).with_name("preload"))
    present = environment.get("PYTHONPATH")
    others = [entry for entry in present.split(os.pathsep) if entry != ours] if present else []
    return {**environment, "PYTHONPATH": os.pathsep.join([ours, *others])}


def find_program(name: str) -> str | None:
    """The file of a command: the shell's, or one that is installed beside this Python; None if there is none."""
    return shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))


def _become(program: str, command: Sequence[str], environment: Mapping[str, str]) -> int:
    sys.stdout.flush()
    sys.stderr.flush()
    if sys.platform == "win32":  # there exec is a new process, which the shell does not wait for
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the child too, and is its business
        return subprocess.run([program, *command[1:]], env=dict(environment), check=False).returncode
    for name in ("SIGPIPE", "SIGXFSZ"):  # Python ignores them, and what is ignored stays so
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_DFL)
    return os.execve(program, list(command), environment)


def _complain(message: str, code: int) -> int:
    print(f"headgate run: error: {message}", file=sys.stderr)
    return code
