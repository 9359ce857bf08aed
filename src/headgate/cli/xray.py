"""``headgate xray``: runs an app unchanged under load and says what limits it.

What needs the extra ``xray`` is imported when the command runs, so that the others work without it.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from headgate.cli.arguments import body, given, header, number
from headgate.cli.exits import FAILURE, INTERRUPTED, TERMINATED, USAGE, one_line
from headgate.cli.new_file import new_file
from headgate.cli.progress import progress_bar
from headgate.cli.signals import Terminated, ending_on_sigterm
from headgate.errors import HeadgateError, XrayError

if TYPE_CHECKING:
    from headgate.xray.asks import Ask
    from headgate.xray.observation import Observation
    from headgate.xray.probe import XrayOptions
    from headgate.xray.sweep import RouteSweep

NEEDED = ("uvicorn", "httptools", "psutil")
MOST_SIZES = 20

Put = Callable[["Observation", "tuple[RouteSweep, ...]"], None]
"""Explains an observation, and writes it wherever the arguments say."""

_EXAMPLES = """\
exit codes: 0 explained, 1 failed, 2 wrong usage, 130 interrupted, 143 terminated

examples:
  headgate xray app:app --get /items/1 --get /ping
  headgate xray shop.main:create_app --factory --from-openapi --rate 20 --html xray.html
  headgate xray app:app --post /orders --body @order.json --header 'Authorization: Bearer …' --sweep 5,10,20,40
  headgate xray --explain recorded.json
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
    parser.add_argument("app", nargs="?", metavar="MODULE:APP", help="what uvicorn would be given")
    _add_requests(parser.add_argument_group("what is requested"))
    _add_load(parser.add_argument_group("how"))
    _add_service(parser.add_argument_group("the app"))
    _add_outputs(parser.add_argument_group("what comes out"))
    parser.set_defaults(run=run)


