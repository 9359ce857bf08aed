from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.errors import LabError
from headgate.hosting.service import last_line
from headgate.lab.cache import cache_directory
from headgate.lab.connection import connection_parameters
from headgate.lab.environment import ambient_database_hidden, clean_environment, service_environment
from headgate.lab.installation import Account, choose_parent, find_install, find_package, permits, reaches
from headgate.lab.machine import describe_machine, installed_versions, read_cpu_model
from headgate.lab.postgres import EmbeddedPostgres, format_settings
from headgate.lab.watchdog import children_of, last_words, link_install, reads_ready

ANN, BOB = Account(1000, 1000), Account(2000, 2000)


@pytest.mark.parametrize(
    ("mode", "owner", "account", "wanted", "granted"),
    [
        (0o700, ANN, ANN, 5, True),
        (0o077, ANN, ANN, 1, False),
        (0o710, ANN, Account(7, 1000), 1, True),
        (0o701, ANN, Account(7, 1000), 1, False),
        (0o711, ANN, BOB, 1, True),
        (0o711, ANN, BOB, 5, False),
        (0o750, ANN, BOB, 1, False),
    ],
)
def test_permits(mode: int, owner: Account, account: Account, wanted: int, granted: bool) -> None:
    assert permits(mode, owner, account, wanted) is granted


