"""The stage plays a program on both arms, step by step, and compares what could be seen."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.util import greenlet_spawn

from .arms import Arm, is_async
from .differences import StockFailedError, excuse, expect_no_flaw_of_stock, failed_reads, may_excuse
from .grounds import ArmName, Ground, PostgresGround, Sight, SqliteGround
from .mends import closed_connections_end, failed_streams_end
from .player import Moment, Player, is_reading, sets_in_order
from .programs import Program
from .shrinking import shrink
from .steps import Step, step
from .tally import Played, Tally

ResultT = TypeVar("ResultT")

COLLECT_AFTER = 20
"""Programs between two collections of garbage; within one, only reference counts end an object's life."""


THREAD_TIMEOUT_S = 5.0

DISPOSE_AFTER = 10 * COLLECT_AFTER
"""Programs between two disposals of every engine: afterwards ours may have no connection left."""


class Stage:
    """A driver, its two arms, and the tally of what has been played on them."""

    def __init__(self, driver: str, url: URL | None, directory: Path) -> None:
        self.driver = driver
        self.tally = Tally()
        self._plays = count()
        self._threads = set(threading.enumerate())
        self.runner = asyncio.Runner()
        self.ground: Ground = SqliteGround(directory) if url is None else PostgresGround(url)
        self.stock = Arm("stock", driver, self.ground)
        self.leased = Arm("leased", driver, self.ground)
        gc.collect()
        gc.freeze()  # what is there already would be looked through at every collection

    def try_out(self, program: Program) -> bool:
        """Play a program; if it fails, fail with the shortest one that still does. False where stock failed."""
        try:
            played = self.play(program)
        except Exception:
            self.play(shrink(program, self._fails))
            raise  # it failed once, and does not fail again
        if played is None:
            self.tally.stock_failed += 1
            return False
        self.tally.add(len(program.steps), played)
        return True

    def _fails(self, program: Program) -> bool:
        try:
            self.play(program)
        except Exception:
            return True
        return False

    def play(self, program: Program) -> list[Played] | None:
        """Play a program; an assertion fails at the first step that shows a difference. None where stock failed."""
        self._collect()
        self._reset()
        with _without_collection(), sets_in_order(), failed_streams_end(), closed_connections_end():
            return self._run(lambda: self._play(program))

    def close(self) -> None:
        """End everything; ours may not have forgotten a connection."""
        gates = self.leased.gates()
        self._run(self._dispose)
        gc.unfreeze()
        gc.collect()  # what stock has forgotten complains here, where the test expects it
        self.ground.await_vanishing(self.ground.connected("leased"))
        for thread in set(threading.enumerate()) - self._threads:
            thread.join(
                THREAD_TIMEOUT_S
            )  # aiosqlite's, which tell the loop that they have closed a forgotten connection
        self.runner.close()
        self.ground.close()
        assert not [repr(gate) for gate in gates if gate.statistics().idle], "places left behind"

    def _collect(self) -> None:
        number = next(self._plays)
        if number % DISPOSE_AFTER == 0:
            self._run(self._dispose)
        if number % COLLECT_AFTER == 0:
            gc.collect()
        if number % DISPOSE_AFTER == 0:
            self.ground.await_vanishing(self.ground.connected("leased"))

    def _reset(self) -> None:
        try:
            self.ground.reset()
        except Exception:  # what an earlier program has left behind is in the way, and this one is not to blame
            self._run(self._dispose)
            self.ground.renew()
            raise

    def _run(self, body: Callable[[], ResultT]) -> ResultT:
        if not is_async(self.driver):
            return body()

        async def main() -> ResultT:
            return await greenlet_spawn(body)

        return self.runner.run(main())

    def _play(self, program: Program) -> list[Played] | None:
        performance = _Performance(self, program)
        try:
            for number, one in enumerate(program.steps):
                performance.take(one, f"step {number}")
            performance.finish()
            return performance.played
        except StockFailedError:
            self._begin_anew(performance)
            return None
        except BaseException:
            self._begin_anew(performance)
            raise

    def _begin_anew(self, performance: _Performance) -> None:
        # What a failed program leaves behind must not make the next one fail.
        for player in performance.players:
            _abandon(player)
        self._dispose()
        self.ground.renew()

    def _dispose(self) -> None:
        for made in (*self.stock.close(), *self.leased.close()):
            engine = made.sync_engine if isinstance(made, AsyncEngine) else made
            engine.dispose()


