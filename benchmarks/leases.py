"""What a leased session costs: the bare driver, stock SQLAlchemy and Headgate, in turn, in one process.

Starts a PostgreSQL of its own. A round gives each arm one turn; the ratio of stock's time to ours is taken round by
round, and shown with its quartiles. See docs/benchmarks.md.

    python benchmarks/leases.py [--quick] [--only CASE] [--json FILE] [--list] [--profile CASE] [--uvloop] [--durable]
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import psycopg
from interleaved import Comparison, Spread, compare
from lease_arms import BARE, FLOOR, OURS, STOCK, fill, libpq, sqlite_url
from lease_cases import Case, Setting, local_cases
from lease_http import http_cases
from sampling import print_profile, profile

from headgate.lab.machine import describe_machine
from headgate.lab.postgres import EmbeddedPostgres
from headgate.lab.results import Machine

PROFILE_S, PROFILE_QUICK_S = 10.0, 3.0
ROUND_TRIPS = 500
ARMS = (BARE, FLOOR, STOCK, OURS)
NAMED = ("sqlalchemy", "asyncpg", "psycopg", "greenlet", "fastapi", "uvicorn", "uvloop")


@contextmanager
def prepared(durable: bool) -> Iterator[tuple[Setting, Machine]]:
    """A PostgreSQL and an SQLite file with the same rows."""
    settings = {"autovacuum": False, "synchronous_commit": durable}
    with EmbeddedPostgres(settings=settings) as postgres, tempfile.TemporaryDirectory() as directory:
        url = postgres.url(postgres.create_database())
        setting = Setting(url, postgres.pid, sqlite_url(Path(directory)))
        fill(setting.url("postgresql+psycopg"))
        fill(setting.sqlite)
        yield setting, describe_machine(postgres.version)


def choose(cases: list[Case], patterns: list[str]) -> list[Case]:
    """The cases whose name fits one of the patterns, as a whole or in part; all without patterns."""
    if not patterns:
        return cases
    return [case for case in cases if any(fnmatch(case.name, f"*{pattern}*") for pattern in patterns)]


# tables


def time_round_trip(setting: Setting) -> float:
    """Microseconds from a question to its answer, the least a driver can do; the ratios depend on it."""
    took_ns = []
    with psycopg.connect(libpq(setting.postgres), autocommit=True) as connection:
        for _ in range(ROUND_TRIPS):
            started_ns = time.perf_counter_ns()
            connection.execute("SELECT 1")
            took_ns.append(time.perf_counter_ns() - started_ns)
    return statistics.median(took_ns) / 1e3


def print_machine(machine: Machine, setting: Setting) -> None:
    versions = ", ".join(f"{name} {machine.packages[name]}" for name in NAMED if name in machine.packages)
    print(f"{machine.cpu}, {machine.cores} cores, load {machine.load_average}; {machine.python}; {versions}")
    print(f"PostgreSQL {machine.postgresql}; one round trip of sync psycopg: {time_round_trip(setting):.0f} µs\n")


def show_figure(case: Case, comparison: Comparison, arm: str) -> str:
    if arm not in comparison.took_ns:
        return "-"
    took_ns = comparison.of(arm).median
    return f"{1e9 / took_ns:,.0f}/s" if case.is_rate else f"{took_ns / 1e3:,.0f} µs"


def show_target(case: Case, ratio: Spread) -> str:
    if case.target is None:
        return "-  "
    return f"{case.target:.1f} {'✓' if ratio.median >= case.target else '✗'}"


def print_header() -> None:
    arms = " ".join(f"{arm:>9}" for arm in ARMS)
    print(f"{'case':<46} {arms}   {'stock/headgate (quartiles)':<27} {'target':>6}   rounds × operations")


def print_row(case: Case, comparison: Comparison) -> None:
    ratio = comparison.ratio(STOCK, OURS)
    figures = " ".join(f"{show_figure(case, comparison, arm):>9}" for arm in ARMS)
    spread = f"{ratio.median:5.2f}  ({ratio.lower:.2f}-{ratio.upper:.2f})"
    samples = f"{comparison.plan.rounds} × {comparison.plan.operations:,}"
    print(f"{case.name:<46} {figures}   {spread:<27} {show_target(case, ratio):>6}   {samples}", flush=True)


def print_legend(cases: list[Case]) -> None:
    print("\nMedians of one operation. floor: stock SQLAlchemy in autocommit, its own time with one round trip a read.")
    for case in {case.bare: case for case in cases if case.bare}.values():
        print(f"bare, {case.name.partition('/')[0]}: {case.bare}")


def as_json(case: Case, comparison: Comparison) -> dict[str, Any]:
    return {
        "case": case.name,
        "bare": case.bare,
        "target": case.target,
        "ratio": asdict(comparison.ratio(STOCK, OURS)),
        "plan": asdict(comparison.plan),
        "took_ns": dict(comparison.took_ns),
    }


def measure(cases: list[Case], quick: bool) -> list[dict[str, Any]]:
    """Print the table; return every sample."""
    print_header()
    results = []
    for case in cases:
        with case.open() as arms:
            comparison = compare(arms, case.quick if quick else case.full)
        print_row(case, comparison)
        results.append(as_json(case, comparison))
    print_legend(cases)
    return results


# profiles


def show_profiles(cases: list[Case], seconds: float) -> None:
    """Where the time of each arm goes."""
    for case in cases:
        if not case.is_here:
            print(f"== {case.name}: runs in processes of its own, which this profile cannot see\n")
            continue
        with case.open() as arms:
            for name, arm in arms.items():
                arm(case.full.operations)
                print(f"== {case.name}: {name}")
                print_profile(profile(arm, case.full.operations, seconds))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds: a look, not a result")
    parser.add_argument("--only", action="append", default=[], metavar="CASE", help="part of a name, or a pattern")
    parser.add_argument("--json", type=Path, metavar="FILE", help="every sample, for a closer look")
    parser.add_argument("--list", action="store_true", help="the names of the cases")
    parser.add_argument("--profile", metavar="CASE", help="where the time of each arm goes, instead of a table")
    parser.add_argument("--uvloop", action="store_true", help="uvloop instead of asyncio's own event loop")
    parser.add_argument("--durable", action="store_true", help="commits wait for the disk")
    return parser.parse_args()


def use_uvloop(setting: Setting) -> Setting:
    import uvloop

    return replace(setting, loop_factory=uvloop.new_event_loop)


def main() -> None:
    args = parse()
    with prepared(args.durable) as (setting, machine):
        setting = use_uvloop(setting) if args.uvloop else setting
        cases = [*local_cases(setting), *http_cases(setting)]
        if args.list:
            print(*(case.name for case in choose(cases, args.only)), sep="\n")
        elif args.profile:
            show_profiles(choose(cases, [args.profile]), PROFILE_QUICK_S if args.quick else PROFILE_S)
        else:
            print_machine(machine, setting)
            results = measure(choose(cases, args.only), args.quick)
            if args.json:
                run = {"machine": asdict(machine), "quick": args.quick, "cases": results}
                args.json.write_text(json.dumps(run, indent=1))


if __name__ == "__main__":
    main()
