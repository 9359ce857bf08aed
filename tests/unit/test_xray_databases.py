"""Which databases an app may meet."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.asyncio import create_async_engine

import headgate.xray.databases
from headgate.errors import XrayError
from headgate.xray.databases import UNKNOWN, Databases, hosts_of, is_this_machine, peer_of

ELSEWHERE = "203.0.113.7"


@contextmanager
def watching(*allowed: str, everything: bool = False) -> Iterator[Databases]:
    databases = Databases(None if everything else allowed)
    seams = list(databases.seams())
    try:
        yield databases
    finally:
        for seam in reversed(seams):
            seam.undo()


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("postgresql://u:p@db.internal:5432/x", ("db.internal",)),
        ("postgresql+psycopg://u@/x?host=a:1&host=b:2", ("a", "b")),
        ("postgresql+psycopg://u@/x?host=a,b&port=1,2", ("a", "b")),
        ("postgresql+asyncpg://u@a/x?host=b", ("a", "b")),
        ("postgresql+psycopg://u@a/x?hostaddr=10.0.0.1", ("a", "10.0.0.1")),
        ("postgresql+psycopg://u@[2001:db8::1]:5432/x", ("2001:db8::1",)),
        ("postgresql+psycopg://u@/x?host=[2001:db8::1]:5432", ("2001:db8::1",)),
        ("postgresql+psycopg://u@/x?host=/var/run/postgresql", ()),
        ("postgresql+psycopg://u@/x?host=@abstract", ()),
        ("postgresql://u@/x", ()),
        ("sqlite:////etc/host", ()),
        ("sqlite+aiosqlite://", ()),
        ("mysql+pymysql://u@h/x", ("h",)),
    ],
)
def test_hosts_of_a_url(url: str, hosts: tuple[str, ...]) -> None:
    assert hosts_of(make_url(url)) == hosts


def test_libpqs_variables_count_where_the_url_names_none() -> None:
    environment = {"PGHOST": "db.internal,other"}
    assert hosts_of(make_url("postgresql://u@/x"), environment) == ("db.internal", "other")
    assert hosts_of(make_url("postgresql://u@h/x"), environment) == ("h",)
    assert hosts_of(make_url("mysql+pymysql://u@/x"), environment) == ()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "localhost"])
def test_loopback_is_this_machine(host: str) -> None:
    assert is_this_machine(host)


@pytest.mark.parametrize("host", [ELSEWHERE, "10.0.0.1", "0.0.0.0", "2001:db8::1", "", "..", "no\x00name"])
def test_nothing_else_is(host: str) -> None:
    assert not is_this_machine(host)


def test_an_engine_of_another_machine_is_barred_with_the_remedy_and_without_secrets() -> None:
    words = f"on {ELSEWHERE}, not on this machine.*--against {ELSEWHERE}"
    with watching() as databases, pytest.raises(XrayError, match=words) as raised:
        create_engine(f"postgresql+psycopg://user:hush@{ELSEWHERE}/shop")
    assert databases.refused == str(raised.value)
    assert "hush" not in databases.refused
    assert "user" not in databases.refused


def test_of_several_hosts_each_must_be_allowed() -> None:
    url = f"postgresql+psycopg://u@/x?host=127.0.0.1&host={ELSEWHERE}&host=198.51.100.1"
    with watching(ELSEWHERE), pytest.raises(XrayError, match=r"198\.51\.100\.1"):
        create_engine(url)
    with watching(ELSEWHERE, "198.51.100.1"):
        create_engine(url)


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg", "psycopg_async"])
def test_async_engines_are_barred_too(driver: str) -> None:
    url = f"postgresql+{driver}://u@{ELSEWHERE}/x"
    make: Any = create_engine if driver == "psycopg" else create_async_engine
    with watching(), pytest.raises(XrayError):
        make(url)
    with watching(f" {ELSEWHERE} "):
        make(url)
    with watching(everything=True) as databases:
        engine = make(url)
        assert databases.shown() == [f"postgresql at {ELSEWHERE}, x"]
        del engine


def test_files_are_not_barred_and_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with watching() as databases:
        engine = create_engine("sqlite:///shop.db")
        assert databases.shown() == ["sqlite at this machine, shop.db"]
        with engine.connect():
            pass
        engine.dispose()


# The other end of a connection.


class Connected:
    """What a driver gives: something with a descriptor."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self.is_closed = False

    def fileno(self) -> int:
        return self._connection.fileno()

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def connected() -> Iterator[Connected]:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        yield Connected(client)


def test_the_other_end_of_a_descriptor(connected: Connected) -> None:
    assert peer_of(connected) == "127.0.0.1"


def test_the_other_end_of_a_socket_of_this_machine() -> None:
    one, other = socket.socketpair()
    with one, other:
        assert peer_of(Connected(one)) == ""


def test_what_does_not_tell_is_unknown() -> None:
    assert peer_of(object()) is None


def engine_over(connection: Any) -> Engine:
    def create() -> DBAPIConnection:
        return connection  # type: ignore[no-any-return]

    return create_engine("postgresql+psycopg://", creator=create, _initialize=False)


def test_a_creators_connection_to_this_machine_passes(connected: Connected) -> None:
    with watching() as databases:
        engine = engine_over(connected)
        engine.pool.connect().detach()
        assert databases.shown() == ["postgresql at 127.0.0.1, its default database"]


def test_a_creators_connection_elsewhere_is_barred_and_closed(
    connected: Connected, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(headgate.xray.databases, "is_this_machine", lambda host: False)
    with watching() as databases:
        engine = engine_over(connected)
        with pytest.raises(XrayError, match=r"on 127\.0\.0\.1"):
            engine.pool.connect()
    assert connected.is_closed
    assert "--against 127.0.0.1" in databases.refused
    with watching("127.0.0.1"):
        engine_over(connected).pool.connect().detach()


def test_a_host_let_pass_by_its_name_is_not_barred_for_its_address(
    connected: Connected, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(headgate.xray.databases, "is_this_machine", lambda host: False)
    with watching("db"):
        engine = create_engine("postgresql+psycopg://db/x", creator=lambda: connected, _initialize=False)
        engine.pool.connect().detach()


def test_a_creators_connection_of_which_nothing_is_known_is_barred() -> None:
    with watching(), pytest.raises(XrayError, match=f"on {UNKNOWN}"):
        engine_over(object()).pool.connect()
