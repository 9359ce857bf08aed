"""Runs somebody else's tests twice, over SQLAlchemy's own pools and over ours, and compares the two."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from arm_plugin import ARM, RECORD
from outcomes import Difference, Record, Verdict, count, find_differences, judge, read_record
from sqlalchemy.engine import URL

import headgate
from headgate.lab.connection import connect
from headgate.lab.environment import clean_environment
from headgate.lab.postgres import EmbeddedPostgres

HERE = Path(__file__).parent
LOGS = HERE.parents[1] / ".soak"
LISTED = HERE / "expected_differences.toml"
TIMEOUT_S = 3600
MOST_PRINTED = 40

SILENCE_S = 300
"""A test that takes longer has its stacks written to the log: a pool that waits for ever is what a soak looks for."""


@dataclass(frozen=True, slots=True)
class Suite:
    """Somebody else's tests, and how to run them.

    :ivar name: for people; also names the log files.
    :ivar root: where the source distribution was unpacked.
    :ivar paths: what to run of it.
    :ivar python: an interpreter whose environment has what these tests need.
    :ivar drivername: SQLAlchemy's name of the dialect and driver they run over.
    :ivar arguments: more arguments for pytest, given the database's URL (without its password).
    """

    name: str
    root: Path
    paths: tuple[str, ...]
    python: Path
    drivername: str
    arguments: Callable[[str], tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class ArmRun:
    """What one arm's run left behind."""

    record: Record
    seconds: float
    ended: str
    log: Path


def run_suites(suites: Iterable[Suite]) -> int:
    """Run every suite in both arms; the exit code is 0 if all differ exactly as listed."""
    LOGS.mkdir(exist_ok=True)
    # Two-phase transactions must work; that commits survive the server is nothing these tests ask.
    with EmbeddedPostgres(settings={"max_prepared_transactions": 10, "fsync": False}) as server:
        passes = [run_suite(suite, server) for suite in suites]
    return 0 if all(passes) else 1


def run_suite(suite: Suite, server: EmbeddedPostgres) -> bool:
    """Run both arms one after the other, so that their times can be compared; print what came of it."""
    print(f"== {suite.name}", flush=True)
    stock = run_arm(suite, "stock", server)
    ours = run_arm(suite, "headgate", server)
    if failures := failures_of(stock, ours):
        print("".join(f"   {failure}\n" for failure in failures), end="")
        return False
    verdict = judge(find_differences(stock.record, ours.record), listed_for(suite))
    print_verdict(verdict)
    return verdict.passes


def failures_of(stock: ArmRun, ours: ArmRun) -> list[str]:
    """What makes two records worthless, however alike they are."""
    broken_off = [f"{run.ended}: see {run.log}" for run in (stock, ours) if run.ended]
    if broken_off:
        return broken_off
    if not stock.record.outcomes:
        return [f"NOTHING RAN: see {stock.log}"]
    if not ours.record.leases:
        return ["NOTHING WAS LEASED: the arm called headgate ran over SQLAlchemy's own pools"]
    return []


def run_arm(suite: Suite, arm: str, server: EmbeddedPostgres) -> ArmRun:
    """Run one arm in a process and on a database of its own."""
    log = LOGS / f"{suite.name.replace('/', '-').replace(' ', '-')}-{arm}.log"
    with tempfile.TemporaryDirectory() as scratch, prepared_database(server) as url:
        record = Path(scratch, "record.jsonl")
        command = pytest_command(suite, url_for(suite, url))
        environment = child_environment(suite, arm, url, record)
        began_s = time.monotonic()
        ended = _run(command, suite.root, environment, log)
        seconds = time.monotonic() - began_s
        lines = record.read_text(encoding="utf-8").splitlines() if record.exists() else []
    run = ArmRun(read_record(lines), seconds, ended, log)
    leased = f"; {run.record.leases} virtual connections" if arm == "headgate" else ""
    print(f"   {arm:8}  {count(run.record) or 'nothing ran'}  in {seconds:.0f} s{leased}", flush=True)
    return run


def _run(command: list[str], directory: Path, environment: dict[str, str], log: Path) -> str:
    """Run a child to its end; returns what is wrong with that end, which pytest's «some tests failed» is not."""
    with log.open("wb") as output:
        try:
            child = subprocess.run(
                command, cwd=directory, env=environment, stdout=output, stderr=output, timeout=TIMEOUT_S, check=False
            )
        except subprocess.TimeoutExpired:
            return f"DID NOT END within {TIMEOUT_S} s"
    return "" if child.returncode in (0, 1) else f"ENDED WITH {child.returncode}"


def url_for(suite: Suite, url: URL) -> str:
    """A database's URL as a suite wants it, without the password: command lines can be read by everybody."""
    public = URL.create(suite.drivername, url.username, host=url.host, port=url.port, database=url.database)
    return public.render_as_string()


def pytest_command(suite: Suite, url: str) -> list[str]:
    """How to run a suite; ``-s`` keeps SQLAlchemy's tests from importing the sources beside them, uncompiled."""
    options = ["-p", "arm_plugin", "-p", "no:cacheprovider", "--maxfail=0", "-o", f"faulthandler_timeout={SILENCE_S}"]
    return [str(suite.python), "-s", "-m", "pytest", *options, *suite.arguments(url), *suite.paths]


def child_environment(suite: Suite, arm: str, url: URL, record: Path) -> dict[str, str]:
    """What a child needs to know, and nothing else of databases, pytest or Headgate."""
    ambient = ("HEADGATE", "PYTEST", "PYTHON", "VIRTUAL_ENV")
    kept = {name: value for name, value in clean_environment().items() if not name.startswith(ambient)}
    imports = (HERE, Path(headgate.__file__).parents[1], suite.root)
    return kept | {
        "DATABASE_URL": url_for(suite, url),
        ARM: arm,
        RECORD: str(record),
        "PATH": os.pathsep.join((str(suite.python.parent), kept.get("PATH", ""))),
        "PGPASSWORD": str(url.password),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTHONPATH": os.pathsep.join(map(str, imports)),
    }


@contextmanager
def prepared_database(server: EmbeddedPostgres) -> Iterator[URL]:
    """An empty database with the two schemas that SQLAlchemy's tests ask for."""
    name = server.create_database()
    with connect(server.url(name)) as connection:
        for schema in ("test_schema", "test_schema_2"):
            connection.execute(f"CREATE SCHEMA {schema}")
    yield server.url(name)
    server.drop_database(name)


def listed_for(suite: Suite) -> list[str]:
    """The expected differences among a suite's tests."""
    listed = tomllib.loads(LISTED.read_text(encoding="utf-8")).get("difference", [])
    return [test for entry in listed for test in entry["tests"] if test.startswith(suite.paths)]


def print_verdict(verdict: Verdict) -> None:
    """The differences found, and those that the list promised in vain."""
    print_differences("expected, and listed", verdict.expected)
    print_differences("NOT EXPECTED", verdict.unexpected)
    for test in verdict.stale:
        print(f"   LISTED, BUT NOT DIFFERENT: {test}\n      take it out of {LISTED.name}")
    print(f"   {'as listed' if verdict.passes else 'FAILED'}: {len(verdict.expected)} expected differences", flush=True)


def print_differences(title: str, differences: tuple[Difference, ...]) -> None:
    """One difference a line, the cause below it; a core that is broken differs in thousands."""
    for one in differences[:MOST_PRINTED]:
        print(f"   {title}: {one.test}\n      stock {one.stock}, headgate {one.headgate}: {one.cause}")
    if len(differences) > MOST_PRINTED:
        print(f"   {title}: {len(differences) - MOST_PRINTED} more")
