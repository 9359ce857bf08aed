"""Starts one PostgreSQL server, and ends it and removes its directory when the owner is gone.

A script with the standard library alone, so that it starts in milliseconds; `lifeline` describes its pipes.
It is the parent of the server and reaps it. It makes the directory itself: what it made, it removes.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HOST = "127.0.0.1"
PREFIX = "headgate-postgres-"

_INITDB_SECONDS = 120.0
_READY_SECONDS = 120.0
_READY_POLL_SECONDS = 0.005
_PORT_ATTEMPTS = 8
_REMOVE_ATTEMPTS = 50
_REMOVE_PAUSE_SECONDS = 0.1
# PostgreSQL kills what has not followed an immediate shutdown after 5 s; only then is it our turn.
_STOP_SECONDS = 8.0


@dataclass(frozen=True, slots=True)
class Order:
    """What to start, and as whom.

    :ivar package: directory of the installed wheel; ``install`` is the PostgreSQL tree's name in it.
    :ivar link_install: true when ``uid`` cannot reach the tree where it is installed.
    :ivar parent: where the server's own directory is made.
    :ivar uid: account that runs the server; None for our own.
    """

    package: str
    install: str
    link_install: bool
    parent: str
    user: str
    password: str
    settings: dict[str, str]
    uid: int | None = None
    gid: int | None = None


class StartError(Exception):
    """The server could not be started; the message is one line."""


class OwnerGone(Exception):  # noqa: N818 - an event, not an error
    """The owner has closed its end of the pipe, or someone asks this process to end."""


class Watch:
    """Waits for orders, for children that end and for the owner's end, whichever comes first."""

    def __init__(self) -> None:
        self._pending = b""
        self._wakeup, write_end = os.pipe()
        os.set_blocking(self._wakeup, False)
        os.set_blocking(write_end, False)
        signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        # Handlers that do nothing, since SIG_IGN would be inherited by the server.
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: None)

    def pause(self, seconds: float | None = None) -> None:
        """Return after ``seconds``, or when a child ended or an order arrived. Raises OwnerGone."""
        stdin = sys.stdin.fileno()
        ready, _, _ = select.select([stdin, self._wakeup], [], [], seconds)
        if self._wakeup in ready and signal.SIGTERM in os.read(self._wakeup, 512):
            raise OwnerGone
        if stdin in ready:
            chunk = os.read(stdin, 65_536)
            if not chunk:
                raise OwnerGone
            self._pending += chunk

    def next_order(self) -> dict[str, Any] | None:
        """Return an order that has arrived, None if there is none."""
        line, newline, rest = self._pending.partition(b"\n")
        if not newline:
            return None
        self._pending = rest
        return dict(json.loads(line))

    def await_order(self) -> dict[str, Any]:
        """Return the next order. Raises OwnerGone."""
        while (order := self.next_order()) is None:
            self.pause()
        return order

    def await_exit(self, process: subprocess.Popen[bytes], seconds: float) -> bool:
        """Return whether ``process`` ended within ``seconds``. Raises OwnerGone."""
        deadline = time.monotonic() + seconds
        while process.poll() is None:
            if (left := deadline - time.monotonic()) <= 0:
                return False
            self.pause(left)
        return True


