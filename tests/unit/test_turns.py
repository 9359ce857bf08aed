from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from functools import partial
from itertools import count

import pytest

from headgate.admission import Admission, Ask
from headgate.errors import Overloaded
from headgate.gate import Gate
from headgate.queueing import Rank, Reason
from headgate.turns import Turn
from headgate.waiters import PERMIT, TaskWaiter, ThreadWaiter

from .gate_fakes import (
    MS,
    FakeClock,
    FakeLease,
    grant_of,
    interrupt,
    join,
    make_gate,
    numbers,
    run_tasks,
    time_out,
    waiting_thread,
)
from .gate_steps import called_before_step, run_interleaved

SECOND = 1_000 * MS
STALL = 5.0
RANKS = [Rank.HIGH, Rank.UNDER_WAY, Rank.NORMAL, Rank.LOW]


def request(rank: Rank = Rank.NORMAL, *, deadline_ns: int | None = None) -> Ask:
    admission = Admission(0, rank)
    admission.deadline_ns = deadline_ns
    return Ask(rank, admission)


def end(ask: Ask) -> None:
    assert ask.admission is not None
    ask.admission.end("gone")


def is_forgotten(ask: Ask) -> bool:
    """The request remembers nothing it waits for."""
    return ask.admission is not None and ask.admission._unfinished == []


# a request that is given up


@pytest.mark.parametrize("rank", RANKS)
async def test_a_task_whose_request_is_given_up_stops_waiting(rank: Rank) -> None:
    gate, ask = make_gate(), request(rank)
    gate.acquire_nowait()
    waiting = asyncio.create_task(gate.acquire_async(ask))
    await run_tasks()
    end(ask)
    with pytest.raises(Overloaded) as caught:
        await waiting
    assert caught.value.reason == "gone"
    assert numbers(gate) == (1, 0)
    assert gate.statistics().dropped == {"gone": 1}
    assert is_forgotten(ask)


@pytest.mark.parametrize("rank", RANKS)
def test_a_thread_whose_request_is_given_up_stops_waiting(rank: Rank) -> None:
    gate, ask, reasons = make_gate(), request(rank), list[str]()
    gate.acquire_nowait()

    def wait() -> None:
        try:
            gate.acquire(ask)
        except Overloaded as error:
            reasons.append(error.reason)

    thread = threading.Thread(target=wait)
    thread.start()
    while not gate.statistics().pending:
        threading.Event().wait(0.0001)
    end(ask)
    thread.join(5)
    assert reasons == ["gone"]
    assert numbers(gate) == (1, 0)
    assert is_forgotten(ask)


def test_a_request_given_up_before_it_waits_does_not_begin_to() -> None:
    gate, ask = make_gate(), request()
    gate.acquire_nowait()
    end(ask)
    with pytest.raises(Overloaded) as caught:
        join(gate, ask=ask)
    assert caught.value.reason == "gone"
    assert gate.statistics().shed == {"gone": 1}
    assert numbers(gate) == (1, 0)


def test_a_request_given_up_at_hand_over_has_the_connection() -> None:
    """Whoever came first: it gives it back when it comes to it."""
    gate, ask = make_gate(), request()
    gate.acquire_nowait()
    turn = join(gate, ask=ask)
    gate.release()
    end(ask)
    assert grant_of(turn) is PERMIT
    assert time_out(turn) is PERMIT
    assert numbers(gate) == (1, 0)


def test_a_connection_that_comes_back_as_a_request_is_given_up_goes_to_the_next() -> None:
    gate, ask = make_gate(), request()
    gate.acquire_nowait()
    gone, other = join(gate, ask=ask), join(gate)
    end(ask)
    gate.release()
    assert (grant_of(gone), grant_of(other)) == (None, PERMIT)
    with pytest.raises(Overloaded):
        time_out(gone)
    assert numbers(gate) == (1, 0)


