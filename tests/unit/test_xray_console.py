"""Who may see the console, what the page may do, and what it is told."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
import signal
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.errors import ConfigError
from headgate.xray.console import serving
from headgate.xray.console.access import (
    COOKIE,
    COOKIE_SECONDS,
    MOST_FORM_BYTES,
    ConsoleOptions,
    is_good_cookie,
    is_token,
    make_cookie,
    may_see,
    token_of_form,
)
from headgate.xray.console.pages import console_page, sign_in_page
from headgate.xray.console.serving import ConsoleMiddleware
from headgate.xray.console.snapshot import MOST_HOLDS, MOST_REQUESTS, MOST_ROUTES, take_snapshot
from headgate.xray.figures import Figures
from headgate.xray.live import LiveStatement
from headgate.xray.observation import Site
from headgate.xray.watch import Watch

from .live_requests import HERE, make_hold, make_request, make_scope, make_tally

TOKEN = "a-token-that-nobody-guesses"
OPTIONS = ConsoleOptions(TOKEN)
NOW_S = 1_800_000_000.0


def cookie_value(options: ConsoleOptions = OPTIONS, now_s: float = NOW_S) -> str:
    return make_cookie(options, now_s, is_secure=False).partition(";")[0].partition("=")[2]


# who may see it


def test_the_token_is_taken_from_a_header() -> None:
    assert may_see(OPTIONS, [(b"authorization", f"Bearer {TOKEN}".encode())], NOW_S)
    assert may_see(OPTIONS, [(b"authorization", f"bearer {TOKEN}".encode())], NOW_S)


@pytest.mark.parametrize("given", ["", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "é" * 30])
def test_nothing_else_is_the_token(given: str) -> None:
    assert not is_token(OPTIONS, given)
    assert not may_see(OPTIONS, [(b"authorization", b"Bearer " + given.encode("latin-1", "replace"))], NOW_S)


@pytest.mark.parametrize("value", [TOKEN, f"Basic {TOKEN}", "Bearer", ""])
def test_a_header_of_another_scheme_is_none(value: str) -> None:
    assert not may_see(OPTIONS, [(b"authorization", value.encode())], NOW_S)


def test_a_cookie_is_good_for_its_time() -> None:
    headers = [(b"cookie", f"theme=dark; {COOKIE}={cookie_value()}; x=y".encode())]
    assert may_see(OPTIONS, headers, NOW_S)
    assert may_see(OPTIONS, headers, NOW_S + COOKIE_SECONDS - 1)
    assert not may_see(OPTIONS, headers, NOW_S + COOKIE_SECONDS)


def test_another_process_takes_it_and_another_token_ends_it() -> None:
    assert is_good_cookie(ConsoleOptions(TOKEN), cookie_value(), NOW_S)
    assert not is_good_cookie(ConsoleOptions(TOKEN + "2"), cookie_value(), NOW_S)


def test_a_cookie_cannot_be_made_longer() -> None:
    until, _, signature = cookie_value().partition(".")
    assert not is_good_cookie(OPTIONS, f"{int(until) + 1}.{signature}", NOW_S)


@given(st.text(max_size=200))
def test_no_text_is_a_cookie(text: str) -> None:
    assert not is_good_cookie(OPTIONS, text, NOW_S)


@given(st.binary(max_size=200))
def test_no_header_makes_it_fail(value: bytes) -> None:
    assert not may_see(OPTIONS, [(b"cookie", value), (b"authorization", value)], NOW_S)
    token_of_form(value)


def test_a_cookie_is_for_this_site_alone_and_for_no_script() -> None:
    plain, secure = (make_cookie(OPTIONS, NOW_S, is_secure=flag) for flag in (False, True))
    assert {"HttpOnly", "SameSite=Strict", f"Max-Age={COOKIE_SECONDS}"} <= set(plain.split("; "))
    assert "Secure" not in plain
    assert secure.endswith("; Secure")
    assert TOKEN not in plain


@pytest.mark.parametrize(
    ("body", "token"),
    [(b"token=a%2Bb+c", "a+b c"), (b"token=a&token=b", "a"), (b"", ""), (b"x=y", ""), (b"\xff", ""), (b"&" * 50, "")],
)
def test_a_form_says_a_token(body: bytes, token: str) -> None:
    assert token_of_form(body) == token


@pytest.mark.parametrize(
    "options",
    [
        {"token": "short"},
        {"token": "é" * 30},
        {"token": TOKEN, "path": "console"},
        {"token": TOKEN, "path": "/console/"},
        {"token": TOKEN, "path": "/a b"},
        {"token": TOKEN, "viewers": 0},
    ],
)
def test_options_that_cannot_work_are_refused_without_the_token(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as refused:
        ConsoleOptions(**options)
    assert str(options["token"]) not in str(refused.value).replace("ASCII", "")


# pages


@pytest.mark.parametrize("page", [console_page(), sign_in_page(has_failed=False), sign_in_page(has_failed=True)])
def test_a_page_runs_what_is_in_it_and_nothing_else(page: Any) -> None:
    html = page.body.decode()
    assert "default-src 'none'" in page.policy
    assert "frame-ancestors 'none'" in page.policy
    assert "unsafe" not in page.policy
    for kind in ("script", "style"):
        for text in re.findall(f"<{kind}>(.*?)</{kind}>", html, re.DOTALL):
            digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
            assert f"{kind}-src 'sha256-{digest}'" in page.policy
    assert re.findall(r"""(?:src|href|action)=["'](?!data:,|sign-)""", html) == []
    assert not re.search(r"\son\w+=|style=", html)
    assert "http://" not in html.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in html


