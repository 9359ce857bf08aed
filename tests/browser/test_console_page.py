"""The console in a real Chromium: behind its form, live, and silent."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

import headgate
from headgate.hosting.service import Service
from headgate.lab.environment import service_environment

from .chromium import Tab, chromium
from .console_app import EVIL

TOKEN = "a-token-that-nobody-guesses"
PICTURES = os.environ.get("HEADGATE_PICTURES")
"""A directory that takes what the page looked like."""

PATHS = os.pathsep.join(map(str, (Path(__file__).parent, Path(headgate.__file__).parents[1])))
"""Where the service finds its factory, and the Headgate that is tested."""


@pytest.fixture
def service(tmp_path: Path) -> Iterator[str]:
    """Being used."""
    service = Service(
        "console_app:make_app",
        {"token": TOKEN, "file": str(tmp_path / "some.db")},
        log=tmp_path / "service.log",
        environment={**service_environment(), "PYTHONPATH": os.pathsep.join((PATHS, os.environ.get("PYTHONPATH", "")))},
    )
    with service, using(service.url):
        yield service.url


class using:  # noqa: N801  # reads as what it is: with using(url)
    """Clients of the app, until the block ends."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._ended = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._use()))

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *exc: object) -> None:
        self._ended.set()
        self._thread.join()

    async def _use(self) -> None:
        async with httpx.AsyncClient(base_url=self._url, timeout=60) as client:
            held = asyncio.create_task(client.get("/slow?secret=my-secret"))
            await client.get("/stall")
            await client.get(f"/{EVIL}")
            while not self._ended.is_set():
                await asyncio.gather(*(client.get(f"/orders/{number}") for number in range(5)))
                await asyncio.sleep(0.05)
            held.cancel()


@pytest.fixture
def tab(tmp_path: Path) -> Iterator[Tab]:
    """A browser that has been nowhere."""
    with chromium(tmp_path / "profile") as tab:
        yield tab


def sign_in(tab: Tab, url: str, token: str = TOKEN) -> None:
    tab.go(f"{url}/-/headgate/sign-in")
    tab.evaluate(f"document.getElementById('token').value = {token!r}")
    tab.evaluate("document.querySelector('form').requestSubmit()")


def photograph(tab: Tab, name: str) -> None:
    if PICTURES:
        tab.photograph(Path(PICTURES) / f"{name}.png")


def test_a_wrong_token_leads_nowhere(service: str, tab: Tab) -> None:
    sign_in(tab, service, "wrong")
    tab.wait_for("document.body.innerText.includes('That is not the token.')")
    photograph(tab, "sign-in-refused")
    tab.go(f"{service}/-/headgate/")
    assert "Not Found" in tab.text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 420])
def test_the_page_shows_what_happens_and_asks_nobody_else(service: str, tab: Tab, width: int, scheme: str) -> None:
    tab.look(width=width, scheme=scheme)
    sign_in(tab, service)
    tab.wait_for("document.getElementById('state')?.textContent === 'live'")
    tab.wait_for("document.querySelectorAll('#stalls tbody th').length >= 1", 20)
    tab.wait_for("document.querySelector('#routes tbody').innerText.includes('GET /orders/{number}')")
    tab.wait_for("Number(document.querySelector('#window').textContent.split(' ')[0]) >= 2")
    photograph(tab, f"console-{width}-{scheme}")
    read = tab.text()
    assert "GET /slow" in read
    assert "asyncio.sleep" in read
    assert "console_app.py" in read
    assert "shop" in read
    assert "secret" not in read
    assert tab.evaluate("document.querySelectorAll('#routes svg.bar rect').length") >= 2
    tab.evaluate("document.querySelector('input[value=all]').click()")
    assert EVIL in tab.text()
    assert tab.evaluate("document.querySelectorAll('img').length") == 0
    assert tab.complaints == []
    assert all(asked.startswith((service, "data:")) for asked in tab.requests)
    assert not any(TOKEN in asked for asked in tab.requests)
    assert tab.evaluate("document.cookie") == ""
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth") is True


def test_the_page_goes_on_when_the_stream_has_ended(service: str, tab: Tab) -> None:
    sign_in(tab, service)
    tab.wait_for("document.getElementById('state')?.textContent === 'live'")
    tab.wait_for("Number(document.querySelector('#window').textContent.split(' ')[0]) >= 10", 20)
    assert sum(asked.endswith("/events") for asked in tab.requests) >= 2
    assert tab.complaints == []


def test_whoever_has_signed_out_sees_nothing(service: str, tab: Tab) -> None:
    sign_in(tab, service)
    tab.wait_for("document.getElementById('state')?.textContent === 'live'")
    tab.evaluate("document.querySelector('form').requestSubmit()")
    tab.wait_for("document.title === 'Sign in'")
    tab.go(f"{service}/-/headgate/")
    assert "Not Found" in tab.text()
