"""``headgate load``: the load generator alone, for any HTTP service."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction

from headgate.cli.arguments import body, given, header, number
from headgate.cli.new_file import new_file
from headgate.cli.progress import progress_bar
from headgate.errors import LoadError
from headgate.load import pacer
from headgate.load.checks import Check, check_load
from headgate.load.driver import DEFAULTS, LoadPlan, LoadResult
from headgate.load.driver import run as run_plan
from headgate.load.sample import encode_samples
from headgate.load.summary import Distribution, PathResult, lateness, summarize, summarize_paths
from headgate.load.target import Target, build_request, redact_url

JSON_FORMAT = "headgate-load"
JSON_VERSION = 1
"""1: first form. Raise it with every change of a field or its meaning."""

EXIT_FAILURE, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130

_EXAMPLES = """\
examples:
  headgate load http://127.0.0.1:8000/ping
  headgate load http://127.0.0.1:8000/ping --rate 500 --duration 10 --arrivals poisson --seed 7
  headgate load http://127.0.0.1:8000/a http://127.0.0.1:8000/b --requests 200 --max-connections 100
"""


@dataclass(frozen=True, slots=True)
class Report:
    """What is printed: everything about one finished run."""

    total: PathResult
    targets: tuple[PathResult, ...]
    bytes_in: int
    lateness: Distribution
    generator_cpu: float
    checks: tuple[Check, ...]


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command; its arguments carry ``run`` as their ``run``."""
    parser = subparsers.add_parser(
        "load",
        help="offer an open-loop load to any HTTP service",
        description="Send requests when they are due, however slow the answers; latency counts from then.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("urls", nargs="+", metavar="URL", help="what to request; several URLs take turns")
    add("--rate", help=f"requests per second over all URLs (default: {DEFAULTS.rate})")
    add("--duration", help=f"seconds to send for (default: {DEFAULTS.duration_s})")
    add("--requests", metavar="N", help="send N requests at once instead of --rate and --duration")
    add("--arrivals", choices=("constant", "poisson"), default=DEFAULTS.arrivals, help="default: %(default)s")
    add("--seed", default=str(DEFAULTS.seed), help="of the Poisson arrivals (default: %(default)s)")
    add("--timeout", default=str(DEFAULTS.timeout_s), help="seconds for each request (default: %(default)s)")
    add("--max-connections", metavar="N", help="open connections at most (default: as many as it takes)")
    add("--method", default=DEFAULTS.method, help="default: %(default)s")
    add("--header", action="append", default=[], metavar="'NAME: VALUE'", help="may be given several times")
    add("--body", default="", help="text to send, or @FILE")
    add("--output", metavar="FILE", help="write every sample to FILE, as JSON lines")
    add("--json", action="store_true", help="print the figures as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command. Returns the exit code: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    try:
        plan = build_plan(args)
    except LoadError as error:
        return _complain(error, EXIT_USAGE)
    try:
        return _execute(plan, args)
    except LoadError as error:
        return _complain(error, EXIT_FAILURE)
    except KeyboardInterrupt:
        print("headgate load: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED


def build_plan(args: argparse.Namespace) -> LoadPlan:
    """The plan the arguments ask for.

    :raises LoadError: if a value makes no sense; the message names it and the remedy.
    """
    targets = _targets(args)
    for target in targets:
        build_request(target)
    return LoadPlan(
        targets=targets,
        schedule=pacer.in_turn(_offsets(args), len(targets)),
        max_connections=given("--max-connections", args.max_connections, int, DEFAULTS.max_connections),
        timeout_s=float(number("--timeout", args.timeout, Fraction)),
        must_reach=True,
    )


def make_report(result: LoadResult) -> Report:
    """All figures of a run."""
    samples = list(result.samples)
    return Report(
        total=summarize("total", samples),
        targets=summarize_paths(samples),
        bytes_in=sum(sample.bytes_in for sample in samples),
        lateness=lateness(samples),
        generator_cpu=result.generator_cpu,
        checks=check_load(samples, planned=result.planned, issued=result.issued, generator_cpu=result.generator_cpu),
    )


def format_report(report: Report) -> str:
    """The report as people read it; failed checks come first, because they void the rest."""
    failed = [check for check in report.checks if not check.ok]
    blocks = [_format_checks("Do not believe these figures:", failed)] if failed else []
    blocks.append(_format_total(report))
    if len(report.targets) > 1:
        blocks += [_format_target(result) for result in report.targets]
    if not failed:
        blocks.append(_format_checks("Checks of the generator passed:", report.checks))
    return "\n\n".join(blocks)


def format_json(report: Report) -> str:
    """The report as one JSON object; times are seconds, rates are per second."""
    return json.dumps({"format": JSON_FORMAT, "version": JSON_VERSION, **asdict(report)}, ensure_ascii=False)


# Arguments.


def _targets(args: argparse.Namespace) -> tuple[Target, ...]:
    headers = tuple(header(line) for line in args.header)
    content = body(args.body)
    return tuple(
        Target(label, url, args.method.upper(), headers, content)
        for label, url in zip(_labels(args.urls), args.urls, strict=True)
    )


def _labels(urls: Sequence[str]) -> list[str]:
    """URLs without their secrets; those that then look alike are numbered."""
    plain = [redact_url(url) for url in urls]
    return [
        label if plain.count(label) == 1 else f"{label} #{plain[: i + 1].count(label)}" for i, label in enumerate(plain)
    ]


def _offsets(args: argparse.Namespace) -> Sequence[int]:
    if args.requests is not None:
        if args.rate is not None or args.duration is not None:
            raise LoadError("--requests sends all at once; leave out --rate and --duration, or --requests")
        return pacer.burst(number("--requests", args.requests, int))
    rate = given("--rate", args.rate, Fraction, DEFAULTS.rate)
    duration_s = given("--duration", args.duration, Fraction, DEFAULTS.duration_s)
    if args.arrivals == "poisson":
        return pacer.poisson(rate, duration_s, number("--seed", args.seed, int))
    return pacer.constant(rate, duration_s)


# Running.


def _execute(plan: LoadPlan, args: argparse.Namespace) -> int:
    with new_file("--output", args.output, LoadError) as save:
        with progress_bar() as on_progress:
            result = run_plan(plan, on_progress=on_progress)
        report = make_report(result)
        print(format_json(report) if args.json else format_report(report), flush=True)
        save(encode_samples(result.samples))
    return 0


def _complain(error: LoadError, code: int) -> int:
    print(f"headgate load: error: {error}", file=sys.stderr)
    return code


# Printing.


def _format_checks(title: str, checks: Iterable[Check]) -> str:
    return "\n".join([title, *(f"  {check.name}: {check.detail}" for check in checks)])


def _format_total(report: Report) -> str:
    total, late = report.total, report.lateness
    mean_bytes = report.bytes_in / total.requests if total.requests else 0.0
    rows = [
        *_figures(total),
        ("Bytes In", "total, mean", f"{report.bytes_in}, {mean_bytes:.2f}"),
        ("Lateness", "50, 99, max", f"{_times(late.p50, late.p99, late.max)} of {late.count}"),
        ("Generator", "CPU of one core", f"{report.generator_cpu:.0%}"),
    ]
    errors = [f"  {word}: {count}" for word, count in total.errors.items()]
    return "\n".join([*map(_row, rows), "Error Set:", *errors])


def _format_target(result: PathResult) -> str:
    return "\n".join([result.path, *map(_row, _figures(result))])


def _row(row: tuple[str, str, str]) -> str:
    name, keys, values = row
    return f"{name:<13} {f'[{keys}]':<41} {values}".rstrip()


def _figures(result: PathResult) -> list[tuple[str, str, str]]:
    rates = f"{result.offered_rate:.2f}, {result.achieved_rate:.2f}, {result.throughput:.2f}"
    statuses = [f"{status}:{count}" for status, count in result.statuses.items()]
    percentiles = "min, mean, 50, 90, 95, 99, max"
    total_s = result.duration + result.wait
    return [
        ("Requests", "total, offered, achieved, throughput", f"{result.requests}, {rates}"),
        ("Duration", "total, sending, wait", _times(total_s, result.duration, result.wait)),
        ("Latencies", percentiles, _distribution(result.latency)),
        ("Of successes", percentiles, _distribution(result.latency_success)),
        ("Success", "ratio", f"{result.success_ratio:.2%}"),
        ("Status Codes", "code:count", "  ".join(statuses)),
    ]


def _distribution(values: Distribution) -> str:
    if not values.count:
        return "none"
    shown = _times(values.min, values.mean, values.p50, values.p90, values.p95, values.p99, values.max)
    return f"{shown} of {values.count}"


def _times(*seconds: float) -> str:
    return ", ".join(map(_time, seconds))


def _time(seconds: float) -> str:
    """Four significant figures in the unit that suits."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.4g}{unit}"
    return f"{seconds * 1e6:.4g}µs"