def _add_requests(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--get", action="append", metavar="PATH", help="request this path; may be given several times")
    add("--post", action="append", metavar="PATH", help="likewise, with --body")
    add("--body", metavar="TEXT", help="text that --post sends, or @FILE")
    add("--header", action="append", metavar="'NAME: VALUE'", help="of every request of --get, --post, --from-openapi")
    add("--from-openapi", action="store_true", help="every GET of the app's own schema that can be sent as it stands")
    add("--har", metavar="FILE", help="the requests of a session recorded in a browser")
    add("--origin", metavar="URL", help="those of --har that went there (default: where most of them went)")


def _add_load(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--rate", help="requests per second for each path (default: 100)")
    add("--duration", help="seconds to send for (default: 5)")
    add("--warm-up", metavar="SECONDS", help="the same load before, which is forgotten (default: 1)")
    add("--timeout", help="seconds to wait for each answer (default: 30)")
    add(
        "--max-connections",
        "--concurrency",
        metavar="N",
        help="requests of the client at a time at most (default: as many as it takes)",
    )
    add("--sweep", metavar="N,N,…", help="the same load with each of these pool sizes")


def _add_service(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--factory", action="store_true", help="APP is a function that makes the app")
    add("--app-dir", metavar="DIR", help="where to import from (default: here)")
    add("--env-file", metavar="FILE", help="environment variables, NAME=value a line; those that are set stay")
    add("--loop", choices=("asyncio", "uvloop"), help="event loop (default: uvloop, if installed)")
    add("--against", action="append", metavar="HOST", help="a database's host that the load may meet")
    add("--log", metavar="FILE", help="keep what the app writes")


def _add_outputs(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--html", metavar="FILE", help="write a page with the explanation and its figures")
    add("--json", action="store_true", help="print the explanation as JSON")
    add("--record", metavar="FILE", help="write what was observed, to explain it again")
    add("--explain", metavar="FILE", help="explain what was recorded; nothing is run")


def run(args: argparse.Namespace) -> int:
    """Run the command. Returns the exit code: 0 explained, 1 failed, 2 wrong usage, 130 and 143 ended from outside."""
    if missing := _find_missing(args):
        return _complain(f"error: the X-ray needs the package {missing}; pip install 'headgate[xray]'", FAILURE)
    with ExitStack() as stack:
        try:
            command = _choose_command(args)
            put = stack.enter_context(_outputs(args))
        except HeadgateError as error:
            return _complain(f"error: {one_line(error)}", USAGE)
        try:
            with ending_on_sigterm():
                command(put)
        except HeadgateError as error:
            return _complain(f"error: {one_line(error)}", FAILURE)
        except KeyboardInterrupt:
            return _complain("interrupted", INTERRUPTED)
        except Terminated:
            return _complain("terminated", TERMINATED)
    return 0


def _find_missing(args: argparse.Namespace) -> str | None:
    needed = (*(NEEDED if args.explain is None else ()), *(("jinja2",) if args.html is not None else ()))
    if args.loop == "uvloop":
        needed = (*needed, "uvloop")
    return next((name for name in needed if find_spec(name) is None), None)


def _complain(message: str, code: int) -> int:
    print(f"headgate xray: {message}", file=sys.stderr)
    return code


# What is asked for.


@dataclass(frozen=True, slots=True)
class _Order:
    app: str
    asks: tuple[Ask, ...]
    options: XrayOptions
    sizes: tuple[int, ...]


def _choose_command(args: argparse.Namespace) -> Callable[[Put], None]:
    """Return what the arguments ask for, checked. Raises HeadgateError that names the value and the remedy."""
    if args.explain is not None:
        _refuse_beside_explain(args)
        observation = _recorded(args.explain)
        return lambda put: put(observation, ())
    if args.app is None:
        raise XrayError("no app is named; write it as for uvicorn, package.module:app")
    if args.app.count(":") != 1 or args.app.startswith(":") or args.app.endswith(":"):
        raise XrayError(f"app {args.app!r} is not MODULE:APP; write it as for uvicorn, package.module:app")
    order = _Order(args.app, _asks(args), _options(args), _sizes(args.sweep))
    _check(order)
    return (lambda put: _sweep(order, put)) if order.sizes else (lambda put: _observe(order, put))


def _refuse_beside_explain(args: argparse.Namespace) -> None:
    kept = {"explain", "html", "json", "run"}
    other = next((name for name, value in vars(args).items() if name not in kept and value not in (None, False)), None)
    if other is not None:
        what = "an app" if other == "app" else f"--{other.replace('_', '-')}"
        raise XrayError(f"{what} has no meaning beside --explain, which runs nothing; leave it out")


def _recorded(name: str) -> Observation:
    from headgate.xray.observation import decode

    return decode(_read("--explain", name))


def _read(option: str, name: str) -> str:
    try:
        return Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise XrayError(f"cannot read {option} {name}: {why}; give an existing file") from None


def _asks(args: argparse.Namespace) -> tuple[Ask, ...]:
    from headgate.xray.asks import Ask

    headers = _headers(args)
    content = body(args.body or "")
    if args.body is not None and not args.post:
        raise XrayError("--body is sent by --post alone; name its path")
    asks = (
        *(Ask("GET", _path("--get", path), headers) for path in args.get or ()),
        *(Ask("POST", _path("--post", path), headers, content) for path in args.post or ()),
        *_from_har(args),
    )
    if not asks and not args.from_openapi:
        raise XrayError("nothing to request; give --get PATH, several times if you like, or --from-openapi")
    return asks


def _headers(args: argparse.Namespace) -> tuple[tuple[str, str], ...]:
    return tuple(header(line) for line in args.header or ())


def _path(option: str, path: str) -> str:
    if not path.startswith("/"):
        raise XrayError(f"{option} {path!r} does not begin with a slash; write it as {option} /items/1")
    return path


def _from_har(args: argparse.Namespace) -> tuple[Ask, ...]:
    from headgate.xray.har import choose_from_har

    if args.har is None:
        if args.origin is not None:
            raise XrayError("--origin chooses from a recorded session; give it by --har FILE")
        return ()
    choice = choose_from_har(_read("--har", args.har), origin=args.origin, source=f"--har {args.har}")
    for line in choice.left_out_lines():
        _say(line)
    return choice.asks


def _options(args: argparse.Namespace) -> XrayOptions:
    from headgate.xray.probe import DEFAULTS, XrayOptions

    return XrayOptions(
        rate=given("--rate", args.rate, Fraction, DEFAULTS.rate),
        duration_s=given("--duration", args.duration, Fraction, DEFAULTS.duration_s),
        warm_up_s=given("--warm-up", args.warm_up, Fraction, DEFAULTS.warm_up_s),
        timeout_s=DEFAULTS.timeout_s if args.timeout is None else float(number("--timeout", args.timeout, Fraction)),
        max_connections=given("--max-connections", args.max_connections, int, DEFAULTS.max_connections),
        loop=args.loop or "auto",
        is_factory=args.factory,
        from_schema=args.from_openapi,
        headers=_headers(args),
        against=tuple(args.against or ()),
        directories=(_directory(args.app_dir),) if args.app_dir is not None else DEFAULTS.directories,
        environment=_environment(args.env_file),
        log=None if args.log is None else _log(args.log),
    )


def _directory(name: str) -> str:
    if not Path(name).is_dir():
        raise XrayError(f"--app-dir {name} is no directory; give the one that the app is imported from")
    return name


def _log(name: str) -> Path:
    path = Path(name).resolve()
    if path.is_dir() or not path.parent.is_dir():
        raise XrayError(f"--log {name} cannot be a file; choose a place that exists")
    return path


def _environment(name: str | None) -> dict[str, str]:
    from headgate.xray.env_file import read_environment

    return dict(os.environ) if name is None else read_environment(_read("--env-file", name), os.environ, source=name)


def _sizes(text: str | None) -> tuple[int, ...]:
    if text is None:
        return ()
    sizes = sorted({number("--sweep", one.strip(), int) for one in text.split(",")})
    if sizes[0] < 1 or len(sizes) < 2 or len(sizes) > MOST_SIZES:
        raise XrayError(f"--sweep {text} does not compare sizes; give 2 to {MOST_SIZES} from 1 up, as 5,10,20,40")
    return tuple(sizes)


def _check(order: _Order) -> None:
    from headgate.xray.probe import check_asks

    check_asks(order.asks, order.options)


# Doing it.


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _observe(order: _Order, put: Put) -> None:
    from headgate.xray.probe import observed

    with observed(order.app, order.asks, order.options, say=_say, showing=progress_bar) as observation:
        put(observation, ())  # before the app is ended: one that hangs takes its time


def _sweep(order: _Order, put: Put) -> None:
    from headgate.xray.probe import observed
    from headgate.xray.sweep import compare_sizes

    observations: dict[int, Observation] = {}
    for size in order.sizes:
        _say(f"pools of {size} connections")
        options = replace(order.options, pool_size=size)
        with observed(order.app, order.asks, options, say=_say, showing=progress_bar) as observation:
            _require_size(observation, size)
            observations[size] = observation
    put(observations[order.sizes[0]], compare_sizes(observations))


def _require_size(observation: Observation, size: int) -> None:
    if not any(pool.limit == size for pool in observation.pools):
        kinds = ", ".join(sorted({pool.kind for pool in observation.pools})) or "none was used"
        raise XrayError(f"no pool of the app has a size that --sweep could change ({kinds}); leave it out")


# What comes out.


@contextmanager
def _outputs(args: argparse.Namespace) -> Iterator[Put]:
    with (
        new_file("--html", args.html, XrayError) as save_page,
        new_file("--record", args.record, XrayError) as save_record,
    ):

        def put(observation: Observation, sweep: tuple[RouteSweep, ...]) -> None:
            from headgate.xray.explain import explain
            from headgate.xray.observation import encode
            from headgate.xray.output import encode_report, make_report
            from headgate.xray.text import format_explanation

            explanation = explain(observation)
            if args.json:
                print(encode_report(make_report(observation, explanation, sweep)), flush=True)
            else:
                print(_text(format_explanation(explanation), sweep), flush=True)
            save_record((encode(observation),))
            if args.html is not None:
                from headgate.xray.page.html import render_html

                save_page((render_html(observation, explanation, sweep),))
            _say_files(args)

        yield put


def _say_files(args: argparse.Namespace) -> None:
    for name in (args.html, args.record):
        if name is not None:
            _say(f"written: {name}")


def _text(explanation: str, sweep: Sequence[RouteSweep]) -> str:
    from headgate.xray.sweep import format_sweep

    if not sweep:
        return explanation
    smallest = sweep[0].rows[0].connections
    return f"{format_sweep(tuple(sweep))}\n\nWith {smallest} connections:\n\n{explanation}"