class Server:
    """One PostgreSQL in a directory of its own: prepare, start, end, as often as asked."""

    def __init__(self, order: Order, home: Path, watch: Watch) -> None:
        self._order = order
        self._home = home
        self._watch = watch
        self._data = home / "data"
        self._log = home / "postgres.log"
        self._bin = Path(order.package, order.install, "bin")
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0

    def prepare(self) -> None:
        """Make binaries reachable and the data directory ready. Raises StartError, OwnerGone."""
        # The account that runs the server passes through to what is its own, and can list nothing else.
        self._home.chmod(0o700 if self._order.uid is None else 0o711)
        if self._order.link_install:
            self._bin = link_install(Path(self._order.package), self._order.install, self._home) / "bin"
        self._log.touch(0o600)
        self._data.mkdir(0o700)
        self._give(self._data)
        self._initialize()

    def _initialize(self) -> None:
        secret = self._home / "password"
        with open(os.open(secret, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(self._order.password + "\n")
        self._give(secret)
        options = ["--no-sync", "--no-instructions", "--locale=C", "--encoding=UTF8"]
        access = [f"--username={self._order.user}", "--auth=scram-sha-256", f"--pwfile={secret}"]
        process = self._launch("initdb", *options, *access, f"--pgdata={self._data}")
        try:
            if not self._watch.await_exit(process, _INITDB_SECONDS):
                raise StartError(f"initdb did not end within {_INITDB_SECONDS:.0f} s")
        finally:
            process.kill()
            process.wait()
            secret.unlink()
        if process.returncode:
            raise StartError(f"initdb failed: {self._last_words()}")

    def start(self) -> dict[str, Any]:
        """Start on the port used before, else on a free one, and wait until it takes connections.

        Raises StartError, OwnerGone.
        """
        for _ in range(_PORT_ATTEMPTS):
            port = self._port or free_port()
            self._log.write_bytes(b"")
            self._process = self._launch("postgres", f"-D{self._data}", *self._settings(port))
            if self._await_ready(self._process):
                self._port = port
                place = {"port": port, "directory": str(self._home)}
                return {"state": "ready", "pid": self._process.pid, **place}
            if "Address already in use" not in self._log.read_text(errors="replace"):
                break
        raise StartError(f"PostgreSQL did not start: {self._last_words()}")

    def _settings(self, port: int) -> Iterable[str]:
        fixed = {"listen_addresses": HOST, "port": str(port), "unix_socket_directories": ""}
        return (f"--{name}={value}" for name, value in (self._order.settings | fixed).items())

    def _await_ready(self, process: subprocess.Popen[bytes]) -> bool:
        deadline = time.monotonic() + _READY_SECONDS
        status = self._data / "postmaster.pid"
        while process.poll() is None:
            if reads_ready(status, process.pid):
                return True
            if time.monotonic() > deadline:
                raise StartError(f"PostgreSQL was not ready within {_READY_SECONDS:.0f} s: {self._last_words()}")
            self._watch.pause(_READY_POLL_SECONDS)
        return False

    def end(self) -> None:
        """End the server and everything it started, also when it is frozen; the data stay."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        family = [process.pid, *children_of(process.pid)]
        send_signal(family, signal.SIGCONT)
        send_signal([process.pid], signal.SIGQUIT)
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            send_signal([*children_of(process.pid), *family], signal.SIGKILL)
            process.wait()

    def reap(self) -> None:
        """Take note of a server that ended by itself."""
        if self._process is not None:
            self._process.poll()

    def _launch(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        environment = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}
        environment |= {"HOME": str(self._data), "TMPDIR": str(self._data)}
        with open(self._log, "ab") as log:
            return subprocess.Popen(
                [str(self._bin / program), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                cwd="/",
                user=self._order.uid,
                group=self._order.gid,
                extra_groups=None if self._order.uid is None else [],
            )

    def _give(self, path: Path) -> None:
        if self._order.uid is not None and self._order.gid is not None:
            os.chown(path, self._order.uid, self._order.gid)

    def _last_words(self) -> str:
        return last_words(self._log.read_text(errors="replace"))


def last_words(log: str) -> str:
    """Return the one line of a server's log that says why it ended."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    causes = [line for line in lines if any(mark in line for mark in ("FATAL:", "PANIC:", "error:"))]
    text = (causes or lines or ["its log is empty"])[-1]
    _, mark, fatal = text.partition("FATAL:")
    return (fatal if mark else text).strip()


def reads_ready(status: Path, pid: int) -> bool:
    """Say whether postmaster.pid names the process ``pid`` and its last line reads «ready»."""
    try:
        lines = status.read_text().split()
    except FileNotFoundError:
        return False
    return bool(lines) and lines[0] == str(pid) and lines[-1] == "ready"


def free_port() -> int:
    """Return a loopback port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def link_install(package: Path, install: str, home: Path) -> Path:
    """Repeat what the server needs of the wheel below ``home``, readable by everyone; return its tree.

    Hard links where the file system allows, so that it takes milliseconds and no space. The depth is the
    wheel's own, since its programs look for their libraries relative to themselves.
    """
    site = home / "wheel"
    for source in (package / install, package / ".dylibs", *package.parent.glob(package.name + ".libs")):
        if source.is_dir():
            _link_tree(source, site / source.relative_to(package.parent))
    return site / package.name / install


def _link_tree(source: Path, target: Path) -> None:
    for folder, names, files in os.walk(source):
        names[:] = [name for name in names if name not in ("include", "pgxs", "pkgconfig")]
        place = target / Path(folder).relative_to(source)
        place.mkdir(0o755, parents=True)
        for name in files:
            if not name.endswith(".a"):
                _link_file(Path(folder, name), place / name)


def _link_file(source: Path, target: Path) -> None:
    mode = source.stat().st_mode
    if mode & 0o004:
        try:
            os.link(source.resolve(), target)
            return
        except OSError:  # another file system, or one without hard links: copy instead
            pass
    shutil.copyfile(source, target)
    target.chmod(0o755 if mode & 0o100 else 0o644)


def children_of(pid: int) -> list[int]:
    """Return the process ids of the children of ``pid``."""
    pairs = _read_proc() if os.path.isdir("/proc/self") else _read_ps()
    return [child for child, parent in pairs if parent == pid]


def _read_ps() -> list[tuple[int, int]]:
    listing = subprocess.check_output(["ps", "-A", "-o", "pid=,ppid="], text=True)
    return [(int(child), int(parent)) for child, parent in (line.split() for line in listing.splitlines())]


def _read_proc() -> list[tuple[int, int]]:
    pairs = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            text = Path("/proc", name, "stat").read_text()
        except (FileNotFoundError, ProcessLookupError):  # it ended while we looked
            continue
        # pid (name) state ppid …; the name may contain blanks and brackets
        pairs.append((int(name), int(text.rpartition(")")[2].split()[1])))
    return pairs


def send_signal(pids: Iterable[int], number: signal.Signals) -> None:
    """Signal every process that is still there."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def remove(home: Path) -> dict[str, Any]:
    """Remove the directory, and say so."""
    cause = ""
    for _ in range(_REMOVE_ATTEMPTS):
        try:
            shutil.rmtree(home)
        except FileNotFoundError:
            break
        except OSError as error:  # a backend that outlived its postmaster may still write
            cause = str(error)
            time.sleep(_REMOVE_PAUSE_SECONDS)
        else:
            break
    else:
        return {"state": "left", "directory": str(home), "cause": cause}
    return {"state": "removed"}


def report(answer: dict[str, Any]) -> None:
    """Answer the owner, who may be gone: nobody is left to tell then."""
    try:
        os.write(sys.stdout.fileno(), json.dumps(answer).encode() + b"\n")
    except BrokenPipeError:
        return


def serve(server: Server, watch: Watch) -> None:
    """Start the server and follow the owner's orders. Raises OwnerGone, StartError."""
    server.prepare()
    report(server.start())
    while True:
        while (order := watch.next_order()) is None:
            watch.pause()
            server.reap()
        if order["do"] == "end":
            server.end()
            report({"state": "ended"})
        else:
            report(server.start())


def main() -> None:
    """Read the order, serve, clean up."""
    os.umask(0o022)
    watch = Watch()
    try:
        order = Order(**watch.await_order())
    except OwnerGone:
        return
    try:
        home = Path(tempfile.mkdtemp(prefix=PREFIX, dir=order.parent))
    except OSError as error:
        report({"state": "failed", "cause": str(error)})
        return
    server = Server(order, home, watch)
    try:
        serve(server, watch)
    except OwnerGone:
        pass
    except (StartError, OSError) as error:
        report({"state": "failed", "cause": str(error)})
    finally:
        server.end()
        report(remove(home))


if __name__ == "__main__":
    main()
