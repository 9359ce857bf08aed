"""Which requests a recorded session (HTTP Archive 1.2) gives. Pure.

Those to one origin, each kind once, in the order of the session, with their bodies, cookies and authorization: these
are sent, and never shown.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from headgate.errors import XrayError
from headgate.xray.asks import Ask, Choice, LeftOut

NOT_SENT: Final = frozenset(
    {
        # They belong to the connection of the recording, or to its body's form.
        "host",
        "connection",
        "content-length",
        "transfer-encoding",
        "keep-alive",
        "te",
        "trailer",
        "upgrade",
        "proxy-connection",
        "expect",
        # With them the app would answer that nothing has changed since.
        "if-none-match",
        "if-modified-since",
        "if-range",
        "range",
    }
)


class UnrepeatableError(Exception):
    """A recorded request cannot be sent again; says why."""


def choose_from_har(text: str, *, origin: str | None = None, source: str = "the file") -> Choice:
    """The requests of a recorded session.

    :param origin: ``http://localhost:8000``; by default the one that most of them went to.
    :param source: what the message calls the file.
    :raises XrayError: it is no recorded session, or has no request to that origin.
    """
    requests = _requests(text, source)
    counts = Counter(_origin(one) for one in requests)
    chosen = _normal(origin) if origin is not None else max(counts, key=lambda one: counts[one], default="")
    if not counts[chosen]:
        known = ", ".join(sorted(filter(None, counts))) or "none at all"
        raise XrayError(
            f"{source} has no request to {chosen or 'any origin'}; it has some to {known}: name one of them"
        )
    asks: dict[Ask, None] = {}
    left_out = [
        LeftOut(f"{count} requests to {other or 'no origin of HTTP'}", "another origin; choose it by --origin")
        for other, count in counts.items()
        if other != chosen
    ]
    for request in requests:
        if _origin(request) == chosen:
            try:
                asks[_ask(request)] = None
            except UnrepeatableError as why:
                left_out.append(LeftOut(f"{request.get('method', '?')} {urlsplit(request['url']).path}", str(why)))
    return Choice(tuple(asks), tuple(left_out))


def _requests(text: str, source: str) -> list[Mapping[str, Any]]:
    try:
        requests = [entry["request"] for entry in json.loads(text)["log"]["entries"]]
        assert all(isinstance(one["url"], str) and isinstance(one["method"], str) for one in requests)
    except (ValueError, KeyError, TypeError, AssertionError, RecursionError):
        raise XrayError(
            f"{source} is no recorded session: save one as HAR in the browser's developer tools, under Network"
        ) from None
    return requests


def _origin(request: Mapping[str, Any]) -> str:
    return _normal(request["url"])


def _normal(url: str) -> str:
    """Scheme, host and port, the usual port left out; '' if it has none of HTTP's."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return ""
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return ""
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    usual = {"http": 80, "https": 443}[parts.scheme]
    return f"{parts.scheme}://{host}" + (f":{port}" if port and port != usual else "")


def _ask(request: Mapping[str, Any]) -> Ask:
    parts = urlsplit(request["url"])
    headers = tuple(_headers(request))
    if any(name.lower() == "upgrade" for name, _ in _named(request.get("headers"))):
        raise UnrepeatableError("a WebSocket")
    return Ask(
        request["method"].upper(),
        (parts.path or "/") + (f"?{parts.query}" if parts.query else ""),
        headers,
        _body(request),
    )


def _headers(request: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    has_cookies = False
    for name, value in _named(request.get("headers")):
        if name.lower() not in NOT_SENT and not name.startswith(":"):  # HTTP/2 keeps the request line among them
            has_cookies |= name.lower() == "cookie"
            yield name, value
    cookies = [f"{name}={value}" for name, value in _named(request.get("cookies"))]
    if cookies and not has_cookies:  # some browsers keep them there alone
        yield "Cookie", "; ".join(cookies)


def _named(values: Any) -> Iterator[tuple[str, str]]:
    for one in values if isinstance(values, list) else ():
        if isinstance(one, dict) and isinstance(one.get("name"), str):
            yield one["name"], str(one.get("value", ""))


def _body(request: Mapping[str, Any]) -> bytes:
    posted = request.get("postData")
    if not isinstance(posted, Mapping):
        size = request.get("bodySize")
        if isinstance(size, int) and size > 0:
            raise UnrepeatableError("its body was not recorded")
        return b""
    text = posted.get("text")
    if isinstance(text, str) and text:
        return _decoded(text, posted.get("encoding"))
    parameters = list(_named(posted.get("params")))
    if parameters and "multipart" in str(posted.get("mimeType")):
        raise UnrepeatableError("its form was recorded without its files")
    return urlencode(parameters).encode()


def _decoded(text: str, encoding: Any) -> bytes:
    if encoding != "base64":
        return text.encode()
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise UnrepeatableError("its body cannot be read") from None
