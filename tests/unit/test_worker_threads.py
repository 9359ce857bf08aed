from __future__ import annotations

import asyncio

import anyio

from headgate.threads import WorkerThreads


async def settle() -> None:
    await asyncio.sleep(0)


async def test_threads_that_are_lent_are_taken_back() -> None:
    limiter = anyio.CapacityLimiter(40)
    threads = WorkerThreads(asyncio.get_running_loop(), limiter)
    for _ in range(30):
        assert threads.lend(is_bounded=True)
    await settle()
    assert limiter.total_tokens == 70
    for _ in range(30):
        threads.take_back()
    await settle()
    assert limiter.total_tokens == 40


async def test_the_applications_own_number_stays_whatever_was_lent_before_it() -> None:
    limiter = anyio.CapacityLimiter(40)
    threads = WorkerThreads(asyncio.get_running_loop(), limiter)
    for _ in range(30):
        threads.lend(is_bounded=True)
    await settle()
    limiter.total_tokens = 20
    for _ in range(30):
        threads.take_back()
    await settle()
    assert limiter.total_tokens == 20
    threads.lend(is_bounded=True)
    await settle()
    assert limiter.total_tokens == 21
    threads.take_back()
    await settle()
    assert limiter.total_tokens == 20