def test_reaching_needs_every_directory_above(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    target = closed / "open"
    target.mkdir(parents=True)
    me = Account(closed.stat().st_uid, closed.stat().st_gid)
    closed.chmod(0o700)
    assert reaches(me, target, 5) is all(os.access(path, os.X_OK) for path in target.parents)
    assert not reaches(Account(me.uid + 1, me.gid + 1), target)


def test_the_wheel_is_found_without_importing_it() -> None:
    package = find_package()
    assert (package / find_install(package) / "bin" / "initdb").exists()


def test_the_newest_postgresql_of_the_wheel_is_taken(tmp_path: Path) -> None:
    for name in ("pginstall", "pginstall9", "pginstall18"):
        (tmp_path / name / "bin").mkdir(parents=True)
        (tmp_path / name / "bin" / "postgres").touch()
    (tmp_path / "pginstall19").mkdir()
    assert find_install(tmp_path) == "pginstall18"
    with pytest.raises(LabError, match="no PostgreSQL in"):
        find_install(tmp_path / "pginstall19")


def test_a_directory_out_of_reach_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    with pytest.raises(LabError, match="is out of reach of user id 4242; choose another"):
        choose_parent(Account(4242, 4242), tmp_path)


def test_linking_repeats_the_depth_and_what_is_needed(tmp_path: Path) -> None:
    package = tmp_path / "site" / "wheel_package"
    for name in ("pg18/bin/postgres", "pg18/lib/libpq.a", "pg18/include/c.h", "pg18/share/x"):
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(name)
    (package / "pg18/bin/postgres").chmod(0o700)
    (package / "pg18/share/x").chmod(0o644)
    libraries = tmp_path / "site" / "wheel_package.libs"
    libraries.mkdir(mode=0o700)
    (libraries / "libpq.so").write_text("library")
    home = tmp_path / "home"
    home.mkdir()
    tree = link_install(package, "pg18", home)
    found = {str(path.relative_to(home / "wheel")) for path in home.rglob("*") if path.is_file()}
    prefix = "wheel_package/pg18"
    assert found == {f"{prefix}/bin/postgres", f"{prefix}/share/x", "wheel_package.libs/libpq.so"}
    assert stat.S_IMODE((tree / "bin" / "postgres").stat().st_mode) == 0o755
    assert (tree / "share" / "x").stat().st_ino == (package / "pg18/share/x").stat().st_ino
    assert all(path.stat().st_mode & 0o005 == 0o005 for path in (home / "wheel").rglob("*") if path.is_dir())


@pytest.mark.parametrize(
    ("log", "words"),
    [
        ("", "its log is empty"),
        ("one\n\ntwo\n", "two"),
        (
            'LOG:  starting\n2026 UTC [7] FATAL:  invalid value for "x"\nLOG:  shut down\n',
            'invalid value for "x"',
        ),
        (
            "initdb: error: directory is not empty\ninitdb: hint: remove it\n",
            "initdb: error: directory is not empty",
        ),
    ],
)
def test_last_words_say_why(log: str, words: str) -> None:
    assert last_words(log) == words


@pytest.mark.parametrize(
    ("text", "ready"),
    [
        (None, False),
        ("", False),
        ("7\n/data\n1\n5432\n\n127.0.0.1\n 1 2\nready   \n", True),
        ("7\n/data\n1\n5432\n\n127.0.0.1\n 1 2\nstarting\n", False),
        ("8\n/data\n1\n5432\n\n127.0.0.1\n 1 2\nready   \n", False),
    ],
)
def test_ready_is_what_the_status_file_of_this_server_says(tmp_path: Path, text: str | None, ready: bool) -> None:
    status = tmp_path / "postmaster.pid"
    if text is not None:
        status.write_text(text)
    assert reads_ready(status, 7) is ready


def test_children_are_found_by_their_parent() -> None:
    assert os.getpid() in children_of(os.getppid())


def test_settings_are_written_as_the_server_reads_them() -> None:
    settings = format_settings({"fsync": False, "jit": True, "work_mem": "8MB", "max_connections": 7})
    assert settings == {"fsync": "off", "jit": "on", "work_mem": "8MB", "max_connections": "7"}


@pytest.mark.parametrize("name", ["port", "listen_addresses", "unix_socket_directories", "data_directory"])
def test_settings_of_the_lab_are_refused(name: str) -> None:
    with pytest.raises(LabError, match=f"setting {name} = 'x' is chosen by the lab; leave it out"):
        EmbeddedPostgres(settings={name: "x"})


def test_a_server_that_is_not_running_says_so() -> None:
    server = EmbeddedPostgres()
    server.close()
    with pytest.raises(LabError, match="is not running; start it first"):
        server.end()


def test_a_childs_environment_has_no_ambient_database() -> None:
    ambient = {
        "PGHOST": "a",
        "PGPASSFILE": "/root/.pgpass",
        "DATABASE_URL": "b",
        "HEADGATE": "off",
        "HOME": "/h",
    }
    cleaned = clean_environment(ambient)
    assert set(cleaned) == {"HOME", "HEADGATE", "PGPASSFILE", "PGSERVICEFILE", "PGSYSCONFDIR"}
    assert not Path(cleaned["PGPASSFILE"]).exists()
    assert "HEADGATE" not in service_environment(ambient)


def test_ambient_settings_are_hidden_and_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGSERVICE", "production")
    with ambient_database_hidden():
        assert "PGSERVICE" not in os.environ
        with ambient_database_hidden():
            assert "PGSERVICE" not in os.environ
        assert "PGSERVICE" not in os.environ
    assert os.environ["PGSERVICE"] == "production"


def test_libpq_is_told_everything_by_name() -> None:
    url = EmbeddedPostgres().url("app", "asyncpg").set(query={"ssl": "require"}, password="p", port=5433)
    assert connection_parameters(url) == {
        "host": "127.0.0.1",
        "port": 5433,
        "dbname": "app",
        "user": "headgate",
        "password": "p",
        "sslmode": "require",
    }


@pytest.mark.parametrize(
    ("environment", "platform", "path"),
    [
        ({}, "linux", "/home/ann/.cache/headgate"),
        ({"XDG_CACHE_HOME": "/var/cache/ann"}, "linux", "/var/cache/ann/headgate"),
        ({"XDG_CACHE_HOME": "relative"}, "linux", "/home/ann/.cache/headgate"),
        ({"XDG_CACHE_HOME": "/x"}, "darwin", "/home/ann/Library/Caches/headgate"),
        ({"LOCALAPPDATA": "/local"}, "win32", "/local/headgate/cache"),
        ({"HEADGATE_CACHE": "/mine", "XDG_CACHE_HOME": "/x"}, "linux", "/mine"),
    ],
)
def test_the_cache_is_where_the_platform_wants_it(environment: dict[str, str], platform: str, path: str) -> None:
    assert cache_directory(environment, platform, Path("/home/ann")) == Path(path)


@pytest.mark.parametrize(
    ("log", "line"),
    [
        ("", "it left no word"),
        ("a\nb  \n\n", "b"),
        ("ValueError: no table\nERROR:    Application startup failed. Exiting.\n", "ValueError: no table"),
    ],
)
def test_the_last_line_that_tells_something(log: str, line: str) -> None:
    assert last_line(log) == line


@given(st.text())
def test_the_last_line_is_one_line(log: str) -> None:
    assert len(last_line(log).splitlines()) == 1


def test_the_cpu_is_read_from_linux_own_list(tmp_path: Path) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text("processor\t: 0\nmodel name\t: Fast CPU: 3 GHz\nmodel name\t: other\n")
    assert read_cpu_model(info) == "Fast CPU: 3 GHz"
    assert read_cpu_model(tmp_path / "none") == ""


def test_the_machine_is_described() -> None:
    machine = describe_machine("18.4")
    assert machine.postgresql == "18.4"
    assert machine.cores >= 1
    assert machine.memory_bytes > 100_000_000
    assert machine.packages["sqlalchemy"].startswith("2.")
    assert installed_versions(("no-such-package",)) == {}
