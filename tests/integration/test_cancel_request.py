"""The cancel request on the wire: plain, over a Unix socket, with TLS, and with a server that does without."""

from __future__ import annotations

import shutil
import socket
import ssl
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from headgate.drivers.cancel_request import CANCEL_REQUEST, SSL_REQUEST, CancelRequest

REQUEST = struct.pack("!iiii", 16, CANCEL_REQUEST, 42, -7)


@contextmanager
def server(talk: Callable[[socket.socket], bytes], listener: socket.socket) -> Iterator[list[bytes]]:
    """Serves one client; gives what it has been told."""
    told: list[bytes] = []

    def serve() -> None:
        client, _ = listener.accept()
        with client:
            told.append(talk(client))

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield told
    finally:
        thread.join(5)
        listener.close()


def read_request(client: socket.socket) -> bytes:
    return client.recv(16)


def refuse_tls(client: socket.socket) -> bytes:
    assert client.recv(8) == struct.pack("!ii", 8, SSL_REQUEST)
    client.sendall(b"N")
    return client.recv(16)


def test_plain() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    with server(read_request, listener) as told:
        CancelRequest(listener.getsockname(), 42, -7).send(5)
    assert told == [REQUEST]


def test_over_a_unix_socket(tmp_path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path := str(tmp_path / "s"))
    listener.listen()
    with server(read_request, listener) as told:
        CancelRequest(path, 42, -7, ssl.create_default_context(), needs_tls=True).send(5)
    assert told == [REQUEST]


def test_a_server_without_tls_is_told_in_the_clear_if_it_may_be() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    with server(refuse_tls, listener) as told:
        CancelRequest(listener.getsockname(), 42, -7, ssl.create_default_context()).send(5)
    assert told == [REQUEST]


def test_the_secret_does_not_go_in_the_clear_if_it_must_not() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    with server(refuse_tls, listener) as told, pytest.raises(ConnectionError, match="without TLS"):
        CancelRequest(listener.getsockname(), 42, -7, ssl.create_default_context(), needs_tls=True).send(5)
    assert told == [b""]


def test_a_server_that_says_nothing_is_not_waited_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, pytest.raises(TimeoutError):
        CancelRequest(listener.getsockname(), 42, -7).send(0.05)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl to make a certificate")
def test_with_tls(tmp_path: Path) -> None:
    key, certificate = str(tmp_path / "key"), str(tmp_path / "certificate")
    make = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    subprocess.run([*make.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True)
    of_server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    of_server.load_cert_chain(certificate, key)

    def read_secured(client: socket.socket) -> bytes:
        assert client.recv(8) == struct.pack("!ii", 8, SSL_REQUEST)
        client.sendall(b"S")
        with of_server.wrap_socket(client, server_side=True) as secured:
            return secured.recv(16)

    listener = socket.create_server(("127.0.0.1", 0))
    context = ssl.create_default_context(cafile=certificate)
    with server(read_secured, listener) as told:
        CancelRequest(("localhost", listener.getsockname()[1]), 42, -7, context, needs_tls=True).send(5)
    assert told == [REQUEST]
