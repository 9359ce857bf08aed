"""What becomes of a connection that asked for the guard, and which statements make it be asked again."""

from __future__ import annotations

from typing import Any

import pytest

from headgate.drivers import ReadOnlyDefault
from headgate.guard import Verdict, judge_default, may_touch_default

STARTED = ReadOnlyDefault(is_on=True, source="client", resets_to_on=True, is_standby=False, is_given=False)
SET_ON = STARTED._replace(source="session")
SET_OFF = SET_ON._replace(is_on=False)
POOLED = SET_ON._replace(resets_to_on=False)
IGNORED = ReadOnlyDefault(is_on=False, source="default", resets_to_on=False, is_standby=False, is_given=False)


@pytest.mark.parametrize(
    ("found", "is_up", "flips", "verdict"),
    [
        (STARTED, True, True, Verdict.UP),
        (STARTED, True, False, Verdict.WITHOUT),
        (STARTED, False, True, Verdict.WITHOUT),
        (STARTED._replace(is_standby=True), False, True, Verdict.LOWER),
        (STARTED._replace(is_given=True), True, True, Verdict.AS_GIVEN),
        (STARTED._replace(is_given=True), False, True, Verdict.AS_GIVEN),
        (SET_ON, True, True, Verdict.AS_GIVEN),
        (POOLED, True, True, Verdict.WITHOUT),
        (POOLED, False, True, Verdict.WITHOUT),
        (SET_OFF, True, True, Verdict.RAISE),
        (SET_OFF._replace(is_given=True), True, True, Verdict.RAISE),
        (SET_OFF, False, True, Verdict.ABSENT),
        (POOLED._replace(is_on=False), True, True, Verdict.ABSENT),
        (IGNORED, False, True, Verdict.ABSENT),
        (IGNORED._replace(source="user", is_on=True, is_given=True), False, True, Verdict.ABSENT),
        (None, True, True, Verdict.WITHOUT),
        (None, False, True, Verdict.WITHOUT),
    ],
)
def test_a_new_connection_is_judged_by_where_its_default_comes_from(
    found: ReadOnlyDefault | None, is_up: bool, flips: bool, verdict: Verdict
) -> None:
    assert judge_default(found, has_asked=True, is_up=is_up, flips=flips) is verdict
    assert judge_default(found, has_asked=False, is_up=False, flips=flips) is Verdict.ABSENT


@pytest.mark.parametrize(
    ("statement", "args"),
    [
        ("SHOW Default_Transaction_Read_Only", ()),
        ("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", ()),
        ("/* RESET */ RESET/**/ALL", ()),
        ("discard all", ()),
        ("SELECT set_config('default_transaction_read_only', 'on', false)", ()),
        ("SELECT set_config($1, $2, $3)", (("default_transaction_READ_ONLY", "on", False),)),
        ("SELECT set_config(%(a)s, 'on', false)", ({"a": "default_transaction_read_only"},)),
        ("UPDATE pg_settings SET setting = 'on' WHERE name = %s", ([("x",), ("default_transaction_read_only",)],)),
        (b"SELECT 1", ()),
    ],
)
def test_what_may_touch_the_default(statement: Any, args: Any) -> None:
    assert may_touch_default(statement, args)


@pytest.mark.parametrize(
    ("statement", "args"),
    [
        ("SET search_path = public", ()),
        ("CREATE TABLE product_characteristics (preset integer)", ()),
        ("SELECT send_reset_mail($1)", (("discarded",),)),
        ("SELECT set_config($1, $2, true)", (("app.tenant", 1),)),
    ],
)
def test_what_does_not(statement: Any, args: Any) -> None:
    assert not may_touch_default(statement, args)
