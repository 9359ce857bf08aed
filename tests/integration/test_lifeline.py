from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from headgate.errors import HostingError
from headgate.hosting.lifeline import Lifeline

ECHO = """
import json, sys
for line in sys.stdin:
    print(json.dumps({"heard": json.loads(line)}), flush=True)
print(json.dumps({"state": "gone"}), flush=True)
"""
DEAF = "import time; time.sleep(60)"


def start(program: str) -> Lifeline:
    return Lifeline("the child", [sys.executable, "-c", program], env=dict(os.environ))


def test_orders_go_down_and_answers_come_back() -> None:
    child = start(ECHO)
    order = {"text": "ä" * 100_000}
    for _ in range(3):
        child.send(order)
        assert child.receive(10) == {"heard": order}
    assert child.close(10) == {"state": "gone"}
    assert child.process.returncode == 0


def test_no_answer_in_time_is_one_line_and_a_deaf_child_is_killed() -> None:
    child = start(DEAF)
    with pytest.raises(HostingError, match=r"the child did not answer within 0\.05 s"):
        child.receive(0.05)
    with pytest.raises(HostingError, match="did not answer"):
        child.close(0.05)
    assert child.process.returncode == -9


def test_a_child_that_has_ended_is_noticed() -> None:
    child = start("raise SystemExit(3)")
    child.process.wait(10)
    assert child.receive(10) is None
    with pytest.raises(HostingError, match="the child has ended unexpectedly; start it again"):
        child.send({"do": "end"})
    assert child.close(10) is None
    assert child.process.returncode == 3


def test_a_sibling_does_not_hold_the_pipe_open() -> None:
    child = start(ECHO)
    with subprocess.Popen([sys.executable, "-c", DEAF], close_fds=False) as sibling:
        began = time.monotonic()
        child.close(30)
        took = time.monotonic() - began
        assert sibling.poll() is None
        sibling.kill()
    assert took < 15