class _Performance:
    """One program on both arms."""

    def __init__(self, stage: Stage, program: Program) -> None:
        self.stage = stage
        self.program = program
        self.played: list[Played] = []
        self.players = (Player(stage.stock, program.setting), Player(stage.leased, program.setting))

    def take(self, one: Step, where: str) -> None:
        """One step on both arms, and the rollbacks that documented differences ask for after it."""
        sight = self._take(one, where)
        done: list[Step] = []
        while further := [more for more in failed_reads(*self.players, sight) if more not in done]:
            done.append(further[0])
            sight = self._take(further[0], f"{where}, after its failed read")

    def _take(self, one: Step, where: str) -> Sight:
        stock, leased = (player.take(one) for player in self.players)
        self.played.append(Played(one.name, not (stock.failed or leased.failed)))
        told = list(stock.differences(leased))
        if [name for name, *_ in told] == ["outcome"] and self._is_excused(one, stock, leased):
            told = []
        sights = self._look()
        if sights["stock"] != sights["leased"]:
            told.append(("database", sights["stock"], sights["leased"]))
        if told:
            expect_no_flaw_of_stock(self.players[0], sights)
            raise AssertionError(_describe(self.program, f"{where}, {one!r}", told))
        return sights["stock"]

    def _is_excused(self, one: Step, stock: Moment, leased: Moment) -> bool:
        return may_excuse(one, self.players[0]) and excuse(one, stock, leased, self._is_anybody_reading()) is not None

    def _look(self) -> dict[ArmName, Sight]:
        ended = [backend for player in self.players for backend in player.arm.vanishing]
        for player in self.players:
            player.arm.vanishing.clear()
        self.stage.ground.await_vanishing(ended)
        return self.stage.ground.look()

    def _is_anybody_reading(self) -> bool:
        leased = self.players[1]
        connections = [
            *leased.connections_of(0),
            *leased.connections_of(1),
            *leased.open_connections().values(),
        ]
        return any(is_reading(connection) for connection in connections)

    def finish(self) -> None:
        """Close what is open; afterwards nothing may be held by anybody."""
        for number in (0, 1):
            self.take(step("close", session=number), "at the end")
        for number in sorted(self.players[0].connections):
            self.take(step("core_close", connection=number), "at the end")
        for player in self.players:
            player.results.clear()
        left = [*self.stage.stock.left_out(), *self.stage.leased.left_out(), *self.stage.ground.left_open()]
        assert not left, f"left behind: {left}"


def _abandon(player: Player) -> None:
    for known in (*player.sessions, *player.connections.values()):
        with suppress(Exception):
            known.close()


@contextmanager
def _without_collection() -> Iterator[None]:
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _describe(program: Program, where: str, told: list[tuple[str, Any, Any]]) -> str:
    lines = [program.literal(), f"{where}, differs:"]
    for name, stock, leased in told:
        lines += [f"  {name}", *_contrast(stock, leased)]
    return "\n".join(lines)


def _contrast(stock: Any, leased: Any) -> Iterator[str]:
    if isinstance(stock, list) and isinstance(leased, list):
        for index in range(max(len(stock), len(leased))):
            one, two = (side[index] if index < len(side) else "nothing" for side in (stock, leased))
            if one != two:
                yield f"    [{index}] stock:  {one}"
                yield f"    [{index}] leased: {two}"
    else:
        yield f"    stock:  {stock}"
        yield f"    leased: {leased}"
