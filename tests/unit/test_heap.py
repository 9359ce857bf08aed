from __future__ import annotations

import gc

import pytest

from headgate.heap import freeze_heap


@pytest.mark.parametrize(("frozen", "calls"), [(0, ["collect", "freeze"]), (7, [])])
def test_the_heap_is_frozen_once(monkeypatch: pytest.MonkeyPatch, frozen: int, calls: list[str]) -> None:
    done: list[str] = []
    monkeypatch.setattr(gc, "get_freeze_count", lambda: frozen)
    monkeypatch.setattr(gc, "collect", lambda: done.append("collect"))
    monkeypatch.setattr(gc, "freeze", lambda: done.append("freeze"))
    assert freeze_heap() is (frozen == 0)
    assert done == calls
