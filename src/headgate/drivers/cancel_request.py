"""PostgreSQL's cancel request, over a connection of its own, and without the event loop, which may stand still.

https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-CANCELING-REQUESTS
"""

from __future__ import annotations

import socket
import ssl
import struct
from typing import Final, NamedTuple

CANCEL_REQUEST: Final = 80877102
SSL_REQUEST: Final = 80877103

CANCEL_TIMEOUT_S: Final = 1.0
"""How long a server may take to accept a cancel request; it takes a few milliseconds."""


class CancelRequest(NamedTuple):
    """What it takes to cancel a statement of one connection.

    :ivar address: host and port, or the path of a socket.
    :ivar tls: as the connection itself has it, or None.
    :ivar needs_tls: do without the request rather than send the secret in the clear.
    """

    address: tuple[str, int] | str
    pid: int
    secret: int
    tls: ssl.SSLContext | None = None
    needs_tls: bool = False

    def send(self, timeout_s: float) -> None:
        """Ask the server to cancel, and wait until it has passed that on, which it says by closing the connection.

        :raises OSError: the server cannot be reached, or does not answer in time.
        """
        with self._connect(timeout_s) as plain:
            plain.settimeout(timeout_s)
            with self._secured(plain) as connection:
                connection.sendall(struct.pack("!iiii", 16, CANCEL_REQUEST, self.pid, self.secret))
                try:
                    connection.recv(1)
                except ConnectionResetError:
                    return  # how some servers close it

    def _connect(self, timeout_s: float) -> socket.socket:
        if not isinstance(self.address, str):
            return socket.create_connection(self.address, timeout_s)
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(timeout_s)
        connection.connect(self.address)
        return connection

    def _secured(self, plain: socket.socket) -> socket.socket:
        if self.tls is None or isinstance(self.address, str):
            return plain
        plain.sendall(struct.pack("!ii", 8, SSL_REQUEST))
        if plain.recv(1) == b"S":
            return self.tls.wrap_socket(plain, server_hostname=self.address[0])
        if self.needs_tls:
            raise ConnectionError("the server does without TLS all at once")
        return plain
