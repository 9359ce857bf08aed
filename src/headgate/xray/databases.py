"""Which databases a service talks to, and a bar before those that it must not be tried on.

An engine's URL says where it will connect, unless its app gives a function that connects, arguments of the driver's
or an environment; so the other end of every new connection is looked at too, before a statement runs on it.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from typing import Any, Final

from sqlalchemy import URL, Engine, event
from sqlalchemy.pool import Pool

from headgate.errors import XrayError
from headgate.xray.seams import Seam

SERVERLESS: Final = ("sqlite", "duckdb")
UNKNOWN: Final = "unknown"
"""Stands for a host that cannot be told."""


class Databases:
    """The engines that were made while it listened.

    :param allowed: hosts beyond this machine's own; None for all.
    :ivar refused: why a database was barred, if one was: the app may have kept the exception to itself.
    """

    def __init__(self, allowed: Collection[str] | None) -> None:
        self._allowed = None if allowed is None else frozenset(map(_plain, allowed))
        self._engines: weakref.WeakSet[Engine] = weakref.WeakSet()
        self._peers: weakref.WeakKeyDictionary[Engine, str] = weakref.WeakKeyDictionary()
        self.refused = ""

    def seams(self) -> Iterator[Seam]:
        """Wrap the making of an engine."""
        yield Seam(Engine, "__init__", self._making)

    def _making(self, original: Any) -> Callable[..., None]:
        def make(engine: Engine, *args: Any, **options: Any) -> None:
            original(engine, *args, **options)
            self._engines.add(engine)
            if self._allowed is not None:
                self._bar(hosts_of(engine.url, os.environ))
                self._look_at_connections(engine)

        return make

    def _look_at_connections(self, engine: Engine) -> None:
        """Before anything is asked on one of them: SQLAlchemy's own questions come with listeners after this one."""
        known = weakref.ref(engine)

        def look(connection: Any, record: Any) -> None:
            found = known()
            if found is not None and found.url.get_backend_name() not in SERVERLESS:
                self._meet(found, connection)

        event.listen(engine.pool, "connect", look, insert=True)

    def _meet(self, engine: Engine, connection: Any) -> None:
        peer = peer_of(connection)
        named = hosts_of(engine.url, os.environ)
        if peer is None and not named:
            peer = UNKNOWN
        if peer:
            self._peers[engine] = peer
        try:
            # A host by its name that was let pass is not barred for its address.
            if peer and not (self._allowed or frozenset()).intersection(named):
                self._bar((peer,))
        except XrayError:
            with suppress(Exception):
                connection.close()
            raise

    def _bar(self, hosts: Collection[str]) -> None:
        for host in hosts:
            if _plain(host) not in (self._allowed or ()) and not is_this_machine(host):
                self.refused = self.refused or (
                    f"a database of the app is on {host}, not on this machine, and the load would meet it: "
                    f"point the app at a database of your own, or say --against {host}"
                )
                raise XrayError(self.refused)

    def name_of(self, pool: Pool) -> str:
        """The database that a pool leads to, as in ``shown``; '' if its engine was made before."""
        engine = self._engine_of(pool)
        return "" if engine is None else _shown(engine.url, self._peers.get(engine))

    def place_of(self, pool: Pool) -> str:
        """``db.internal:5432/shop``: where a pool leads to; '' if its engine was made before."""
        engine = self._engine_of(pool)
        if engine is None:
            return ""
        url = engine.url
        port = f":{url.port}" if url.port else ""
        return f"{','.join(hosts_of(url)) or url.get_backend_name()}{port}/{url.database or ''}"

    def _engine_of(self, pool: Pool) -> Engine | None:
        try:
            return next((engine for engine in self._engines if engine.pool is pool), None)
        except RuntimeError:  # an engine was made meanwhile
            return None

    def shown(self) -> list[str]:
        """Each database without user, password and options: ``postgresql at db.internal:5432, shop``."""
        return sorted({_shown(engine.url, self._peers.get(engine)) for engine in list(self._engines)})


def hosts_of(url: URL, environment: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """The hosts that a URL, or for want of one libpq's variables, names; none for a file or a socket."""
    backend = url.get_backend_name()
    if backend in SERVERLESS:
        return ()
    query = url.normalized_query
    named = [url.host or "", *query.get("host", ()), *query.get("hostaddr", ())]
    if not any(named) and backend == "postgresql":
        named = [(environment or {}).get(name, "") for name in ("PGHOST", "PGHOSTADDR")]
    hosts = [_without_port(host.strip()) for several in named for host in several.split(",")]
    return tuple(dict.fromkeys(host for host in hosts if host and not host.startswith(("/", "@"))))


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0] if host.count(":") == 1 else host


def _plain(host: str) -> str:
    return host.strip().strip("[]").lower()


def is_this_machine(host: str) -> bool:
    """Whether every address of a host is a loopback one."""
    try:
        addresses = {str(found[4][0]) for found in socket.getaddrinfo(host, None)}
    except (OSError, UnicodeError):
        return False
    return bool(addresses) and all(map(_is_loopback, addresses))


def _is_loopback(address: str) -> bool:
    found = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(found, "ipv4_mapped", None)
    return (mapped or found).is_loopback


def peer_of(connection: Any) -> str | None:
    """The address at the other end of a driver's connection; '' for a socket of this machine, None if unknown."""
    driver = getattr(connection, "driver_connection", connection)
    with suppress(Exception):  # drivers differ, and what one of them does not tell is unknown
        transport = getattr(driver, "_transport", None)  # asyncpg
        if transport is not None:
            return _address(transport.get_extra_info("peername"))
        for name in ("_sock", "_usock"):  # PyMySQL and its kin, pg8000
            if isinstance(getattr(driver, name, None), socket.socket):
                return _address(getattr(driver, name).getpeername())
        if callable(getattr(driver, "fileno", None)):  # psycopg, psycopg2
            with socket.socket(fileno=os.dup(driver.fileno())) as copy:
                return _address(copy.getpeername())
    return None


def _address(peer: Any) -> str | None:
    if isinstance(peer, tuple) and peer:
        return str(peer[0])
    return "" if isinstance(peer, str | bytes) else None


def _shown(url: URL, peer: str | None) -> str:
    place = ", ".join(hosts_of(url, os.environ)) or peer or "this machine"
    port = f":{url.port}" if url.port else ""
    return f"{url.get_backend_name()} at {place}{port}, {url.database or 'its default database'}"
