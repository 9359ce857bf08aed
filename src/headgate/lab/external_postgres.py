"""A PostgreSQL server that is already there, used in a database of its own that is dropped afterwards."""

from __future__ import annotations

import importlib.util
import re
import secrets
import sys
from types import TracebackType
from typing import Any, Self

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from headgate.errors import LabError
from headgate.hosting.lifeline import Lifeline
from headgate.lab import database_keeper
from headgate.lab.connection import connection_parameters, create_database, drop_database
from headgate.lab.environment import clean_environment

_DRIVERS = {
    "postgresql": ("psycopg",),
    "postgresql+psycopg": ("psycopg",),
    "postgresql+asyncpg": ("psycopg", "asyncpg"),
}
_KNOWN_OPTIONS = ("host", "ssl", "sslmode")
_CONNECT_SECONDS = 5
_CREATE_SECONDS = 60.0
_DROP_SECONDS = 60.0


class ExternalPostgres:
    """The server behind ``--database URL``, and a new database on it with a name of its own.

    The database is dropped when the ``with`` block ends, and also when this process ends in any other way,
    SIGKILL included, as long as the server can be reached then. No password is ever printed.

    :ivar leftovers: unused databases of earlier runs that could not be dropped; we never drop them unasked.
    :raises LabError: one line: the URL cannot be used, the server cannot be reached, a right is missing.
    """

    embedded = False

    def __init__(self, url: str) -> None:
        self._admin = parse_url(url)
        self._lifeline: Lifeline | None = None
        self.database = f"{database_keeper.PREFIX}{secrets.token_hex(6)}"
        self.version = ""
        self.leftovers: tuple[str, ...] = ()

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

    def start(self) -> None:
        """Create the database. Raises LabError."""
        self._lifeline = start_keeper()
        try:
            self._lifeline.send({"parameters": self._parameters(), "name": self.database})
            answer = self._lifeline.receive(_CREATE_SECONDS)
            if answer is None or answer["state"] == "failed":
                raise LabError(explain_failure(self._admin, answer or {}))
        except BaseException:
            self._lifeline.close(_DROP_SECONDS)
            self._lifeline = None
            raise
        self.version = answer["version"]
        self.leftovers = tuple(answer["leftovers"])

    def _parameters(self) -> dict[str, Any]:
        parameters = connection_parameters(self._admin)
        return parameters | {"application_name": "headgate-lab", "connect_timeout": _CONNECT_SECONDS}

    def close(self) -> None:
        """Drop the database; does nothing when that is done. Raises LabError."""
        lifeline, self._lifeline = self._lifeline, None
        if lifeline is None:
            return
        answer = lifeline.close(_DROP_SECONDS)
        if answer is None or answer["state"] != "removed":
            cause = answer["cause"] if answer else "its keeper was killed"
            raise LabError(f"could not drop {self.database} on {self._admin}: {cause}; drop it by hand")

    def url(self, database: str | None = None, driver: str | None = None) -> URL:
        """Return the URL of ``database``, for ``driver`` (``psycopg``, ``asyncpg``) if one is named."""
        url = self._admin.set(
            drivername=f"postgresql+{driver}" if driver else "postgresql",
            database=database or self.database,
        )
        return _name_ssl(url, "ssl" if driver == "asyncpg" else "sslmode")

    def create_database(self) -> str:
        """Create another empty database and return its name; it is dropped with the first at the latest."""
        return create_database(self._admin, f"{self.database}_{secrets.token_hex(2)}")

    def drop_database(self, name: str) -> None:
        """Drop a database made by ``create_database`` and whoever is connected to it."""
        drop_database(self._admin, name)

    def __repr__(self) -> str:
        return f"<ExternalPostgres {self._admin} {self.version} database={self.database}>"


def start_keeper() -> Lifeline:
    """Start the process that drops the database, and outlives us for as long as that takes."""
    # -P: the script's own directory is no place to import from.
    command = [sys.executable, "-P", database_keeper.__file__]
    return Lifeline("the keeper of the lab's database", command, env=clean_environment())


def parse_url(text: str) -> URL:
    """Return the URL of an existing server, complete. Raises LabError that names the value and the remedy."""
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise LabError(f"--database {redact(text)} is no URL; use postgresql://USER@HOST/NAME") from None
    if url.drivername not in _DRIVERS:
        raise LabError(f"--database {url} has an unknown scheme; use {', '.join(f'{s}://' for s in _DRIVERS)}")
    for driver in _DRIVERS[url.drivername]:
        if importlib.util.find_spec(driver) is None:
            raise LabError(f"--database {url} needs the driver {driver}; pip install 'headgate[lab]'")
    if not url.username:
        raise LabError(f"--database {url} names no user; use postgresql://USER@HOST/NAME")
    if not (url.host or "host" in url.query):
        raise LabError(f"--database {url} names no host; use postgresql://USER@HOST/NAME")
    _refuse_options(url)
    return url.set(port=url.port or 5432, database=url.database or "postgres")


def _refuse_options(url: URL) -> None:
    for name in url.query:
        if name not in _KNOWN_OPTIONS:
            bare = url.set(query={})
            raise LabError(f"--database {bare} has the option {name!r}; leave it out ({', '.join(_KNOWN_OPTIONS)})")


def redact(text: str) -> str:
    """Return a URL that cannot be parsed without what may be a password."""
    return re.sub(r"([:/]+).*@", r"\1***@", text, count=1, flags=re.DOTALL)


def _name_ssl(url: URL, name: str) -> URL:
    """Give the SSL mode the name its driver knows: libpq's ``sslmode`` is ``ssl`` for asyncpg."""
    query = {name if key in ("ssl", "sslmode") else key: value for key, value in url.query.items()}
    return url.set(query=query)


def explain_failure(url: URL, answer: dict[str, Any]) -> str:
    """Return one line that says why the database could not be made, and the remedy."""
    cause = answer.get("cause", "its keeper ended without a word, try «python -c 'import psycopg'»")
    if answer.get("stage") == "connect":
        return f"cannot connect to {url}: {cause}; check address, user and password"
    if answer.get("sqlstate") == "42501":
        return f"{url}: user {url.username} may not create databases; ALTER ROLE {url.username} CREATEDB"
    return f"cannot create a database on {url}: {cause}; check the server's log"
