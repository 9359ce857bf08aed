"""Which databases a service talks to, and a bar before those that it must not be tried on."""

from __future__ import annotations

import ipaddress
import socket
import weakref
from collections.abc import Callable, Collection, Iterator
from typing import Any

from sqlalchemy import URL, Engine
from sqlalchemy.pool import Pool

from headgate.errors import XrayError
from headgate.xray.seams import Seam

SERVERLESS = ("sqlite",)


class Databases:
    """The engines that were made while it listened.

    :param allowed: hosts beyond this machine's own; None for all.
    """

    def __init__(self, allowed: Collection[str] | None) -> None:
        self._allowed = allowed
        self._engines: weakref.WeakSet[Engine] = weakref.WeakSet()

    def seams(self) -> Iterator[Seam]:
        """Wrap the making of an engine, and every connect of one."""
        yield Seam(Engine, "__init__", self._making)

    def _making(self, original: Any) -> Callable[..., None]:
        def make(engine: Engine, *args: Any, **options: Any) -> None:
            original(engine, *args, **options)
            self._engines.add(engine)
            self._bar(engine.url)

        return make

    def _bar(self, url: URL) -> None:
        if self._allowed is None:
            return
        for host in hosts_of(url):
            if host not in self._allowed and not is_this_machine(host):
                raise XrayError(
                    f"a database of the app is on {host}, not on this machine, and the load would meet it: "
                    f"point the app at a database of your own, or say --against {host}"
                )

    def place_of(self, pool: Pool) -> str:
        """``db.internal:5432/shop``: where a pool leads to; '' if its engine was made before."""
        try:
            url = next((engine.url for engine in self._engines if engine.pool is pool), None)
        except RuntimeError:  # an engine was made meanwhile
            url = None
        if url is None:
            return ""
        port = f":{url.port}" if url.port else ""
        return f"{','.join(hosts_of(url)) or url.get_backend_name()}{port}/{url.database or ''}"

    def shown(self) -> list[str]:
        """Each database without user, password and options: ``postgresql at db.internal:5432/shop``."""
        return sorted({_shown(engine.url) for engine in self._engines})


def hosts_of(url: URL) -> tuple[str, ...]:
    """The hosts that a URL names; none for a file or a socket."""
    if url.get_backend_name() in SERVERLESS:
        return ()
    named = [url.host or "", *url.normalized_query.get("host", ())]
    hosts = [host.rpartition(":")[0] or host if host.count(":") == 1 else host for host in named]
    return tuple(dict.fromkeys(host for host in hosts if host and not host.startswith("/")))


def is_this_machine(host: str) -> bool:
    """Whether every address of a host is a loopback one."""
    try:
        addresses = {str(found[4][0]) for found in socket.getaddrinfo(host, None)}
    except OSError:
        return False
    return bool(addresses) and all(ipaddress.ip_address(one.partition("%")[0]).is_loopback for one in addresses)


def _shown(url: URL) -> str:
    place = ", ".join(hosts_of(url)) or "this machine"
    port = f":{url.port}" if url.port else ""
    return f"{url.get_backend_name()} at {place}{port}, {url.database or 'its default database'}"
