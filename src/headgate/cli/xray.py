"""``headgate xray``: runs an app unchanged under load and says what limits it."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from fractions import Fraction
from importlib.util import find_spec
from typing import Any

from headgate.cli.arguments import body, given, header, number
from headgate.cli.exits import FAILURE, USAGE, one_line
from headgate.errors import HeadgateError, XrayError

NEEDED = ("uvicorn", "httptools", "psutil")

_EXAMPLES = """\
examples:
  headgate xray app:app --get /items/1 --get /ping
  headgate xray shop.main:create_app --factory --get /orders --rate 50 --duration 10
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command; its arguments carry ``run`` as their ``run``."""
    parser = subparsers.add_parser(
        "xray",
        help="run an app unchanged under load and say what limits it",
        description="Serves APP as it is, in a process of its own, offers it a load, and says what limits each route.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("app", metavar="MODULE:APP", help="what uvicorn would be given")
    add("--get", action="append", default=[], metavar="PATH", help="request this path; may be given several times")
    add("--post", action="append", default=[], metavar="PATH", help="likewise, with --body")
    add("--header", action="append", default=[], metavar="'NAME: VALUE'", help="of every request")
    add("--body", default="", help="text that --post sends, or @FILE")
    add("--rate", help="requests per second for each path (default: 100)")
    add("--duration", help="seconds to send for (default: 5)")
    add("--timeout", default="30", help="seconds to wait for each answer (default: %(default)s)")
    add("--max-connections", metavar="N", help="connections of the client at most (default: as many as it takes)")
    add("--factory", action="store_true", help="APP is a function that makes the app")
    add("--app-dir", default=".", metavar="DIR", help="where to import from (default: here)")
    add("--against", action="append", default=[], metavar="HOST", help="a database's host that the load may meet")
    add("--json", action="store_true", help="print the explanation as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command. Returns the exit code: 0 explained, 1 failed, 2 wrong usage."""
    if missing := next((name for name in NEEDED if find_spec(name) is None), None):
        return _complain(f"the X-ray needs the package {missing}; pip install 'headgate[xray]'", FAILURE)
    from headgate.xray.explain import explain
    from headgate.xray.probe import xray
    from headgate.xray.text import format_explanation

    try:
        asks, options = _asks(args), _options(args)
    except HeadgateError as error:
        return _complain(one_line(error), USAGE)
    say: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True)  # noqa: E731
    explanation = explain(xray(args.app, asks, options, say=say))
    print(json.dumps(asdict(explanation), ensure_ascii=False) if args.json else format_explanation(explanation))
    return 0


def _asks(args: argparse.Namespace) -> Any:
    from headgate.xray.probe import Ask

    headers = tuple(header(line) for line in args.header)
    content = body(args.body)
    asks = (
        *(Ask("GET", path, headers) for path in args.get),
        *(Ask("POST", path, headers, content) for path in args.post),
    )
    if not asks:
        raise XrayError("nothing to request: give --get PATH, several times if you like")
    for ask in asks:
        if not ask.path.startswith("/"):
            raise XrayError(f"path {ask.path!r} does not begin with a slash; write it as --get /items/1")
    return asks


def _options(args: argparse.Namespace) -> Any:
    from headgate.xray.probe import DEFAULTS, XrayOptions

    if args.app.count(":") != 1:
        raise XrayError(f"app {args.app!r} is not MODULE:APP; write it as for uvicorn, package.module:app")
    return XrayOptions(
        rate=given("--rate", args.rate, Fraction, DEFAULTS.rate),
        duration_s=given("--duration", args.duration, Fraction, DEFAULTS.duration_s),
        timeout_s=float(number("--timeout", args.timeout, Fraction)),
        max_connections=given("--max-connections", args.max_connections, int, DEFAULTS.max_connections),
        is_factory=args.factory,
        against=tuple(args.against),
        directories=(args.app_dir,),
    )


def _complain(message: str, code: int) -> int:
    print(f"headgate xray: error: {message}", file=sys.stderr)
    return code
