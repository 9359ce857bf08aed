"""PgBouncer as the documentation sets it up, before an embedded PostgreSQL."""

from __future__ import annotations

import configparser
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from sqlalchemy.engine import URL

from headgate.lab.connection import connect
from headgate.lab.installation import choose_account, choose_parent

from .documented import documented

PGBOUNCER = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")

REQUIRED = "HEADGATE_REQUIRE_PGBOUNCER"
"""Set where PgBouncer has just been installed: there a skip would hide a failure."""

ROLE, DATABASE, PASSWORD = "app", "app", "rather secret"
START_S = 10.0


def require_pgbouncer() -> None:
    """Skip the test, or fail it, if PgBouncer is not installed."""
    if PGBOUNCER is None:
        if os.environ.get(REQUIRED):
            pytest.fail(f"{REQUIRED} is set, and no PgBouncer is installed")
        pytest.skip("no PgBouncer installed (Debian: apt-get install pgbouncer)")


def prepare_server(admin: URL) -> URL:
    """Make the page's role and database on a server, with what the page sets for the role; returns their URL."""
    with connect(admin) as connection:
        connection.execute(f"CREATE ROLE {ROLE} LOGIN PASSWORD '{PASSWORD}'".encode())
        connection.execute(f"CREATE DATABASE {DATABASE} OWNER {ROLE}".encode())
        for statement in documented("sql").split(";"):
            connection.execute(statement.encode())
    return admin.set(username=ROLE, password=PASSWORD, database=DATABASE)


@contextmanager
def run_pgbouncer(admin: URL, **settings: int | str) -> Iterator[URL]:
    """PgBouncer with the page's configuration on a free port of loopback; gives the URL of the page's database.

    :param admin: the server, as somebody who may read the roles' secrets.
    :param settings: what a test wants otherwise.
    """
    assert PGBOUNCER is not None
    account = choose_account()  # PgBouncer refuses to run as root
    with tempfile.TemporaryDirectory(dir=choose_parent(account, None)) as name:
        directory, port = Path(name), _free_port()
        ini, users, log = (directory / file for file in ("pgbouncer.ini", "userlist.txt", "log"))
        users.write_text(_userlist(admin), encoding="utf-8")
        _write_ini(ini, admin, {"listen_port": port, "auth_file": users, "unix_socket_dir": "", **settings})
        if account is not None:
            for path in (directory, ini, users):
                os.chown(path, account.uid, account.gid)
        as_account = {} if account is None else {"user": account.uid, "group": account.gid, "extra_groups": ()}
        with log.open("w", encoding="utf-8") as stderr:
            process = subprocess.Popen([PGBOUNCER, "-q", ini], stderr=stderr, cwd="/", **as_account)  # type: ignore[call-overload]
        try:
            _wait_until_listening(process, port, log)
            yield admin.set(username=ROLE, password=PASSWORD, database=DATABASE, port=port)
        finally:
            process.kill()  # at once: a graceful stop waits for clients
            process.wait()


def _write_ini(path: Path, admin: URL, changes: dict[str, object]) -> None:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(documented("ini"))
    parser["databases"] = {DATABASE: f"host={admin.host} port={admin.port} dbname={DATABASE}"}
    parser["pgbouncer"].update({name: str(value) for name, value in changes.items()})
    with path.open("w", encoding="utf-8") as file:
        parser.write(file)


def _userlist(admin: URL) -> str:
    """As the page's command writes it: the role with the secret that the server keeps."""
    with connect(admin) as connection:
        row = connection.execute("SELECT rolpassword FROM pg_authid WHERE rolname = %s", [ROLE]).fetchone()
    assert row is not None
    return f'"{ROLE}" "{row[0]}"\n'


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _wait_until_listening(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline_s = time.monotonic() + START_S
    while time.monotonic() < deadline_s and process.poll() is None:
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", port)).close()
            return
        time.sleep(0.01)
    pytest.fail(f"PgBouncer did not start: {log.read_text(encoding='utf-8')}")
