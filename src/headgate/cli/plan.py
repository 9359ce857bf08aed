"""``headgate plan``: workers, connections, threads and a pooler's size, from a rate, a hold and the server's limits."""

from __future__ import annotations

import argparse
import os
import re
import sys
import textwrap
from collections.abc import Iterator
from typing import NamedTuple

from headgate.cli.exits import FAILURE, USAGE, one_line
from headgate.errors import ConfigError, LabError
from headgate.sizing import ANYIO_THREADS, UTILISATION, Fit, Plan, Server, Work, make_plan

DEFAULTS = Server()
DEFAULT_LEASES = 1.0
DEFAULT_MACHINES = 1
AUTO = "auto"
WIDTH = 80

# No exponents and no nan; with more digits than these there is a slip, not a load.
_DECIMAL = re.compile(r"\d{1,9}(\.\d{1,9})?", re.ASCII)
_WHOLE = re.compile(r"\d{1,9}", re.ASCII)

_LIMITS = """
SELECT current_setting('max_connections')::int,
  current_setting('superuser_reserved_connections')::int
    + COALESCE(current_setting('reserved_connections', true), '0')::int,
  LEAST(NULLIF(rolconnlimit, -1), NULLIF(datconnlimit, -1))
FROM pg_catalog.pg_roles, pg_catalog.pg_database WHERE rolname = current_user AND datname = current_database()
"""


class Fleet(NamedTuple):
    """The processes there are to be; ``why`` says where their number comes from."""

    workers: int
    machines: int
    why: str


_DESCRIPTION = """\
Say how many workers, connections and threads a service needs, and whether its
server has that many. The hold is what db.gate.statistics().mean_use_ns says of
the service under its usual load; leases a request are its acquired divided by
the requests."""

