from __future__ import annotations

import pytest

from headgate.errors import Overloaded
from headgate.problems import REFUSAL_LOG_INTERVAL_NS, RefusalLog


def test_refusals_are_logged_once_an_interval_and_the_others_counted(caplog: pytest.LogCaptureFixture) -> None:
    now_ns = 10**12
    refusals = RefusalLog(clock=lambda: now_ns)
    error = Overloaded("database 'shop' is full", database="shop", reason="full", retry_after_s=1)
    for _ in range(3):
        refusals.say(lambda: error)
    assert [record.message for record in caplog.records] == ["database 'shop' is full"]
    now_ns += REFUSAL_LOG_INTERVAL_NS
    refusals.say(lambda: error)
    assert "2 refusals before this one" in caplog.records[-1].message
