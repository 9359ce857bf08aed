"""A child process that ends when its owner does, however the owner ends.

The owner alone holds the write end of the child's standard input. The kernel closes it when the owner is
gone, SIGKILL included; the child reads the end of file, cleans up and exits. The owner's orders go down that
pipe, the child's answers come back over its standard output, one JSON object a line each.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import time
import weakref
from collections.abc import Mapping, Sequence
from typing import IO, Any, cast

from headgate.errors import HostingError

_CHUNK_BYTES = 65_536
_held: weakref.WeakSet[Lifeline] = weakref.WeakSet()


class Lifeline:
    """The owner's side of a child in a session of its own, out of reach of the terminal's Ctrl-C.

    :param name: how error messages call the child.
    :param stderr: an open file that takes the child's standard error; by default nothing does.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: str | None = None,
        stderr: IO[bytes] | None = None,
        pass_fds: Sequence[int] = (),
    ) -> None:
        self._name = name
        # Unbuffered, so that a forked copy can close its ends without taking a lock or flushing twice.
        self.process = subprocess.Popen(
            command,
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL if stderr is None else stderr,
            env=env,
            cwd=cwd,
            pass_fds=pass_fds,
            start_new_session=True,
        )
        self._orders = cast("IO[bytes]", self.process.stdin)
        self._answers = cast("IO[bytes]", self.process.stdout)
        self._received = b""
        _held.add(self)

    def send(self, order: Mapping[str, Any]) -> None:
        """Send one order. Raises HostingError when the child is gone."""
        data = json.dumps(order).encode() + b"\n"
        try:
            while data:
                data = data[os.write(self._orders.fileno(), data) :]
        except BrokenPipeError:
            raise HostingError(f"{self._name} has ended unexpectedly; start it again") from None

    def receive(self, timeout: float) -> dict[str, Any] | None:
        """Return the next answer, or None when the child will send no more.

        Raises HostingError when nothing arrives within ``timeout`` seconds.
        """
        deadline_ns = time.monotonic_ns() + int(timeout * 1e9)
        while b"\n" not in self._received:
            chunk = self._read(deadline_ns, timeout)
            if not chunk:
                return None
            self._received += chunk
        line, _, self._received = self._received.partition(b"\n")
        return cast("dict[str, Any]", json.loads(line))

    def _read(self, deadline_ns: int, timeout: float) -> bytes:
        with selectors.DefaultSelector() as selector:  # select() itself fails above 1,024 open files
            selector.register(self._answers, selectors.EVENT_READ)
            if not selector.select(max(0.0, (deadline_ns - time.monotonic_ns()) / 1e9)):
                raise HostingError(f"{self._name} did not answer within {timeout:g} s; is the machine overloaded?")
        return os.read(self._answers.fileno(), _CHUNK_BYTES)

    def close(self, timeout: float) -> dict[str, Any] | None:
        """Let the child end and return its last answer, if any; kill it after ``timeout`` seconds."""
        self._orders.close()
        last = None
        try:
            while (answer := self.receive(timeout)) is not None:
                last = answer
        except HostingError:
            self.process.kill()
            raise
        finally:
            self.process.wait(timeout)
            self._answers.close()
        return last

    def abandon_copy(self) -> None:
        """Close this process's copies of the pipes; in a forked process they would outlive the owner."""
        self._orders.close()
        self._answers.close()


def _abandon_copies() -> None:
    for lifeline in list(_held):
        lifeline.abandon_copy()


if hasattr(os, "register_at_fork"):
    # exec closes the pipes by itself; a plain fork, as by multiprocessing, would keep the end of file away.
    os.register_at_fork(after_in_child=_abandon_copies)
