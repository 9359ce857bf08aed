"""The header as browsers read it, and who gets it."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.ledger import Account
from headgate.names import DATABASE, GATE_WAIT, PHASES, UNATTRIBUTED
from headgate.xray.live import LiveRequest
from headgate.xray.server_timing import TIMED_KEY, ServerTimingMiddleware, format_timing
from headgate.xray.web_hooks import SCOPE_KEY

from .live_requests import MS, make_scope

METRIC = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+;dur=[0-9]+(\.[0-9]+)?"
"""A token, and a number as its duration."""


def account(**times_ns: int) -> Account:
    times = tuple(times_ns.get(name, 0) for name in PHASES)
    return Account(sum(times), times)


def test_phases_are_milliseconds_and_the_total_is_last() -> None:
    times = {PHASES[GATE_WAIT]: 12_100_000, PHASES[DATABASE]: 3_440_000, PHASES[UNATTRIBUTED]: 300_000}
    assert format_timing(account(**times)) == (
        "gate_wait;dur=12.1, database;dur=3.4, unattributed;dur=0.3, total;dur=15.8"
    )


def test_what_would_be_nothing_is_left_out() -> None:
    assert format_timing(account(database=49_999)) == "total;dur=0.0"


@given(st.lists(st.integers(0, 10**15), min_size=len(PHASES), max_size=len(PHASES)))
def test_the_header_is_one_that_browsers_can_read(times_ns: list[int]) -> None:
    value = format_timing(Account(sum(times_ns), tuple(times_ns)))
    assert all(re.fullmatch(METRIC, metric) for metric in value.split(", "))


async def _ask(scope: dict[str, Any], *, times: int = 1) -> dict[str, Any]:
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x", b"y")]})
        await send({"type": "http.response.body", "body": b""})

    async def send(message: Any) -> None:
        sent.append(message)

    asked: Any = app
    for _ in range(times):
        asked = ServerTimingMiddleware(asked)
    await asked(scope, None, send)
    start: dict[str, Any] = sent[0]
    return start


async def test_a_watched_request_gets_it_beside_its_own_headers() -> None:
    request = LiveRequest(make_scope(), 0)
    request.spend(DATABASE, 0, 5 * MS)
    start = await _ask({"type": "http", SCOPE_KEY: request})
    assert start["headers"][0] == (b"x", b"y")
    (name, value) = start["headers"][1]
    assert name == b"server-timing"
    assert value.startswith(b"database;dur=5.0, unattributed;dur=")


async def test_an_app_within_an_app_adds_no_second_one() -> None:
    start = await _ask({"type": "http", SCOPE_KEY: LiveRequest(make_scope(), 0)}, times=3)
    assert len(start["headers"]) == 2


@pytest.mark.parametrize("scope", [{"type": "http"}, {"type": "lifespan"}, {"type": "http", TIMED_KEY: True}])
async def test_what_is_not_watched_goes_through(scope: dict[str, Any]) -> None:
    assert (await _ask(scope))["headers"] == [(b"x", b"y")]


async def test_an_account_that_fails_costs_the_header_alone() -> None:
    class BrokenRequest(LiveRequest):
        def account(self, now_ns: int) -> Account:
            raise RuntimeError

    start = await _ask({"type": "http", SCOPE_KEY: BrokenRequest(make_scope(), 0)})
    assert start["headers"] == [(b"x", b"y")]
