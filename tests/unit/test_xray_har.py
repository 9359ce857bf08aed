"""Which requests a recorded session gives."""

from __future__ import annotations

import json
from typing import Any

import pytest

from headgate.errors import XrayError
from headgate.xray.har import choose_from_har


def recorded(*requests: dict[str, Any]) -> str:
    whole = [{"request": {"method": "GET", "headers": [], **one}} for one in requests]
    return json.dumps({"log": {"version": "1.2", "entries": whole}})


def header(name: str, value: str) -> dict[str, str]:
    return {"name": name, "value": value}


def test_method_path_query_and_body_are_kept_and_each_kind_is_taken_once() -> None:
    post = {
        "method": "post",
        "url": "http://localhost:8000/orders",
        "postData": {"mimeType": "application/json", "text": '{"ü": 1}'},
    }
    choice = choose_from_har(recorded({"url": "http://localhost:8000/a?b=1#c"}, post, post))
    assert [(ask.method, ask.path, ask.body) for ask in choice.asks] == [
        ("GET", "/a?b=1", b""),
        ("POST", "/orders", '{"ü": 1}'.encode()),
    ]
    assert choice.left_out == ()


def test_cookies_and_authorization_are_sent_and_never_shown() -> None:
    secret = [header("Authorization", "Bearer hush"), header("cookie", "sid=hush")]
    (ask,) = choose_from_har(recorded({"url": "http://a/x?token=hush", "headers": secret})).asks
    assert ask.headers == (("Authorization", "Bearer hush"), ("cookie", "sid=hush"))
    assert "hush" not in repr(ask)
    assert "hush" not in ask.label


def test_cookies_that_stand_apart_are_sent() -> None:
    (ask,) = choose_from_har(recorded({"url": "http://a/", "cookies": [header("a", "1"), header("b", "2")]})).asks
    assert ask.headers == (("Cookie", "a=1; b=2"),)


def test_headers_of_the_recordings_connection_are_not_sent() -> None:
    names = [":authority", "Host", "Content-Length", "Connection", "If-None-Match", "Accept"]
    (ask,) = choose_from_har(recorded({"url": "http://a/", "headers": [header(one, "x") for one in names]})).asks
    assert ask.headers == (("Accept", "x"),)


def test_one_origin_is_taken_the_one_of_most() -> None:
    text = recorded(
        {"url": "https://cdn.example/x.js"},
        {"url": "http://localhost:8000/a"},
        {"url": "HTTP://LOCALHOST:8000/b"},
        {"url": "wss://localhost:8000/live"},
    )
    choice = choose_from_har(text)
    assert [ask.path for ask in choice.asks] == ["/a", "/b"]
    assert {one.what for one in choice.left_out} == {
        "1 requests to https://cdn.example",
        "1 requests to no origin of HTTP",
    }
    chosen = choose_from_har(text, origin="https://cdn.example:443/")
    assert [ask.path for ask in chosen.asks] == ["/x.js"]


def test_an_origin_nobody_went_to_is_refused_with_those_there_are() -> None:
    with pytest.raises(XrayError, match="no request to http://b; it has some to http://a: name one of them"):
        choose_from_har(recorded({"url": "http://a/"}), origin="http://b", source="x.har")


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        ({"bodySize": 12}, "its body was not recorded"),
        (
            {"postData": {"mimeType": "multipart/form-data; boundary=x", "params": [header("file", "")]}},
            "its form was recorded without its files",
        ),
        ({"postData": {"text": "!", "encoding": "base64"}}, "its body cannot be read"),
        ({"headers": [header("Upgrade", "websocket")]}, "a WebSocket"),
    ],
)
def test_what_cannot_be_sent_again_is_left_out(request_: dict[str, Any], why: str) -> None:
    choice = choose_from_har(recorded({"method": "POST", "url": "http://a/x?secret=1", **request_}))
    assert choice.asks == ()
    assert [(one.what, one.why) for one in choice.left_out] == [("POST /x", why)]


@pytest.mark.parametrize(
    ("posted", "body"),
    [
        ({"text": "aGk=", "encoding": "base64"}, b"hi"),
        ({"params": [header("a", "1 2"), header("b", "&")]}, b"a=1+2&b=%26"),
        ({"text": ""}, b""),
    ],
)
def test_forms_of_a_body(posted: dict[str, Any], body: bytes) -> None:
    (ask,) = choose_from_har(recorded({"url": "http://a/", "postData": posted})).asks
    assert ask.body == body


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"log": {"entries": [{}]}}', '{"log": {"entries": [{"request": 1}]}}']
)
def test_what_is_no_recording_is_one_line_with_a_remedy(text: str) -> None:
    with pytest.raises(XrayError, match=r"x.har is no recorded session: save one as HAR"):
        choose_from_har(text, source="x.har")


def test_an_empty_recording_has_nothing() -> None:
    with pytest.raises(XrayError, match="has no request to any origin; it has some to none at all"):
        choose_from_har(recorded())
