"""Runs one arm's service in a process of its own, and ends it with its owner."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self

import psutil

from headgate.errors import HostingError
from headgate.hosting.lifeline import Lifeline

_START_SECONDS = 120.0
_STOP_SECONDS = 8.0
_ANSWER_SECONDS = 30.0
_BACKLOG = 16_384
"""The kernel lowers it to its own bound; a short queue would hide overload from the service."""

_UNTELLING_LINES = ("Application startup failed. Exiting.",)

Loop = Literal["auto", "asyncio", "uvloop"]
FAST_LOOP: Final[Loop] = "auto" if sys.platform == "win32" else "uvloop"


class Service:
    """uvicorn, with one worker, around the ASGI app that ``factory(configuration)`` returns.

    It ends when the ``with`` block ends, and also when this process ends in any other way, SIGKILL included.

    :param factory: ``package.module:function``, imported in the new process.
    :param configuration: what the factory is called with; JSON values. Never shown.
    :param log: file that takes all output of the service; overwritten.
    :param port: 0 for a free one.
    :param limit_concurrency: uvicorn's option of that name.
    :param environment: all of its environment variables.
    :param obey: ``package.module:function``, which answers in the service what ``ask`` asks.
    :param directory: its working directory; by default this process's.
    :param loop: likewise; by default uvloop where there is one.
    :raises HostingError: on start: one line, for a port in use or a service that died.
    """

    def __init__(
        self,
        factory: str,
        configuration: Mapping[str, Any],
        *,
        log: Path,
        host: str = "127.0.0.1",
        port: int = 0,
        limit_concurrency: int | None = None,
        loop: Loop = FAST_LOOP,
        environment: Mapping[str, str],
        obey: str | None = None,
        directory: str | None = None,
    ) -> None:
        self._factory = factory
        self._configuration = dict(configuration)
        self._log = log
        self._host = host
        self._port = port
        self._limit_concurrency = limit_concurrency
        self._environment = environment
        self._obey = obey
        self._directory = directory
        self._loop = loop
        self._lifeline: Lifeline | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close(gracefully=kind is None)

    @property
    def url(self) -> str:
        """Where it listens, without a slash at the end: ``http://127.0.0.1:8000``."""
        return f"http://{self._host}:{self._port}"

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._port

    @property
    def pid(self) -> int:
        """Its process id. Raises HostingError when it was not started."""
        return self._started().process.pid

    def start(self) -> None:
        """Start the service and wait until it takes requests. Raises HostingError."""
        # Bound here and handed on: nobody can take the port in between. Our copy is closed at once, so that
        # callers of a service that died are refused instead of waiting in a queue nobody serves.
        with listen(self._host, self._port) as listener, open_log(self._log) as log:
            self._port = int(listener.getsockname()[1])
            self._lifeline = Lifeline(
                f"the service {self._factory}",
                [sys.executable, "-m", "headgate.hosting.service_child"],
                env=self._environment,
                cwd=self._directory,
                stderr=log,
                pass_fds=[listener.fileno()],
            )
            descriptor = listener.fileno()
        try:
            self._lifeline.send(self._order(descriptor))
            if self._lifeline.receive(_START_SECONDS) is None:
                raise self._death("died at startup")
        except BaseException:
            self.close(gracefully=False)  # it has no requests yet, and may be busy with its start for ever
            raise

    def _order(self, descriptor: int) -> dict[str, Any]:
        return {
            "factory": self._factory,
            "configuration": self._configuration,
            "socket": descriptor,
            "obey": self._obey,
            "server": {
                "backlog": _BACKLOG,
                "limit_concurrency": self._limit_concurrency,
                "loop": self._loop,
            },
        }

    def ask(self, order: Mapping[str, Any], *, timeout: float = _ANSWER_SECONDS) -> dict[str, Any]:
        """Send an order and return the answer of ``obey``. Raises HostingError when there is none in time."""
        lifeline = self._started()
        lifeline.send(order)
        answer = lifeline.receive(timeout)
        if answer is None:
            raise self._death("died")
        return answer

    def _death(self, fact: str) -> HostingError:
        words = last_line(self._log.read_text(errors="replace"))
        return HostingError(f"the service {self._factory} {fact}: {words}; its log is {self._log}")

    def _started(self) -> Lifeline:
        if self._lifeline is None:
            raise HostingError(f"the service {self._factory} is not running; start it first")
        return self._lifeline

    def check_running(self) -> None:
        """Raise HostingError, with the last line of its log, if the service has died."""
        if self._started().process.poll() is not None:
            raise self._death("died")

    def cpu_seconds(self) -> float:
        """Return the CPU time it has used, user and system. Raises HostingError when it has died."""
        times = self._inspect().cpu_times()
        return times.user + times.system

    def memory_bytes(self) -> int:
        """Return its resident memory. Raises HostingError when it has died."""
        return int(self._inspect().memory_info().rss)

    def _inspect(self) -> psutil.Process:
        self.check_running()
        return psutil.Process(self.pid)

    def close(self, *, gracefully: bool = True) -> None:
        """Stop the service, at first with time for its requests and surely in the end; once is enough."""
        lifeline, self._lifeline = self._lifeline, None
        if lifeline is None:
            return
        try:
            if gracefully and lifeline.process.poll() is None:
                lifeline.send({"do": "stop"})
                lifeline.process.wait(_STOP_SECONDS)
        except (HostingError, subprocess.TimeoutExpired):
            pass  # it died under the order, or does not follow: closing the pipe ends it
        finally:
            lifeline.close(_STOP_SECONDS)


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; the caller closes it. Raises HostingError when the port cannot be had."""
    listener = socket.socket()
    try:
        if sys.platform != "win32":  # there it would let two services share a port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise HostingError(f"cannot listen on {host}:{port}: {error.strerror}; choose another --port") from None
    return listener


def open_log(path: Path) -> Any:
    """Open the file that takes a service's output. Raises HostingError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("wb")
    except OSError as error:
        raise HostingError(f"cannot write {path}: {error.strerror}; choose another directory") from None


def last_line(log: str) -> str:
    """Return the last line of a log that says something."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    telling = [line for line in lines if not line.endswith(_UNTELLING_LINES)]
    return telling[-1] if telling else "it left no word"