@pytest.mark.parametrize("rank", RANKS)
def test_nothing_is_lost_wherever_a_request_is_given_up_as_its_connection_comes(rank: Rank) -> None:
    for first in ("end", "release"):
        for at_step in count(1):
            gate, ask = make_gate(), request(rank)
            gate.acquire_nowait()
            turn = join(gate, ask=ask)
            acts: dict[str, Callable[[], object]] = {"end": partial(end, ask), "release": gate.release}
            one, other = acts.pop(first), next(iter(acts.values()))
            was_in_time = run_interleaved(gate, one, other, at_step)
            had = grant_of(turn)
            if had is None:
                with pytest.raises(Overloaded, match="gone"):
                    time_out(turn)
            assert numbers(gate) == (int(had is not None), 0)
            if not was_in_time:
                break


def test_a_request_is_given_up_wherever_it_has_just_begun_to_wait() -> None:
    for first in ("end", "join"):
        for at_step in count(1):
            gate, ask, turns = make_gate(), request(), list[Turn[ThreadWaiter]]()
            gate.acquire_nowait()

            def begin(gate: Gate = gate, ask: Ask = ask, turns: list[Turn[ThreadWaiter]] = turns) -> None:
                try:
                    turns.append(join(gate, ask=ask))
                except Overloaded:
                    assert ask.admission is not None
                    assert ask.admission.ended

            acts: dict[str, Callable[[], object]] = {"end": partial(end, ask), "join": begin}
            one, other = acts.pop(first), next(iter(acts.values()))
            was_in_time = run_interleaved(gate, one, other, at_step)
            for turn in turns:
                assert turn.waiter.outcome == "gone", "nobody wants the answer, and it would wait all the same"
                with pytest.raises(Overloaded):
                    time_out(turn)
            assert numbers(gate) == (1, 0)
            if not was_in_time:
                break


async def test_a_request_is_given_up_from_another_thread() -> None:
    gate, ask = make_gate(), request()
    gate.acquire_nowait()
    waiting = asyncio.create_task(gate.acquire_async(ask))
    await run_tasks()
    thread = threading.Thread(target=end, args=(ask,))
    thread.start()
    with pytest.raises(Overloaded, match="gone"):
        await asyncio.wait_for(waiting, 5)
    thread.join(5)


# deadlines


def test_a_newcomer_waits_no_longer_than_its_deadline_less_what_a_use_takes() -> None:
    clock = FakeClock()
    gate = make_gate(max_wait=10.0, clock=clock)
    gate.acquire_nowait()
    gate.release(use_ns=20 * MS)
    gate.acquire_nowait()
    turn = join(gate, ask=request(deadline_ns=SECOND))
    assert turn.until_ns == SECOND - 20 * MS
    clock.now_ns = SECOND - 20 * MS
    with pytest.raises(Overloaded) as caught:
        time_out(turn)
    assert (caught.value.reason, caught.value.waited_ns) == ("deadline", SECOND - 20 * MS)


def test_one_under_way_waits_no_longer_than_its_deadline() -> None:
    clock = FakeClock()
    gate = make_gate(max_stall=STALL, clock=clock)
    gate.acquire_nowait()
    turn = join(gate, ask=request(Rank.UNDER_WAY, deadline_ns=SECOND))
    assert turn.seconds_left() == 1.0
    clock.now_ns = SECOND
    with pytest.raises(Overloaded) as caught:
        time_out(turn)
    assert caught.value.reason == "deadline"


def test_a_deadline_far_away_does_not_hide_that_everything_stands_still() -> None:
    clock = FakeClock()
    gate = make_gate(max_stall=STALL, clock=clock)
    gate.acquire_nowait()
    turn = join(gate, ask=request(Rank.UNDER_WAY, deadline_ns=100 * SECOND))
    assert turn.seconds_left() == STALL
    clock.now_ns = round(STALL * SECOND)
    with pytest.raises(Overloaded) as caught:
        time_out(turn)
    assert caught.value.reason == "stalled"