def test_the_script_sets_no_markup() -> None:
    script = console_page().body.decode()
    for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function("):
        assert word not in script


# what it is told


def busy_figures() -> Figures:
    watch = Watch()
    figures = Figures(watch)
    pool = make_tally("main")
    for number in range(200):
        request = make_request(make_scope("/orders/my-secret", template=f"/orders/{number}"))
        request.statements.append(LiveStatement("SELECT 'my-secret'", HERE, 0))
        hold = make_hold(pool, request)
        figures.end_request(request)
        lasting = make_request(make_scope("/orders/my-secret", template=None))
        watch.live.requests[id(lasting)] = lasting
        hold = make_hold(pool, lasting)
        hold.ended_ns = 0
        hold.busy_since_ns = 1
        hold.at = Site("app.py", 42, "<script>alert(1)</script>")
        watch.live.holds[number] = hold
    return figures


def test_a_snapshot_is_bounded_and_says_how_much_more_there_is() -> None:
    snapshot = take_snapshot(busy_figures())
    assert (len(snapshot["routes"]), len(snapshot["holds"]), len(snapshot["requests"])) == (
        MOST_ROUTES,
        MOST_HOLDS,
        MOST_REQUESTS,
    )
    assert snapshot["more"] == {
        "routes": 200 - MOST_ROUTES,
        "holds": 200 - MOST_HOLDS,
        "requests": 200 - MOST_REQUESTS,
        "stalls": 0,
    }
    assert snapshot["in_flight"] == {"GET (no route)": 200}


def test_a_snapshot_shows_neither_statements_nor_what_clients_send() -> None:
    text = json.dumps(take_snapshot(busy_figures()))
    assert "secret" not in text
    assert "SELECT" not in text


def test_a_hold_shows_where_it_was_acquired_and_where_it_is() -> None:
    hold = take_snapshot(busy_figures())["holds"][0]
    assert hold["acquired"] == "app.py:41 in list_orders"
    assert hold["at"] == "app.py:42 in <script>alert(1)</script>"
    assert hold["awaits"] == "a statement"


def test_a_snapshot_is_json_and_phases_add_up() -> None:
    snapshot = json.loads(json.dumps(take_snapshot(busy_figures())))
    assert sum(snapshot["routes"][0]["times_ms"]) == pytest.approx(100)
    assert len(snapshot["phases"]) == len(snapshot["routes"][0]["times_ms"])


# the middleware


class Asked:
    """An app around which the console is, and what it was asked."""

    def __init__(self, **options: Any) -> None:
        self.figures = Figures(Watch())
        self.console = ConsoleMiddleware(self._app, self.figures, ConsoleOptions(TOKEN, **options))

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 404, "headers": [(b"x-whose", b"the app")]})
        await send({"type": "http.response.body", "body": b"the app"})

    async def ask(
        self, method: str, path: str, *, token: str | None = TOKEN, body: bytes = b"", **scope: Any
    ) -> tuple[int, dict[bytes, bytes], bytes]:
        headers = [] if token is None else [(b"authorization", f"Bearer {token}".encode())]
        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        asked = {"type": "http", "method": method, "path": path, "headers": headers, "scheme": "http", **scope}
        await self.console(asked, receive, send)
        return sent[0]["status"], dict(sent[0]["headers"]), b"".join(one.get("body", b"") for one in sent[1:])


