"""The console's two pages: each is one file that loads nothing, and may run nothing but what is in it."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files
from typing import Final, NamedTuple

_PACKAGE: Final = "headgate.xray.console"

ALWAYS: Final = (
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
"""Headers of every answer."""

CLOSED: Final = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
"""The policy of what is no page."""


class Page(NamedTuple):
    """A page, and the content security policy it is sent with."""

    body: bytes
    policy: str


@cache
def console_page() -> Page:
    """The console itself; it may ask where it came from, and send the form that ends it."""
    style, script = _read("console.css"), _read("console.js")
    html = _read("console.html").replace("/* style */", style).replace("/* script */", script)
    return Page(
        html.encode(),
        "; ".join(
            (
                "default-src 'none'",
                f"script-src {_hash_source(script)}",
                f"style-src {_hash_source(style)}",
                "connect-src 'self'",
                "img-src data:",
                "base-uri 'none'",
                "form-action 'self'",
                "frame-ancestors 'none'",
            )
        ),
    )


@cache
def sign_in_page(*, has_failed: bool) -> Page:
    """The form; nothing of the request is in it."""
    style = _read("console.css")
    html = _read("sign_in.html").replace("/* style */", style)
    said = '<p role="alert" class="bad">That is not the token.</p>' if has_failed else ""
    return Page(
        html.replace("<!-- said -->", said).encode(),
        "; ".join(
            (
                "default-src 'none'",
                f"style-src {_hash_source(style)}",
                "img-src data:",
                "base-uri 'none'",
                "form-action 'self'",
                "frame-ancestors 'none'",
            )
        ),
    )


def _read(name: str) -> str:
    return files(_PACKAGE).joinpath(name).read_text(encoding="utf-8")


def _hash_source(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
