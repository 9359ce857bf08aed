"""Who may see the console (pure): a token in a header, or in a form that leaves a signed cookie.

The cookie is no token: it says until when it is good, signed with the token, so that every process of a service takes
the cookies of the others, nothing is stored, and another token ends them all.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from typing import Final
from urllib.parse import parse_qs

from headgate.errors import ConfigError

FEWEST_CHARACTERS: Final = 20
"""Of a token: whoever is asked nothing else must not be guessed."""

COOKIE: Final = "headgate_console"
COOKIE_SECONDS: Final = 12 * 3600

MOST_FORM_BYTES: Final = 4096

Headers = Iterable[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class ConsoleOptions:
    """The console page: where it is, and who may see it.

    :ivar token: at least 20 characters, as of ``secrets.token_urlsafe()``; from the environment or a secret store.
    :ivar path: where the page is; to whoever has no token the app answers there as if there was none.
    :ivar sign_in: offer the form ``<path>/sign-in``, which anybody may see. Without it the token is taken from a
        header alone, ``Authorization: Bearer …``.
    :ivar viewers: how many may look at once.
    """

    token: str = field(repr=False)
    path: str = "/-/headgate"
    sign_in: bool = True
    viewers: int = 5

    def __post_init__(self) -> None:
        if not isinstance(self.token, str) or len(self.token) < FEWEST_CHARACTERS or not self.token.isascii():
            raise ConfigError(
                f"the console's token cannot work: use at least {FEWEST_CHARACTERS} characters of ASCII, "
                "as of secrets.token_urlsafe()"
            )
        plain = self.path.replace("/", "a").replace("-", "a").replace("_", "a")
        if not (self.path.startswith("/") and not self.path.endswith("/") and plain.isalnum() and plain.isascii()):
            raise ConfigError(f"path={self.path!r} cannot work: use letters, digits, /, - and _, as '/-/headgate'")
        if not (isinstance(self.viewers, int) and self.viewers >= 1):
            raise ConfigError(f"viewers={self.viewers!r} cannot work: use at least 1")


def is_token(options: ConsoleOptions, given: str) -> bool:
    """Whether somebody has said the token; takes as long whatever was said."""
    return hmac.compare_digest(_digest(given), _digest(options.token))


def may_see(options: ConsoleOptions, headers: Headers, now_s: float) -> bool:
    """Whether a request may see the console.

    :param headers: as of an ASGI scope, their names in lower case.
    :param now_s: the time of day: a cookie is good on every process, also after a restart.
    """
    for name, value in headers:
        if name == b"authorization":
            scheme, _, given = value.decode("latin-1").partition(" ")
            if scheme.lower() == "bearer" and is_token(options, given.strip()):
                return True
        elif name == b"cookie" and any(is_good_cookie(options, one, now_s) for one in _cookies(value)):
            return True
    return False


def make_cookie(options: ConsoleOptions, now_s: float, *, is_secure: bool) -> str:
    """What ``Set-Cookie`` says. It has no path, so browsers send it back to where the form was and below."""
    until = str(int(now_s) + COOKIE_SECONDS)
    return _set_cookie(f"{until}.{_sign(options, until)}", COOKIE_SECONDS, is_secure=is_secure)


def end_cookie(*, is_secure: bool) -> str:
    """What ``Set-Cookie`` says to have it forgotten."""
    return _set_cookie("", 0, is_secure=is_secure)


def is_good_cookie(options: ConsoleOptions, value: str, now_s: float) -> bool:
    """Whether a cookie was made with this token and is still good."""
    until, _, signature = value.partition(".")
    signed = hmac.compare_digest(signature.encode("latin-1", "replace"), _sign(options, until).encode())
    return signed and until.isdigit() and now_s < int(until)


def token_of_form(body: bytes) -> str:
    """What a form says; '' if it says nothing that can be read."""
    try:
        return parse_qs(body.decode("ascii"), max_num_fields=10).get("token", [""])[0]
    except ValueError:
        return ""


def _set_cookie(value: str, seconds: int, *, is_secure: bool) -> str:
    secure = "; Secure" if is_secure else ""
    return f"{COOKIE}={value}; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}"


def _cookies(header: bytes) -> list[str]:
    try:
        found = SimpleCookie(header.decode("latin-1")).get(COOKIE)
    except CookieError:
        return []
    return [] if found is None else [found.value]


def _sign(options: ConsoleOptions, until: str) -> str:
    return hmac.new(_digest(options.token), f"headgate console {until}".encode(), hashlib.sha256).hexdigest()


def _digest(text: str) -> bytes:
    """Of one length, whatever the text's: a comparison tells nothing of it."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
