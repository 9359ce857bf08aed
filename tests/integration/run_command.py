"""A service in stock style, started by a command of its own, with and without ``headgate run`` before it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx

import headgate

SOURCE = Path(headgate.__file__).parents[1]

APP = """\
import asyncio
import os
import time

from fastapi import FastAPI
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import AsyncAdaptedQueuePool, QueuePool

URL = os.environ["STOCK_FILE"]
pool = {"pool_size": 2, "max_overflow": 0, "pool_timeout": 0.5}
engine = create_async_engine("sqlite+aiosqlite:///" + URL, poolclass=AsyncAdaptedQueuePool, **pool)
sync_engine = create_engine("sqlite:///" + URL, poolclass=QueuePool, connect_args={"check_same_thread": False}, **pool)
app = FastAPI()
kept = []


@app.get("/ping")
async def ping():
    return os.getpid()


@app.get("/slow/{seconds}")
async def slow(seconds: float):
    async with AsyncSession(engine) as session:
        await session.execute(text("SELECT :secret"), {"secret": "hunter" * 2})  # acquires
        await asyncio.sleep(seconds)  # holds
    return "done"


@app.get("/sync/{seconds}")
def sync(seconds: float):
    with Session(sync_engine) as session:
        session.execute(text("SELECT 1"))  # acquires in a thread
        time.sleep(seconds)  # holds in a thread
    return "done"


@app.get("/twice")
async def twice():
    async with AsyncSession(engine) as session:
        await session.execute(text("SELECT 1"))  # acquires the first
        await asyncio.sleep(0.1)
        async with AsyncSession(engine) as other:
            await other.execute(text("SELECT 1"))  # asks for the second


@app.get("/leak")
async def leak():
    session = AsyncSession(engine)
    await session.execute(text("SELECT 1"))  # leaks
    kept.append(session)


@app.get("/close")
async def close():
    while kept:
        await kept.pop().close()
"""


def line_of(mark: str) -> str:
    """``stock_app.py:41``: where the app has a comment."""
    (number,) = (number for number, line in enumerate(APP.splitlines(), 1) if line.endswith(f"# {mark}"))
    return f"stock_app.py:{number}"


def free_port() -> int:
    """A port that was free just now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


# As a shell starts it, even where the test runner itself runs with interrupts ignored.
_AS_A_SHELL = (
    "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])"
)

RUN = (sys.executable, "-m", "headgate", "run")


class Started:
    """A service that was started, and what it writes."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.process = process
        self._url = f"http://127.0.0.1:{port}"
        self._log = log

    @property
    def log(self) -> str:
        """What it has written to standard output and standard error."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def get(self, path: str) -> int:
        """The status of an answer; 0 for none."""
        try:
            return httpx.get(self._url + path, timeout=15).status_code
        except httpx.TransportError:
            return 0

    def get_at_once(self, path: str, times: int) -> list[int]:
        """The statuses of requests that are sent together."""
        with ThreadPoolExecutor(times) as pool:
            return list(pool.map(self.get, [path] * times))

    def wait_until_up(self) -> None:
        """Wait until it answers."""
        assert eventually(lambda: self.process.poll() is not None or self.get("/ping") == 200, 40), self.log
        assert self.process.poll() is None, self.log

    def wait_for(self, text: str, seconds: float = 15.0) -> None:
        """Wait until it has written a text."""
        assert eventually(lambda: text in self.log, seconds), f"{text!r} is not in:\n{self.log}"

    def end_by(self, number: signal.Signals, *, whole_group: bool) -> int:
        """Send a signal, as a terminal or as a supervisor does; its exit code."""
        if whole_group:
            os.killpg(self.process.pid, number)
        else:
            self.process.send_signal(number)
        return self.process.wait(20)


@contextmanager
def start(
    directory: Path,
    command: Sequence[str],
    *,
    run: Sequence[str] | None = (),
    environment: dict[str, str] | None = None,
) -> Iterator[Started]:
    """Start a server of the app in a directory; ``PORT`` in the command is its port.

    :param run: options of ``headgate run``; None to start the command without it.
    """
    port = free_port()
    log = directory / "log"
    (directory / "stock_app.py").write_text(APP)
    argv = [word.replace("PORT", str(port)) for word in command]
    if run is not None:
        argv = [*RUN, *run, "--", *argv]
    given = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "HEADGATE", "COV"))}
    given |= {"PYTHONPATH": str(SOURCE), "STOCK_FILE": str(directory / "stock.db"), "PYTHONUNBUFFERED": "1"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", _AS_A_SHELL, *argv],
            cwd=directory,
            env=given | (environment or {}),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield Started(process, port, log)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)


def eventually(condition: Callable[[], bool], seconds: float) -> bool:
    """Whether it becomes true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
