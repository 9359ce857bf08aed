"""Creates one database on somebody's server, and drops it when the owner is gone.

A script of its own; `lifeline` describes its pipes. The order names libpq's parameters and the database.
Databases whose names continue this one's with an underscore go with it.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from typing import Any, LiteralString

import psycopg
from psycopg import sql

PREFIX = "headgate_lab_"

_DROP_ATTEMPTS = 3
_DROP_PAUSE_SECONDS = 1.0
_LEFTOVERS = """
SELECT datname FROM pg_database
WHERE starts_with(datname, %s)
AND datname NOT IN (SELECT datname FROM pg_stat_activity WHERE datname IS NOT NULL)
ORDER BY datname
"""
_OURS = "SELECT datname FROM pg_database WHERE datname = %(name)s OR starts_with(datname, %(name)s || '_')"


def create(order: dict[str, Any]) -> dict[str, Any]:
    """Create the database and say what the server is; or why not."""
    stage = "connect"
    try:
        with psycopg.connect(**order["parameters"], autocommit=True) as admin:
            stage = "create"
            leftovers = [row[0] for row in admin.execute(_LEFTOVERS, [PREFIX])]
            _execute(admin, "CREATE DATABASE {} TEMPLATE template0", order["name"])
            version = admin.info.parameter_status("server_version")
    except psycopg.Error as error:
        return {"state": "failed", "stage": stage, "sqlstate": error.sqlstate, "cause": one_line(error)}
    return {"state": "ready", "version": version, "leftovers": leftovers}


def drop(order: dict[str, Any]) -> dict[str, Any]:
    """Drop the database, its kin and their users; a server that is away for a moment gets time."""
    cause = ""
    for attempt in range(_DROP_ATTEMPTS):
        time.sleep(_DROP_PAUSE_SECONDS * attempt)
        try:
            with psycopg.connect(**order["parameters"], autocommit=True) as admin:
                for (name,) in admin.execute(_OURS, {"name": order["name"]}).fetchall():
                    _execute(admin, "DROP DATABASE IF EXISTS {} WITH (FORCE)", name)
            return {"state": "removed"}
        except psycopg.Error as error:
            cause = one_line(error)
    return {"state": "left", "cause": cause}


def _execute(admin: psycopg.Connection[Any], statement: LiteralString, name: str) -> None:
    admin.execute(sql.SQL(statement).format(sql.Identifier(name)))


def one_line(error: Exception) -> str:
    """Return the text of a driver's error, which may have several lines, as one."""
    return " ".join(str(error).split())


def report(answer: dict[str, Any]) -> None:
    """Answer the owner, who may be gone: nobody is left to tell then."""
    try:
        print(json.dumps(answer), flush=True)
    except BrokenPipeError:
        return


def main() -> None:
    """Create, wait for the owner's end, drop."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    order = json.loads(sys.stdin.readline() or "null")
    if order is None:
        return
    answer = {"state": "failed"}
    try:
        answer = create(order)
        report(answer)
        if answer["state"] == "ready":
            sys.stdin.read()
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        # A failed CREATE leaves nothing, but one that was interrupted may have left the database.
        if answer.get("stage") is None:
            report(drop(order))


if __name__ == "__main__":
    main()