@pytest.mark.parametrize("path", ["", "/", "/state", "/events", "/other", "-not/", "/sign-out"])
@pytest.mark.parametrize("token", [None, "a-wrong-token-of-some-length"])
async def test_without_the_token_there_is_no_console(path: str, token: str | None) -> None:
    for method in ("GET", "POST", "HEAD", "PUT"):
        status, headers, body = await Asked().ask(method, f"/-/headgate{path}", token=token)
        assert (status, headers, body) == (404, {b"x-whose": b"the app"}, b"the app")


async def test_with_it_there_is() -> None:
    asked = Asked()
    status, headers, body = await asked.ask("GET", "/-/headgate/")
    assert status == 200
    assert headers[b"content-type"] == b"text/html; charset=utf-8"
    assert headers[b"cache-control"] == b"no-store"
    assert b"script-src 'sha256-" in headers[b"content-security-policy"]
    assert body == console_page().body
    status, headers, body = await asked.ask("GET", "/-/headgate/state")
    assert status == 200
    assert json.loads(body)["routes"] == []
    assert (await asked.ask("GET", "/-/headgate/other"))[0] == 404
    assert (await asked.ask("POST", "/-/headgate/"))[2] == b"the app"


async def test_behind_a_prefix_it_is_at_the_same_place() -> None:
    status, _, body = await Asked().ask("GET", "/shop/-/headgate/", root_path="/shop")
    assert (status, body) == (200, console_page().body)


async def test_a_missing_slash_is_led_on_relatively() -> None:
    status, headers, _ = await Asked().ask("GET", "/-/headgate")
    assert (status, headers[b"location"]) == (303, b"headgate/")


async def test_the_form_leaves_a_cookie_and_says_no_token() -> None:
    asked = Asked()
    status, headers, body = await asked.ask("GET", "/-/headgate/sign-in", token=None)
    assert status == 200
    assert b"Headgate" not in body
    status, headers, body = await asked.ask("POST", "/-/headgate/sign-in", token=None, body=b"token=wrong")
    assert status == 403
    assert b"set-cookie" not in headers
    assert b"wrong" not in body
    form = f"token={TOKEN}".encode()
    status, headers, body = await asked.ask("POST", "/-/headgate/sign-in", token=None, body=form, scheme="https")
    assert (status, headers[b"location"]) == (303, b"./")
    assert headers[b"set-cookie"].endswith(b"; Secure")
    assert TOKEN.encode() not in headers[b"set-cookie"] + body


async def test_a_form_that_is_too_long_is_not_read() -> None:
    form = b"x=" + b"a" * MOST_FORM_BYTES + f"&token={TOKEN}".encode()
    assert (await Asked().ask("POST", "/-/headgate/sign-in", token=None, body=form))[0] == 403


