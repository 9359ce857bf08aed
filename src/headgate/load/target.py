"""What is asked: a target as people write it, and the bytes that ask it.

Passwords in URLs become an Authorization header; neither they nor query strings are ever shown.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import SplitResult, quote, unquote_to_bytes, urlsplit

from headgate.errors import LoadError
from headgate.version import __version__

Accept = Callable[[int, bytes], bool]
"""Is this status with this body the correct answer?"""

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})
_URL_SAFE = "/?%:@!$&'()*+,;=~[]"


@dataclass(frozen=True, slots=True)
class Target:
    """One kind of request.

    :ivar label: how samples name it; must not hold secrets.
    :ivar accept: if given, bodies are kept and an answer it refuses is the error ``wrong``.
    """

    label: str
    url: str = field(repr=False)
    method: str = "GET"
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    body: bytes = field(default=b"", repr=False)
    accept: Accept | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where connections go; requests to one origin share them."""

    host: str
    port: int
    tls: bool

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """A target made ready to send: its bytes, built once.

    :ivar repeatable: the method is idempotent (RFC 9110, 9.2.2), so a lost connection may be tried again.
    :ivar head_only: the answer has no body whatever its headers say (RFC 9110, 9.3.2).
    """

    origin: Origin
    wire: bytes = field(repr=False)
    head_only: bool
    repeatable: bool
    accept: Accept | None


def build_request(target: Target) -> Request:
    """Check a target and build its bytes.

    :raises LoadError: if URL, method or a header cannot be sent; the message shows no secret.
    """
    parts = _split(target.url)
    origin = _origin(target.url, parts)
    if not _TOKEN.fullmatch(target.method) or target.method == "CONNECT":
        raise LoadError(f"method {target.method!r} cannot be sent; give one such as GET or POST")
    path = quote(parts.path or "/", safe=_URL_SAFE)
    query = "?" + quote(parts.query, safe=_URL_SAFE) if parts.query else ""
    lines = [f"{target.method} {path}{query} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in _headers(target, origin, parts)]
    return Request(
        origin=origin,
        wire="\r\n".join([*lines, "", ""]).encode("latin-1") + target.body,
        head_only=target.method == "HEAD",
        repeatable=target.method in _IDEMPOTENT,
        accept=target.accept,
    )


def redact_url(url: str) -> str:
    """The URL without user, password, query and fragment, fit for messages, even if it is no valid URL."""
    scheme, separator, rest = url.partition("://") if "://" in url else ("", "", url)
    _, at, place = rest.rpartition("@")
    return scheme + separator + ("***@" if at else "") + re.split(r"[?#]", place, maxsplit=1)[0]


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  (reading it is what checks it)
    except ValueError as error:
        raise LoadError(f"{redact_url(url)!r} is not a URL; write http://HOST:PORT/PATH") from error
    if parts.scheme not in ("http", "https"):
        raise LoadError(f"{redact_url(url)!r} is neither http:// nor https://; write http://HOST:PORT/PATH")
    if not parts.hostname:
        raise LoadError(f"{redact_url(url)!r} names no host; write http://HOST:PORT/PATH")
    return parts


def _origin(url: str, parts: SplitResult) -> Origin:
    tls = parts.scheme == "https"
    try:
        host = (parts.hostname or "").encode("idna").decode("ascii")
    except UnicodeError as error:
        raise LoadError(f"{redact_url(url)!r} has no valid host name; write http://HOST:PORT/PATH") from error
    if not re.fullmatch(r"[\w.:%-]+", host, re.ASCII) or parts.port == 0:
        raise LoadError(f"{redact_url(url)!r} has no valid host and port; write http://HOST:PORT/PATH")
    return Origin(host, parts.port or (443 if tls else 80), tls)


def _headers(target: Target, origin: Origin, parts: SplitResult) -> list[tuple[str, str]]:
    for name, value in target.headers:
        if not _TOKEN.fullmatch(name) or not re.fullmatch(r"[\t\x20-\x7e\x80-\xff]*", value):
            raise LoadError(f"header {name!r} cannot be sent; write it as 'Name: value' on one line")
    given = {name.lower() for name, _ in target.headers}
    defaults = _default_headers(target, origin, parts)
    return [(name, value) for name, value in defaults if name.lower() not in given] + list(target.headers)


def _default_headers(target: Target, origin: Origin, parts: SplitResult) -> list[tuple[str, str]]:
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    usual_port = 443 if origin.tls else 80
    headers = [
        ("Host", host if origin.port == usual_port else f"{host}:{origin.port}"),
        ("User-Agent", f"headgate-load/{__version__}"),
        ("Accept", "*/*"),
    ]
    if target.body or target.method in _WITH_BODY:
        headers.append(("Content-Length", str(len(target.body))))
    if parts.username is not None:
        userinfo = unquote_to_bytes(parts.username) + b":" + unquote_to_bytes(parts.password or "")
        headers.append(("Authorization", "Basic " + b64encode(userinfo).decode("ascii")))
    return headers
