"""Opens the lab's own connections to PostgreSQL, each with every parameter given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy.engine import URL

from headgate.errors import LabError
from headgate.lab.environment import NOWHERE, ambient_database_hidden

if TYPE_CHECKING:
    import psycopg

_CONNECT_SECONDS = 5


def connection_parameters(url: URL) -> dict[str, Any]:
    """Return ``url`` as libpq's parameters."""
    parameters = url.translate_connect_args(username="user", database="dbname")
    return parameters | {"sslmode" if name == "ssl" else name: value for name, value in url.query.items()}


def connect(url: URL, *, application_name: str = "headgate-lab") -> psycopg.Connection[Any]:
    """Open an autocommit connection; the caller closes it. Raises psycopg.OperationalError, LabError."""
    try:
        import psycopg
    except ImportError:
        raise LabError("the driver psycopg is not installed; pip install 'headgate[lab]'") from None
    with ambient_database_hidden():
        return psycopg.connect(
            **connection_parameters(url),
            application_name=application_name,
            connect_timeout=_CONNECT_SECONDS,
            passfile=NOWHERE,
            autocommit=True,
        )


def create_database(admin: URL, name: str) -> str:
    """Create an empty database over the connection ``admin`` and return its name."""
    from psycopg import sql

    with connect(admin) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))
    return name


def drop_database(admin: URL, name: str) -> None:
    """Drop a database, if it is there, over the connection ``admin``, and whoever is connected to it."""
    from psycopg import sql

    with connect(admin) as connection:
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
