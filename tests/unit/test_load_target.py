"""Targets: what is put on the wire, and what is never shown."""

from __future__ import annotations

import pytest

from headgate.errors import LoadError
from headgate.load.target import Origin, Target, build_request, redact_url


def wire(url: str, **fields: object) -> list[str]:
    request = build_request(Target("x", url, **fields))  # type: ignore[arg-type]
    return request.wire.decode("latin-1").split("\r\n")


def test_a_plain_get() -> None:
    first, *headers = wire("http://127.0.0.1:8000/ping?x=1#part")
    assert first == "GET /ping?x=1 HTTP/1.1"
    assert headers[0] == "Host: 127.0.0.1:8000"
    assert headers[-2:] == ["", ""]
    assert not any(line.startswith("Content-Length") for line in headers)


@pytest.mark.parametrize(
    ("url", "first", "host"),
    [
        pytest.param("http://h", "GET / HTTP/1.1", "Host: h", id="no path, usual port"),
        pytest.param("https://h:443/a", "GET /a HTTP/1.1", "Host: h", id="usual port of https"),
        pytest.param("http://h:443/a", "GET /a HTTP/1.1", "Host: h:443", id="unusual port"),
        pytest.param("http://[::1]:80/", "GET / HTTP/1.1", "Host: [::1]", id="IPv6"),
        pytest.param("http://h/ä b%20c", "GET /%C3%A4%20b%20c HTTP/1.1", "Host: h", id="quoted once"),
        pytest.param("http://bücher.example/", "GET / HTTP/1.1", "Host: xn--bcher-kva.example", id="IDNA"),
    ],
)
def test_request_line_and_host(url: str, first: str, host: str) -> None:
    assert wire(url)[:2] == [first, host]


def test_body_and_own_headers() -> None:
    lines = wire("http://h/", method="POST", headers=(("host", "other"), ("X-A", "1")), body=b"abc")
    assert lines[0] == "POST / HTTP/1.1"
    assert [line for line in lines if line.lower().startswith("host:")] == ["host: other"]
    assert "Content-Length: 3" in lines
    assert lines[-1] == "abc"
    assert "Content-Length: 0" in wire("http://h/", method="POST")


def test_origin_and_kind_of_request() -> None:
    head = build_request(Target("x", "https://h/", method="HEAD"))
    post = build_request(Target("x", "http://h:81/", method="POST"))
    assert (head.origin, head.head_only, head.repeatable) == (Origin("h", 443, True), True, True)
    assert (post.origin, post.head_only, post.repeatable) == (Origin("h", 81, False), False, False)


def test_userinfo_becomes_a_header_and_is_never_shown() -> None:
    target = Target("x", "http://u%40x:geheim@h/", headers=(("Authorization", "no"),))
    plain = Target("x", "http://u%40x:geheim@h/")
    assert "Authorization: Basic dUB4OmdlaGVpbQ==" in wire(plain.url)
    assert "geheim" not in repr(plain) + repr(build_request(plain))
    assert wire(target.url, headers=target.headers).count("Authorization: no") == 1


@pytest.mark.parametrize(
    ("url", "message"),
    [
        pytest.param("ping", "neither http:// nor https://", id="no URL"),
        pytest.param("localhost:8000/ping", "neither http:// nor https://", id="no scheme"),
        pytest.param("ftp://u:geheim@h/", "neither http:// nor https://", id="wrong scheme"),
        pytest.param("http://", "names no host", id="no host"),
        pytest.param("http://u:geheim@h:99999/", "not a URL", id="port too high"),
        pytest.param("http://u:geheim@h:0/", "no valid host", id="port zero"),
        pytest.param("http://u:ge/heim@h:1/", "not a URL", id="slash in the password"),
        pytest.param("http://[::1/?geheim", "not a URL", id="open bracket"),
        pytest.param("http://a b/", "no valid host", id="space in the host"),
        pytest.param("http://" + "a" * 64 + "/", "no valid host", id="label too long"),
    ],
)
def test_bad_urls_are_refused_without_their_secrets(url: str, message: str) -> None:
    with pytest.raises(LoadError, match=message) as caught:
        build_request(Target("x", url))
    assert "heim" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("header", [("X Y", "1"), ("", "1"), ("X", "1\r\nY: 2"), ("X", "\N{SNOWMAN}")])
def test_bad_headers_are_refused(header: tuple[str, str]) -> None:
    with pytest.raises(LoadError, match="header"):
        build_request(Target("x", "http://h/", headers=(header,)))


@pytest.mark.parametrize("method", ["", "G T", "CONNECT"])
def test_bad_methods_are_refused(method: str) -> None:
    with pytest.raises(LoadError, match="method"):
        build_request(Target("x", "http://h/", method=method))


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://h:1/a?token=1#x", "http://h:1/a"),
        ("http://u:p@h/a", "http://***@h/a"),
        ("http://u:p?q@h/a", "http://***@h/a"),
        ("u:p@h/a", "***@h/a"),
    ],
)
def test_redacted_urls(url: str, shown: str) -> None:
    assert redact_url(url) == shown