async def test_the_form_can_be_left_out() -> None:
    asked = Asked(sign_in=False)
    assert (await asked.ask("GET", "/-/headgate/sign-in", token=None))[2] == b"the app"
    assert (await asked.ask("GET", "/-/headgate/"))[0] == 200


async def test_signing_out_forgets_the_cookie() -> None:
    status, headers, _ = await Asked().ask("POST", "/-/headgate/sign-out")
    assert (status, headers[b"location"]) == (303, b"sign-in")
    assert b"Max-Age=0" in headers[b"set-cookie"]


class Viewer:
    """Looks at the stream until it is told to go."""

    def __init__(self, asked: Asked) -> None:
        self.sent: list[Any] = []
        self.goes = asyncio.Event()
        scope = {
            "type": "http",
            "method": "GET",
            "path": "/-/headgate/events",
            "headers": [(b"authorization", f"Bearer {TOKEN}".encode())],
        }
        self.task = asyncio.create_task(asked.console(scope, self._receive, self._send))

    async def _receive(self) -> Any:
        await self.goes.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        self.sent.append(message)

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])


@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "EVERY_S", 0.02)
    monkeypatch.setattr(serving, "LOOK_S", 0.01)


@pytest.mark.usefixtures("_quick")
async def test_so_many_may_look_and_a_place_comes_free() -> None:
    asked = Asked(viewers=2)
    viewers = [Viewer(asked) for _ in range(3)]
    await asyncio.sleep(0.05)
    assert [viewer.status for viewer in viewers] == [200, 200, 503]
    viewers[0].goes.set()
    await viewers[0].task
    other = Viewer(asked)
    await asyncio.sleep(0.05)
    assert other.status == 200
    for viewer in (viewers[1], other):
        viewer.goes.set()
        await viewer.task


@pytest.mark.usefixtures("_quick")
async def test_events_come_until_the_stream_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "STREAM_S", 0.1)
    viewer = Viewer(Asked())
    await viewer.task
    events = [message["body"] for message in viewer.sent[1:-1]]
    assert len(events) >= 2
    assert events[0].startswith(b"retry: 300\ndata: {")
    assert all(event.endswith(b"}\n\n") and event.count(b"\n") <= 3 for event in events)
    assert viewer.sent[-1] == {"type": "http.response.body", "body": b""}


@pytest.mark.usefixtures("_quick")
async def test_streams_end_when_the_app_shuts_down() -> None:
    asked = Asked()
    viewer = Viewer(asked)
    await asyncio.sleep(0.05)

    async def live(scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "lifespan.shutdown"

    async def receive() -> Any:
        return {"type": "lifespan.shutdown"}

    asked.console.app = live
    await asked.console({"type": "lifespan"}, receive, viewer._send)
    await asyncio.wait_for(viewer.task, 2)


@pytest.mark.usefixtures("_quick")
async def test_streams_end_when_the_server_is_told_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits for them before it tells the app."""
    server = SimpleNamespace(should_exit=False)
    handler = SimpleNamespace(__self__=server)
    monkeypatch.setattr(signal, "getsignal", lambda _: handler)
    viewer = Viewer(Asked())
    await asyncio.sleep(0.05)
    assert not viewer.task.done()
    server.should_exit = True
    await asyncio.wait_for(viewer.task, 2)


@pytest.mark.usefixtures("_quick")
async def test_several_viewers_are_shown_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[Figures] = []

    def take(figures: Figures) -> dict[str, Any]:
        taken.append(figures)
        return {}

    monkeypatch.setattr(serving, "take_snapshot", take)
    asked = Asked()
    viewers = [Viewer(asked) for _ in range(3)]
    await asyncio.sleep(0.1)
    assert len(taken) == 1
    for viewer in viewers:
        viewer.goes.set()
        await viewer.task