@pytest.mark.parametrize("rank", RANKS)
def test_no_answer_is_called_safe_to_retry_that_may_have_done_something(rank: Rank) -> None:
    clock = FakeClock()
    gate = make_gate(max_wait=0.5, clock=clock)
    gate.acquire_nowait()
    ask = request(rank)
    if rank is Rank.UNDER_WAY:
        assert ask.admission is not None
        ask.admission.admit(gate)
    turn = join(gate, ask=ask)
    clock.now_ns = turn.until_ns
    with pytest.raises(Overloaded) as caught:
        time_out(turn)
    assert caught.value.nothing_executed == (rank is not Rank.UNDER_WAY)


# under way


def test_one_under_way_waits_as_long_as_connections_move() -> None:
    """Also when its own connection is long in coming."""
    clock = FakeClock()
    gate = make_gate(max_stall=STALL, clock=clock)
    gate.acquire_nowait("async")
    turn = join(gate, "sync", Ask(Rank.UNDER_WAY))
    for _ in range(10):
        clock.now_ns += 4 * SECOND
        gate._moved_ns = clock.now_ns  # as somebody was granted something
        turn.has_waited = False
        seconds = turn.seconds_left()
        assert seconds is not None
        assert 0 < seconds <= STALL
    clock.now_ns += round(STALL * SECOND)
    with pytest.raises(Overloaded) as caught:
        time_out(turn)
    assert caught.value.reason == "stalled"


@pytest.mark.parametrize("is_warm", [True, False])
def test_one_under_way_is_looked_at_again_a_stall_after_the_last_move(is_warm: bool) -> None:
    clock = FakeClock()
    gate = make_gate(2, max_stall=STALL, clock=clock)
    for _ in range(2):
        gate.acquire_nowait()
    first, second = (join(gate, ask=Ask(Rank.UNDER_WAY)) for _ in range(2))
    clock.now_ns = 4 * SECOND
    if is_warm:
        FakeLease(gate).rest()
    else:
        gate.release()
    assert grant_of(first) is not None
    clock.now_ns = 5 * SECOND
    assert second.seconds_left() == 4.0
    assert second.until_ns == 9 * SECOND