_EPILOG = """\
exit codes: 0 planned, 1 the server of --database cannot be asked, 2 wrong usage

examples:
  headgate plan --rate 400 --hold 12 --leases 2
  headgate plan --rate 400 --hold 12 --workers 4 --max-connections 20
  headgate plan --rate 400 --hold 12 --sync 30 --database postgresql://app@db/app"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command; its arguments carry ``run`` as their ``run``."""
    parser = subparsers.add_parser(
        "plan",
        help="compute workers, connections and threads for a load",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--rate", required=True, metavar="N", help="requests a second that use the database, at the peak")
    add("--hold", required=True, metavar="MS", help="mean milliseconds a lease keeps its connection")
    add("--leases", metavar="N", help=f"leases a request (default: {DEFAULT_LEASES:g})")
    add("--sync", metavar="MS", help="endpoints are plain def and take MS milliseconds on average")
    add("--workers", metavar="N", help="processes a machine, or auto: one a core (default)")
    add("--cores", metavar="N", help="cores a machine (default: this one's)")
    add("--machines", metavar="N", help=f"machines (default: {DEFAULT_MACHINES})")
    add("--max-connections", metavar="N", help=f"of the server (default: {DEFAULTS.max_connections})")
    add("--reserved", metavar="N", help=f"superuser_reserved_connections (default: {DEFAULTS.reserved})")
    add("--others", metavar="N", help=f"what other clients of the server need (default: {DEFAULTS.others})")
    add("--database", metavar="URL", help="ask this PostgreSQL for its limits")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command. Returns the exit code: 0 planned, 1 the server cannot be asked, 2 wrong usage."""
    try:
        work, fleet, server = _read_work(args), _read_fleet(args), _read_server(args)
        plan = make_plan(work, server, fleet.workers * fleet.machines)
    except ConfigError as error:
        return _complain(error, USAGE)
    except LabError as error:
        return _complain(error, FAILURE)
    print("\n".join(format_plan(plan, fleet)))
    return 0


def _complain(error: Exception, code: int) -> int:
    print(f"headgate plan: error: {one_line(error)}", file=sys.stderr)
    return code


# Arguments


def _read_work(args: argparse.Namespace) -> Work:
    return Work(
        rate=_number("--rate", args.rate),
        hold_s=_number("--hold", args.hold) / 1000,
        leases=DEFAULT_LEASES if args.leases is None else _number("--leases", args.leases),
        thread_s=None if args.sync is None else _number("--sync", args.sync) / 1000,
    )


def _read_fleet(args: argparse.Namespace) -> Fleet:
    machines = _whole("--machines", args.machines, DEFAULT_MACHINES)
    where = "" if machines == 1 else f", on each of {machines} machines"
    if args.workers not in (None, AUTO):
        return Fleet(_whole("--workers", args.workers, 0), machines, f"as given{where}")
    return Fleet(_whole("--cores", args.cores, _count_cores()), machines, f"one a core{where}")


def _count_cores() -> int:
    """Those that this process may use, where the system says so."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _read_server(args: argparse.Namespace) -> Server:
    """What was given; for the rest what the server says, if it may be asked."""
    found = DEFAULTS if args.database is None else ask_server(args.database)
    return Server(
        max_connections=_whole("--max-connections", args.max_connections, found.max_connections),
        reserved=_whole("--reserved", args.reserved, found.reserved),
        others=_whole("--others", args.others, found.others),
        limit=found.limit,
    )


def ask_server(url: str) -> Server:
    """Return the limits of the server behind a URL.

    :raises ConfigError: the URL cannot be used.
    :raises LabError: the server cannot be asked. Both are one line, without the password.
    """
    if "://" not in url:
        raise ConfigError("--database is no URL (not shown: it may hold a password); use postgresql://USER@HOST/NAME")
    # They need the extra ``lab``, and nothing else here does.
    try:
        import psycopg
    except ImportError:
        raise LabError("--database needs the driver psycopg; pip install 'headgate[lab]'") from None
    from headgate.lab.connection import connect
    from headgate.lab.external_postgres import parse_url

    try:
        address = parse_url(url)
    except LabError as error:
        raise ConfigError(str(error)) from None
    try:
        with connect(address, application_name="headgate-plan") as connection:
            row = connection.execute(_LIMITS).fetchone()
    except psycopg.Error as error:
        cause = one_line(error)
        raise LabError(f"cannot ask {address}: {cause}; check the URL, or give --max-connections instead") from None
    if row is None:
        raise LabError(f"cannot ask {address}: it does not know who asks; give --max-connections instead")
    return Server(max_connections=row[0], reserved=row[1], limit=row[2])


def _number(option: str, text: str) -> float:
    if not _DECIMAL.fullmatch(text):
        raise ConfigError(f"{option} {text!r} is not a number above 0; write it as {option} 100")
    return float(text)


def _whole(option: str, text: str | None, default: int) -> int:
    if text is None:
        return default
    if not _WHOLE.fullmatch(text):
        raise ConfigError(f"{option} {text!r} is not a whole number; write it as {option} 4")
    return int(text)


# Printing


def format_plan(plan: Plan, fleet: Fleet) -> Iterator[str]:
    """The plan in lines of 80 columns: the reasoning, what to mind, what to paste."""
    work = plan.work
    leases = "1 lease" if work.leases == 1 else f"{_figure(work.leases)} leases"
    yield f"{_figure(work.rate)} requests/s × {leases} × {_figure(work.hold_s * 1000)} ms"
    yield f"= {_figure(plan.busy)} connections busy on average (Little's law)"
    yield ""
    for name, each, together, why in [("", "each", "all", ""), *_rows(plan, fleet)]:
        yield f"{name:<12} {each:>6} {together:>6}  {why}".rstrip()
    for notice in _notices(plan):
        yield ""
        yield textwrap.fill(notice, WIDTH, initial_indent="! ", subsequent_indent="  ")
    yield ""
    yield from _format_snippet(plan, fleet)


def _rows(plan: Plan, fleet: Fleet) -> Iterator[tuple[str, str, str, str]]:
    work, server, workers = plan.work, plan.server, plan.workers
    yield "workers", "", str(workers), fleet.why
    yield "connections", str(plan.connections), str(plan.all_connections), _why_connections(plan)
    if plan.pool is not None:
        share = f"busy: {plan.utilisation:.0%} of them" if plan.utilisation < 1 else "wanted: more than there are"
        yield "pool", "", str(plan.pool), f"{_figure(plan.busy)} {share}"
    yield "server", "", str(server.room), _why_room(server)
    if plan.threads is not None and work.thread_s is not None:
        why = f"{_figure(plan.busy_threads)} busy a worker, {_figure(work.thread_s * 1000)} ms a request"
        yield "threads", str(plan.threads), str(plan.threads * workers), why
    yield "requests/s", "", f"{plan.ceiling.throughput:.0f}", f"at the very most: {plan.ceiling.constraint}"


def _why_connections(plan: Plan) -> str:
    if plan.fit in (Fit.TIGHT, Fit.IMPOSSIBLE):
        return "what the server has, shared out"
    busy = plan.busy / plan.workers
    return f"{_figure(busy)} busy a worker: {busy / plan.connections:.0%} of them"


def _why_room(server: Server) -> str:
    if server.limit == server.room:
        return "CONNECTION LIMIT of the role or the database"
    return f"max_connections {server.max_connections} - {server.reserved} reserved - {server.others} for others"


def _notices(plan: Plan) -> Iterator[str]:
    room, enough = plan.server.room, plan.max_connections_wanted
    if plan.fit is Fit.POOLED:
        yield (
            f"The workers want {plan.all_connections} connections and the server has room for {room}: "
            f"put PgBouncer in between. The service as a whole needs {plan.pool}."
        )
    if plan.fit is Fit.TIGHT:
        yield (
            f"The server's connections would be {plan.utilisation:.0%} busy, and waits grow fast above "
            f"{UTILISATION:.0%}. Shorten the holds, or raise max_connections to {enough}."
        )
    if plan.fit is Fit.IMPOSSIBLE:
        yield (
            f"{_figure(plan.busy)} connections would be busy and the server has room for {room}: the gate will refuse "
            f"the rest. Shorten the holds, or raise max_connections to {enough}, if the server has the cores for it."
        )
    if not plan.can_restart_rolling:
        yield (
            f"A restart that starts the new workers before the old ones have ended needs "
            f"{2 * plan.all_connections} connections for a while, and the server has room for {room}: "
            "end the old ones first, or put PgBouncer in between."
        )
    if plan.threads is not None and plan.threads > ANYIO_THREADS:
        yield f"A worker needs {plan.threads} threads and anyio gives it {ANYIO_THREADS}: raise its limit at start-up."


def _format_snippet(plan: Plan, fleet: Fleet) -> Iterator[str]:
    if plan.pool is None:
        yield "# the app"
        yield f"db = Database(url, connections={plan.connections})"
    else:
        yield "# pgbouncer.ini"
        yield "pool_mode = transaction"
        yield f"default_pool_size = {plan.pool}"
        yield f"max_db_connections = {plan.pool}"
        yield f"max_client_conn = {_round_up(2 * plan.all_connections + 20)}"
        yield ""
        yield "# the app; what the engine needs is in docs/pgbouncer.md"
        yield f"db = Database(engine, connections={plan.connections}, guard=False)"
    if plan.threads is not None and plan.threads > ANYIO_THREADS:
        yield "# in its lifespan:"
        yield f"anyio.to_thread.current_default_thread_limiter().total_tokens = {plan.threads}"
    yield ""
    yield "# the shell"
    yield f"uvicorn app:app --workers {fleet.workers}"


def _round_up(number: int) -> int:
    """To tens: a limit that nobody should meet."""
    return -(-number // 10) * 10


def _figure(value: float) -> str:
    """Two places below ten, one below a hundred; no exponent, no trailing zeros."""
    if value < 0.01:
        return "under 0.01"
    places = 2 if value < 10 else 1 if value < 100 else 0
    text = f"{value:.{places}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
