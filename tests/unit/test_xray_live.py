"""What goes on now: holds that nobody will end, pools by their names, and the time that a load lasts."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest
from sqlalchemy import create_engine
from sqlalchemy.pool import Pool

from headgate.xray import live as live_module
from headgate.xray.live import CLOSING_NS, Live, LiveHold, LiveRequest, PoolTally
from headgate.xray.observation import Site
from headgate.xray.watch import _Clocks, _Load

LINE = Site("app.py", 3, "read")
LATER = 10 * CLOSING_NS


def ignore(_: Any) -> None:
    pass


@pytest.fixture
def live() -> Live:
    return Live(ignore, ignore, ignore)


def new_pool() -> Pool:
    return create_engine("sqlite://").pool


def request(task: asyncio.Task[Any] | None = None, *, ended_ns: int = 0) -> LiveRequest:
    made = LiveRequest({"method": "GET", "path": "/"}, 0)
    made.task, made.ended_ns = task, ended_ns
    return made


def hold(of: LiveRequest | None, task: asyncio.Task[Any] | None) -> LiveHold:
    made = LiveHold(PoolTally(new_pool()), of, LINE, 0, 1)
    made.task = task
    return made


async def nothing() -> None:
    pass


async def test_a_hold_is_forgotten_when_its_request_is_over() -> None:
    own, other = asyncio.ensure_future(nothing()), asyncio.ensure_future(asyncio.sleep(60))
    gone = asyncio.ensure_future(nothing())
    await asyncio.gather(own, gone)
    over, going_on = request(other, ended_ns=1), request(other)
    assert hold(over, other).is_forgotten(LATER), "acquired by the task that the request ran in"
    assert hold(over, gone).is_forgotten(LATER)
    assert hold(over, None).is_forgotten(LATER), "acquired in a worker thread"
    assert not hold(over, other).is_forgotten(CLOSING_NS), "a session may be closed a moment later"
    assert not hold(going_on, gone).is_forgotten(LATER), "a task within the request has ended, the request has not"
    assert hold(None, gone).is_forgotten(LATER)
    assert not hold(None, None).is_forgotten(LATER), "a thread of the app's own"
    background = asyncio.ensure_future(asyncio.sleep(60))
    assert not hold(over, background).is_forgotten(LATER), "a task of its own outlives the request"
    for task in (other, background):
        task.cancel()


def test_pools_of_a_kind_are_told_apart(live: Live) -> None:
    pools = [new_pool() for _ in range(3)]
    kind = type(pools[0]).__name__
    assert [live.know_pool(pool).name for pool in pools] == [kind, f"{kind} 2", f"{kind} 3"]
    assert live.know_pool(pools[1]).name == f"{kind} 2"


def test_pools_that_are_gone_are_forgotten(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_module, "MOST_POOLS", 5)
    for _ in range(50):
        live.know_pool(new_pool())
        gc.collect()
    assert len(live.pools) <= 5


def test_a_pools_holds_are_counted_from_the_beginning_of_the_load(live: Live) -> None:
    tally = live.know_pool(new_pool())
    tally.begin_anew(100)
    entries = [object(), object()]
    for entry, began_ns in zip(entries, (50, 150), strict=True):
        live.hold(entry, LiveHold(tally, None, LINE, began_ns, 1))
    live.note_most_held()
    for entry in entries:
        live.let_go(entry, 200)
    assert (tally.held_ns, tally.most) == (100 + 50, 2)


def clocks(at: int) -> _Clocks:
    return _Clocks(at, at, at, at, at, at)


def test_a_load_lasts_from_the_first_to_the_last_that_is_begun() -> None:
    load = _Load(7, clocks(0))
    for beat, started in ((20, 7), (40, 7), (60, 9), (80, 30), (100, 30), (30_000, 30)):
        load.note(started, clocks(beat))
    assert load.spent(clocks(31_000)) == clocks(80 - 40)


def test_without_a_load_it_is_all_the_time() -> None:
    load = _Load(7, clocks(0))
    assert load.spent(clocks(500)) == clocks(500)
