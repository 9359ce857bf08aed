"""What is said of slow requests, how often, and what never is."""

from __future__ import annotations

import json
import logging

import pytest

from headgate.xray.slow_log import INTERVAL_NS, LOGGER, MOST_LINES, SlowLog, describe, in_words

from .live_requests import HERE, MS, make_hold, make_request, make_scope, make_tally


class Clock:
    """Stands until it is moved."""

    def __init__(self) -> None:
        self.now_ns = 10**12

    def __call__(self) -> int:
        return self.now_ns


@pytest.fixture(autouse=True)
def _heard(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, LOGGER)


def test_a_line_says_where_the_time_went(caplog: pytest.LogCaptureFixture) -> None:
    request = make_request(total_ms=1_200, database_ms=900)
    make_hold(make_tally(), request)
    SlowLog(MS).say(request, request.account(request.answered_ns))
    (record,) = caplog.records
    assert record.getMessage() == (
        "slow request: GET /orders/{id} 200 took 1200 ms: database 900, unattributed 299, send 1 ms; "
        "statements 0, holds 1"
    )
    facts = vars(record)
    assert {name: facts[name] for name in ("route", "status", "total_ms", "holds", "statements", "unlogged")} == {
        "route": "GET /orders/{id}",
        "status": 200,
        "total_ms": 1200.0,
        "holds": 1,
        "statements": 0,
        "unlogged": 0,
    }
    assert facts["phases_ms"] == {"database": 900.0, "send": 1.0, "unattributed": 299.0}
    assert json.loads(json.dumps(facts["phases_ms"])) == facts["phases_ms"]


def test_so_many_lines_at_most_and_the_next_says_how_many_were_not(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    log, request = SlowLog(MS, clock), make_request()
    for _ in range(MOST_LINES + 7):
        log.say(request, request.account(request.answered_ns))
    assert len(caplog.records) == MOST_LINES
    clock.now_ns += INTERVAL_NS
    log.say(request, request.account(request.answered_ns))
    assert len(caplog.records) == MOST_LINES + 1
    assert caplog.records[-1].getMessage().endswith("(7 slow requests before this one were not logged)")
    assert vars(caplog.records[-1])["unlogged"] == 7


def test_nothing_of_the_clients_choice_is_said() -> None:
    request = make_request(make_scope("/orders/my-secret", template=None))
    request.statements = []
    facts = describe(request, request.account(request.answered_ns))
    assert "secret" not in in_words(facts, 0)
    assert "secret" not in json.dumps(facts)
    assert HERE.file not in json.dumps(facts)


def test_a_request_without_an_answer_says_so() -> None:
    request = make_request(status=0)
    assert "GET /orders/{id} without an answer took" in in_words(
        describe(request, request.account(request.answered_ns)), 0
    )
