"""Ending a request's sessions, on the event loop where nothing is sent and in a thread where something is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from anyio import CancelScope, CapacityLimiter
from anyio.to_thread import run_sync

from headgate.sessions import AsyncSession, Session


async def close_sessions(sessions: Sequence[Session | AsyncSession]) -> None:
    """Close them all, the one opened last first; the first error is raised when all are closed."""
    if not sessions:
        return
    *others, last = sessions
    try:
        await close_session(last)
    finally:
        await close_sessions(others)


async def close_session(session: Session | AsyncSession) -> None:
    """Close a session; what it holds is rolled back."""
    if isinstance(session, AsyncSession):
        await session.__aexit__(None, None, None)  # which protects its own end from being cancelled
    elif isinstance(session, Session) and not session.holds_connection:
        session.close()
    else:  # also a session of SQLAlchemy's own that a test has put in its place
        await run_in_extra_thread(session.close)


async def run_in_extra_thread(function: Callable[[], None]) -> None:
    """Run what gives a connection back in a thread that nobody else can have taken, to its end."""
    with CancelScope(shield=True):
        running = asyncio.ensure_future(run_sync(function, limiter=CapacityLimiter(1)))
        try:
            await asyncio.shield(running)
        except asyncio.CancelledError:
            await asyncio.wait({running})  # whoever comes next must not use the session at the same time
            raise