async def test_a_task_under_way_is_woken_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look needs a future of its own; the last one brings the connection."""
    clock = FakeClock()
    gate = make_gate(max_stall=1e-6, clock=clock)
    gate.acquire_nowait()
    looks: list[int] = []
    looked_enough = asyncio.Event()
    look = Turn.look_again

    def look_again(turn: Turn[TaskWaiter], now_ns: int, moved_ns: int, max_stall_ns: int) -> Reason | None:
        looks.append(now_ns)
        if len(looks) == 3:
            looked_enough.set()
        assert len(looks) < 1_000, "it no longer waits in between"
        return look(turn, now_ns, now_ns, max_stall_ns)  # as when somebody has just been granted something

    monkeypatch.setattr(Turn, "look_again", look_again)
    waiting = asyncio.create_task(gate.acquire_async(Ask(Rank.UNDER_WAY)))
    await asyncio.wait_for(looked_enough.wait(), 5)
    gate.release(kind="async")
    assert await asyncio.wait_for(waiting, 5) is PERMIT


def test_a_thread_under_way_is_woken_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = make_gate(max_stall=1e-6)
    gate.acquire_nowait()
    looked = threading.Event()
    look = Turn.look_again

    def look_again(turn: Turn[ThreadWaiter], now_ns: int, moved_ns: int, max_stall_ns: int) -> Reason | None:
        looked.set()
        return look(turn, now_ns, now_ns, max_stall_ns)

    monkeypatch.setattr(Turn, "look_again", look_again)
    granted: list[object] = []
    thread = threading.Thread(target=lambda: granted.append(gate.acquire(Ask(Rank.UNDER_WAY))))
    thread.start()
    assert looked.wait(5)
    gate.release()
    thread.join(5)
    assert granted == [PERMIT]


def test_one_under_way_goes_before_newcomers_who_came_first() -> None:
    gate = make_gate()
    gate.acquire_nowait()
    newcomer = join(gate)
    under_way = join(gate, ask=Ask(Rank.UNDER_WAY))
    gate.release()
    assert (grant_of(newcomer), grant_of(under_way)) == (None, PERMIT)


def test_one_under_way_is_let_in_however_many_wait() -> None:
    gate = make_gate(max_pending=0)
    gate.acquire_nowait()
    turns = [join(gate, ask=Ask(Rank.UNDER_WAY)) for _ in range(10)]
    assert numbers(gate) == (1, 10)
    with pytest.raises(Overloaded):
        join(gate)
    for turn in turns:
        gate.release()
        assert grant_of(turn) is PERMIT
    gate.release()
    assert numbers(gate) == (0, 0)


# a wait that ends early


def test_a_wait_that_ends_a_little_too_early_counts_as_having_lasted() -> None:
    """Timers and clocks are not one: a thread that was told to wait and has done so does not wait again for a rest."""
    clock = FakeClock()
    gate = make_gate(max_wait=0.1, clock=clock)
    gate.acquire_nowait()
    turn = join(gate)
    assert turn.seconds_left() == 0.1
    clock.now_ns = 100 * MS - 1
    with pytest.raises(Overloaded) as caught:
        turn.seconds_left()
    assert caught.value.reason == "deadline"


def test_a_turn_that_is_refused_leaves_nothing_behind() -> None:
    gate, ask = make_gate(max_pending=0), request()
    gate.acquire_nowait()
    with pytest.raises(Overloaded):
        join(gate, ask=ask)
    assert is_forgotten(ask)
    assert numbers(gate) == (1, 0)


def test_a_turn_that_is_interrupted_leaves_nothing_behind() -> None:
    gate, ask = make_gate(), request()
    gate.acquire_nowait()
    interrupt(join(gate, ask=ask))
    assert is_forgotten(ask)
    assert numbers(gate) == (1, 0)


def test_an_evicted_waiter_is_told_at_once_and_has_waited() -> None:
    clock = FakeClock()
    gate = make_gate(max_wait=0.5, clock=clock)
    gate.acquire_nowait()
    gate._line.overload.observe(SECOND, -2 * SECOND)
    gate._line.overload.observe(SECOND, 0)
    first, second = join(gate), join(gate)
    clock.now_ns = 7 * MS
    third = join(gate)
    assert [turn.waiter.outcome for turn in (first, second, third)] == ["overload", None, None]
    with pytest.raises(Overloaded) as caught:
        time_out(first)
    assert (caught.value.reason, caught.value.waited_ns) == ("overload", 7 * MS)
    assert gate.statistics().dropped == {"overload": 1}
    assert numbers(gate) == (1, 2)


def test_a_thread_that_is_evicted_wakes_up() -> None:
    gate = make_gate()
    gate.acquire_nowait()
    with waiting_thread(gate) as holds:
        gate.release()
        assert holds.wait(5)
    assert numbers(gate) == (0, 0)


@pytest.mark.parametrize("act", ["end", "interrupt", "evict"])
def test_a_finalizer_that_gives_a_connection_back_may_interrupt_the_end_of_a_wait_anywhere(act: str) -> None:
    for at_step in count(1):
        gate, ask, ran = make_gate(), request(), list[int]()
        gate.acquire_nowait()
        turn = join(gate, ask=ask)
        acts: dict[str, Callable[[], object]] = {
            "end": partial(end, ask),
            "interrupt": partial(interrupt, turn),
            "evict": partial(turn.end, "overload"),
        }

        def finalize(gate: Gate = gate, ran: list[int] = ran) -> None:
            ran.append(1)
            gate.release()

        with called_before_step(at_step, finalize):
            acts[act]()
        if not ran:
            break
        if act == "interrupt":
            assert numbers(gate) == (0, 0)
            continue
        granted = grant_of(turn) is not None
        if not granted:
            with pytest.raises(Overloaded):
                time_out(turn)
        assert numbers(gate) == (int(granted), 0)


def test_one_long_use_turns_nobody_away_who_can_be_served() -> None:
    """What the mean says of one long transaction is not what the next use takes."""
    gate = make_gate(max_wait=10.0)
    gate.acquire_nowait()
    gate.release(use_ns=60 * SECOND)
    gate.acquire_nowait()
    turn = join(gate, ask=request(deadline_ns=2 * SECOND))
    gate.release(use_ns=1)
    assert turn.seconds_left() is None
