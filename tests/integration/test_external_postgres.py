from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy.engine import URL

import headgate.lab.external_postgres
from headgate.errors import LabError
from headgate.lab.connection import connect
from headgate.lab.environment import clean_environment
from headgate.lab.external_postgres import ExternalPostgres
from headgate.lab.postgres import EmbeddedPostgres, Postgres

SOURCE = Path(headgate.lab.external_postgres.__file__).parents[2]


def clear(url: URL) -> str:
    return url.render_as_string(hide_password=False)


def databases(server: EmbeddedPostgres) -> set[str]:
    with connect(server.url()) as admin:
        return {name for (name,) in admin.execute("SELECT datname FROM pg_database")}


def eventually(condition: Callable[[], bool], seconds: float = 15.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


@pytest.mark.parametrize("driver", [None, "psycopg", "asyncpg"])
def test_has_a_database_of_its_own_and_drops_it(postgres: EmbeddedPostgres, driver: str | None) -> None:
    with ExternalPostgres(clear(postgres.url(driver=driver))) as server:
        shared: Postgres = server
        assert not shared.embedded
        assert shared.version == postgres.version
        assert server.database in databases(postgres)
        second = server.create_database()
        with connect(server.url(second)) as connection:
            assert connection.execute("SELECT current_database()").fetchone() == (second,)
        assert {server.database, second} <= databases(postgres)
    assert not {server.database, second} & databases(postgres)


def test_drops_it_under_its_users(postgres: EmbeddedPostgres) -> None:
    with ExternalPostgres(clear(postgres.url())) as server:
        connection = connect(server.url())
    assert server.database not in databases(postgres)
    connection.close()


@pytest.mark.parametrize("number", ["SIGKILL", "SIGTERM", "SIGINT"])
def test_drops_it_however_its_owner_ends(postgres: EmbeddedPostgres, number: str) -> None:
    program = (
        "import sys, time\n"
        "from headgate.lab.external_postgres import ExternalPostgres\n"
        "with ExternalPostgres(sys.stdin.readline().strip()) as server:\n"
        "    print(server.database, server.create_database(), flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=clean_environment() | {"PYTHONPATH": str(SOURCE)},
        text=True,
    ) as owner:
        assert owner.stdin is not None
        assert owner.stdout is not None
        owner.stdin.write(clear(postgres.url()) + "\n")
        owner.stdin.flush()
        names = set(owner.stdout.readline().split())
        assert len(names & databases(postgres)) == 2
        os.kill(owner.pid, getattr(signal, number))
        owner.wait(15)
        assert eventually(lambda: not names & databases(postgres))


def test_names_unused_leftovers_and_keeps_them(postgres: EmbeddedPostgres) -> None:
    leftover = postgres.create_database()
    try:
        with ExternalPostgres(clear(postgres.url())) as server:
            assert leftover in server.leftovers
            assert server.database not in server.leftovers
        assert leftover in databases(postgres)
    finally:
        postgres.drop_database(leftover)


def test_a_missing_right_is_named_with_its_remedy(postgres: EmbeddedPostgres) -> None:
    with connect(postgres.url()) as admin:
        admin.execute("CREATE ROLE humble LOGIN PASSWORD 'h4mble'")
        try:
            with pytest.raises(LabError, match="user humble may not create databases; ALTER ROLE") as raised:
                ExternalPostgres(clear(postgres.url().set(username="humble", password="h4mble"))).start()
        finally:
            admin.execute("DROP ROLE humble")
    assert_presentable(raised.value, "h4mble")


def test_a_wrong_password_is_not_shown(postgres: EmbeddedPostgres) -> None:
    with pytest.raises(LabError, match="cannot connect to postgresql://headgate:") as raised:
        ExternalPostgres(clear(postgres.url().set(password="s3cret"))).start()
    assert_presentable(raised.value, "s3cret")


def test_an_unreachable_server_is_one_line(postgres: EmbeddedPostgres) -> None:
    with pytest.raises(LabError, match=r"cannot connect to .*refused") as raised:
        ExternalPostgres("postgresql://someone:s3cret@127.0.0.1:1/app").start()
    assert_presentable(raised.value, "s3cret")


def test_ambient_settings_do_not_matter(postgres: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PGHOST", "PGHOSTADDR", "PGUSER", "PGPASSWORD", "PGDATABASE", "PGSERVICE", "DATABASE_URL"):
        monkeypatch.setenv(name, "192.0.2.1")
    with ExternalPostgres(clear(postgres.url())) as server:
        assert server.version == postgres.version


def assert_presentable(error: LabError, secret: str) -> None:
    assert "\n" not in str(error)
    assert secret not in str(error)
